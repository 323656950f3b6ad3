"""`managedd serve` as a process, without a container engine: how it starts, and how it ends when it can't or shall not."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECONDS = 60.0


def command(data_dir: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "managedd", "serve", "--data-dir", str(data_dir), *arguments]


def environment(data_dir: Path, **variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("MANAGEDD_")}
    nowhere = {
        "MANAGEDD_DOCKER__HOST": f"unix://{data_dir}/no-engine.sock",
        "MANAGEDD_LOG__FORMAT": "json",
        "MANAGEDD_SERVER__PORT": "0",
    }
    return {**kept, **nowhere, **variables}


@contextmanager
def serving(data_dir: Path, *arguments: str, **variables: str) -> Iterator[dict[str, Any]]:
    """What a daemon that is ready said of its address; it is told to stop at the end, and does."""
    process = subprocess.Popen(
        command(data_dir, *arguments), env=environment(data_dir, **variables), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        said = []
        for line in process.stderr:
            said.append(line)
            if "daemon.ready" in line:
                break
        else:
            pytest.fail("".join(said))
        yield next(event for event in map(json.loads, said) if event["event"] == "daemon.listening")
    finally:
        process.terminate()
        process.communicate(timeout=SECONDS)
    assert process.returncode == 0


def refused(data_dir: Path, *arguments: str, code: int, **variables: str) -> str:
    """The last line of a daemon that did not start."""
    done = subprocess.run(
        command(data_dir, *arguments),
        env=environment(data_dir, **variables),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def key_command(data_dir: Path, word: str, *arguments: str) -> None:
    """`managedd key …` of the default workspace, on the closed store."""
    command = [sys.executable, "-m", "managedd", "key", word, "--workspace", "default/default", *arguments]
    done = subprocess.run(
        [*command, "--data-dir", str(data_dir)],
        env=environment(data_dir),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def plans(data_dir: Path) -> list[str]:
    with closing(sqlite3.connect(data_dir / "state.db")) as store:
        return [plan for (plan,) in store.execute("SELECT plan FROM workspaces")]


def test_a_port_that_is_taken_has_an_exit_code_of_its_own(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        told = refused(tmp_path, "--port", port, code=4)
    assert told.startswith(f"managedd: can't listen on 127.0.0.1 port {port}: Address already in use")


def test_an_address_of_another_host_is_not_there_yet(tmp_path: Path) -> None:
    told = refused(tmp_path, "--host", "192.0.2.1", code=4, MANAGEDD_SERVER__AUTH_STRING="me:pw")
    assert "can't listen on 192.0.2.1" in told


def test_an_ipv6_address_stands_in_brackets(tmp_path: Path) -> None:
    with serving(tmp_path, "--host", "::1") as said:
        assert said["url"] == f"http://[::1]:{said['port']}/api"


def test_the_default_plan_is_the_default_workspace_s_at_each_start(tmp_path: Path) -> None:
    for plan in ("pro", "free"):
        with serving(tmp_path, MANAGEDD_DEFAULT_PLAN=plan):
            pass
        assert plans(tmp_path) == [plan]


def test_a_workspace_without_a_plan_is_no_workspace_without_limits(tmp_path: Path) -> None:
    with serving(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / "state.db")) as store:
        store.execute(
            "INSERT INTO workspaces (id, account_id, handle, name, plan, created, updated) "
            "SELECT '00000000-0000-4000-8000-00000000000a', account_id, 'team', 'team', 'gold', created, updated FROM workspaces"
        )
        store.commit()
    told = refused(tmp_path, code=2)
    assert "default/team is on plan 'gold'" in told
    assert "[plans.NAME]" in told
    with serving(tmp_path, MANAGEDD_PLANS__GOLD__CONCURRENT_RUNS="2"):
        pass


def test_nobody_listens_to_other_hosts_before_there_is_a_key(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    told = refused(data_dir, "--host", "0.0.0.0", code=2)
    assert "0.0.0.0" in told
    assert "managedd key create" in told
    assert not data_dir.exists()
    with serving(data_dir):
        pass
    # The same over a store that has none yet, and again when the last one has gone.
    assert "managedd key create" in refused(data_dir, "--host", "0.0.0.0", code=2)
    key_command(data_dir, "create", "--name", "me", "--role", "admin")
    with serving(data_dir, "--host", "0.0.0.0") as said, pytest.raises(HTTPError, match="401"):
        urlopen(f"http://127.0.0.1:{said['port']}/api/flows/name/none", timeout=SECONDS)
    key_command(data_dir, "revoke", "me")
    assert "managedd key create" in refused(data_dir, "--host", "0.0.0.0", code=2)


def test_half_a_secret_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run-key.secret").write_bytes(b"")
    assert "run-key.secret holds 0 bytes" in refused(tmp_path, code=2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_whoever_is_told_to_stop_while_it_starts_stops_in_order(tmp_path: Path, number: signal.Signals) -> None:
    """The store's file is the first thing that a start leaves; the daemon is far from ready then."""
    process = subprocess.Popen(
        command(tmp_path), env=environment(tmp_path), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + SECONDS
    while not (tmp_path / "managedd.lock").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(number)
    _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert not (tmp_path / "state.db-wal").exists()
