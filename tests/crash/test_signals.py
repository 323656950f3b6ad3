"""Told to stop: at any time, under load, and with runs that live on; and what keeps a daemon from starting."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from aiohttp import ClientSession, WSMsgType

from managedd.cli.exits import CANNOT_LISTEN, WRONG_USAGE
from tests.support.daemon import LiveDaemon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.crash.place import Place

pytestmark = pytest.mark.crash

NO_ENGINE = "unix:///nonexistent/docker.sock"
QUICK_SECONDS = 10.0
"""What stopping may take on a busy machine; it is a second or so on an idle one."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[LiveDaemon]:
    """A daemon whose engine never answers."""
    daemon = LiveDaemon(tmp_path / "daemon", docker_host=NO_ENGINE, settings={"runs": {"driver": "docker"}})
    daemon.docker_host = None
    try:
        yield daemon
    finally:
        with contextlib.suppress(AssertionError, FileNotFoundError):
            daemon._end(signal.SIGKILL)


def serve(daemon: LiveDaemon, **options: object) -> subprocess.Popen[str]:
    """Another process over the same settings."""
    return subprocess.Popen(
        [sys.executable, "-m", "managedd", "serve", "--config", str(daemon.folder / "config.toml")],
        env={**daemon.environment, **{name: str(value) for name, value in options.items()}},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_stops(alone: LiveDaemon, number: int) -> None:
    alone.start(engine=False)
    began = time.monotonic()
    assert alone._end(number) == 0
    assert time.monotonic() - began < QUICK_SECONDS
    assert not any(event["event"] == "loop.failed" for event in alone.events())
    assert "Traceback" not in alone.log_path.read_text()


def test_told_to_stop_while_it_starts(alone: LiveDaemon) -> None:
    """Whenever the signal comes: it ends soon, and the next start finds everything in order."""
    alone.start(engine=False)
    alone.stop()
    for delay in (0.0, 0.5, 0.8, 1.1, 1.4, 1.7, 2.0):
        process = serve(alone)
        time.sleep(delay)
        process.terminate()
        _, said = process.communicate(timeout=QUICK_SECONDS + 5)
        # Before it listens for signals there is nothing to put in order.
        assert process.returncode in {0, -signal.SIGTERM}, said
        assert "Traceback" not in said
    alone.start(engine=False)
    assert alone.api.get("/health") is True
    assert alone.query("PRAGMA integrity_check") == [{"integrity_check": "ok"}]


def test_told_to_stop_under_load(alone: LiveDaemon) -> None:
    """A client is answered, or told to come back, or finds nobody: never an error of the server."""
    alone.start(engine=False)
    api, stop, told = alone.api, threading.Event(), list[int]()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def knock(number: int) -> None:
        while not stop.is_set():
            body = json.dumps({"name": f"flow {number} {len(told)}"}).encode()
            request = urllib.request.Request(
                f"{alone.url}/flows/", data=body, headers={"Content-Type": "application/json"}
            )
            try:
                with opener.open(request, timeout=10) as answer:
                    told.append(answer.status)
            except urllib.error.HTTPError as error:
                with error:
                    told.append(error.code)
                    assert error.code != 503 or error.headers["Prefect-Maintenance"] == "true"
            except OSError:
                time.sleep(0.01)

    assert api.get("/health") is True
    threads = [threading.Thread(target=knock, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.7)
    began = time.monotonic()
    code = alone.stop()
    stopped = time.monotonic() - began
    stop.set()
    for thread in threads:
        thread.join()
    assert code == 0 and stopped < QUICK_SECONDS
    assert told and set(told) <= {200, 201, 503}
    stored = alone.query("SELECT count(*) AS n FROM flows")[0]["n"]
    assert stored >= told.count(201)


def test_a_request_that_never_ends_does_not_hold_the_stop_for_long(alone: LiveDaemon) -> None:
    alone.settings["server"]["stop_seconds"] = 1.0
    alone.start(engine=False)
    host, port = alone.url.split("/")[2].split(":")
    with socket.create_connection((host, int(port))) as held:
        held.sendall(
            b"POST /api/flows/ HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        time.sleep(0.3)
        began = time.monotonic()
        assert alone.stop() == 0
        assert time.monotonic() - began < QUICK_SECONDS


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/logs/out", "/events/out"])
async def test_sockets_are_closed_with_the_code_that_brings_clients_back(alone: LiveDaemon, path: str) -> None:
    await anyio.to_thread.run_sync(lambda: alone.start(engine=False))
    async with ClientSession() as session, session.ws_connect(alone.url + path, protocols=("prefect",)) as ws:
        await ws.send_json({"type": "auth", "token": None})
        assert (await ws.receive_json())["type"] == "auth_success"
        await ws.send_json({"type": "filter", "filter": {}})
        os.kill(alone.pid, signal.SIGTERM)
        with anyio.fail_after(QUICK_SECONDS):
            while (message := await ws.receive()).type not in {WSMsgType.CLOSE, WSMsgType.CLOSED}:
                pass
        assert message.data == 1012
    assert await anyio.to_thread.run_sync(alone.stop) == 0


def test_a_second_daemon_is_refused_and_told_by_whom(alone: LiveDaemon) -> None:
    alone.start(engine=False)
    second = serve(alone, MANAGEDD_SERVER__PORT=0)
    _, said = second.communicate(timeout=30)
    assert second.returncode == WRONG_USAGE
    assert str(alone.pid) in said and "Traceback" not in said
    assert alone.api.get("/health") is True


def test_a_port_that_is_taken_is_told(alone: LiveDaemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        alone.start(engine=False)
        alone.stop()
        process = serve(alone, MANAGEDD_SERVER__PORT=port)
        _, said = process.communicate(timeout=30)
    assert process.returncode == CANNOT_LISTEN
    assert f"127.0.0.1 port {port}" in said and "Traceback" not in said


def test_runs_live_on_and_are_adopted(place: Place) -> None:
    """A stop costs no run anything: its container goes on, prints on, and the next daemon has every line."""
    runs = place.submit(3, lines=40, pause=0.1)
    deadline = time.monotonic() + 60
    while len(place.live_containers()) < 3:
        assert time.monotonic() < deadline, place.daemon.log_tail()
        time.sleep(0.1)
    began = time.monotonic()
    assert place.daemon.stop() == 0
    assert time.monotonic() - began < QUICK_SECONDS
    assert place.live_containers() == dict.fromkeys(runs, 1)
    time.sleep(1)
    seen = len(place.daemon.events())
    place.daemon.start()
    place.wait_all(runs)
    place.check_whole(runs, lines=40)
    adopted = {event["execution_id"] for event in place.daemon.events()[seen:] if event["event"] == "execution.adopted"}
    assert adopted == {place.daemon.executions(run_id)[0]["id"] for run_id in runs}


@pytest.mark.docker
@pytest.mark.parametrize("place", ["docker"], indirect=True)
def test_a_run_that_ended_while_nobody_looked(place: Place) -> None:
    """One is killed, one is removed by hand, while no daemon runs: both are told of at the next start, within seconds."""
    killed, removed = place.submit(2, lines=200, pause=0.1)
    deadline = time.monotonic() + 60
    while len(place.live_containers()) < 2 or any(
        place.api.run(run)["state_type"] != "RUNNING" for run in (killed, removed)
    ):
        assert time.monotonic() < deadline, place.daemon.log_tail()
        time.sleep(0.1)
    place.daemon.kill()
    place.daemon.docker("kill", *place.daemon.containers(flow_run_id=killed))
    place.daemon.docker("rm", "-f", *place.daemon.containers(flow_run_id=removed))
    place.daemon.start()
    place.wait_all([killed, removed], seconds=30)
    states = {run: place.api.run(run)["state"] for run in (killed, removed)}
    assert [states[run]["type"] for run in (killed, removed)] == ["CRASHED", "CRASHED"]
    assert "exit code 137" in states[killed]["message"]
    assert "is gone" in states[removed]["message"]
    assert place.daemon.containers() == []
    place.check_sound()


def logged(daemon: LiveDaemon, event: str) -> list[dict[str, Any]]:
    """What the daemon has logged under that name, once it has."""
    deadline = time.monotonic() + QUICK_SECONDS
    while not (found := daemon.events(event=event)):
        assert time.monotonic() < deadline, daemon.log_tail()
        time.sleep(0.05)
    return found


def test_plans_are_read_anew(alone: LiveDaemon) -> None:
    """SIGHUP: waiting runs are looked at again under the new plans; settings that are wrong change nothing."""
    alone.start(engine=False)
    assert alone.api.get("/managed/usage")["limit_minutes"] == 250 * 60
    alone.settings["plans.pro"]["compute_hours"] = 2
    alone.settings["runs"]["cpu_limit"] = 3
    alone.reload()
    [told] = logged(alone, "settings.reloaded")
    assert told["changed"] == ["plans.pro.compute_hours"]
    assert "runs.cpu_limit" in told["need_a_restart"]
    assert alone.api.get("/managed/usage")["limit_minutes"] == 120

    alone.settings["plans.pro"]["compute_hours"] = -1
    alone.reload()
    [refused] = logged(alone, "settings.refused")
    assert "plans.pro.compute_hours" in refused["reason"]
    assert alone.api.get("/managed/usage")["limit_minutes"] == 120
    assert alone.running


def test_a_plan_that_a_workspace_is_on_is_not_taken_from_it(alone: LiveDaemon) -> None:
    """Without it nobody could say what the workspace may: the reload is refused, a start too, by name; what was accepted stays."""
    alone.settings["plans.gold"] = {"compute_hours": 77}
    alone.start(engine=False)
    alone.api.call("PATCH", "/managed/workspace", {"plan": "gold"})
    flow = alone.api.post("/flows/", {"name": "f"})
    run = alone.api.post("/flow_runs/", {"flow_id": flow["id"], "state": {"type": "SCHEDULED"}})
    del alone.settings["plans.gold"]
    alone.reload()
    [refused] = logged(alone, "settings.refused")
    assert "default/default is on plan 'gold'" in refused["reason"] and "set [plans.NAME]" in refused["reason"]
    assert alone.api.get("/managed/usage")["limit_minutes"] == 77 * 60

    assert alone.stop() == 0
    done = serve(alone)
    _, told = done.communicate(timeout=30)
    assert done.returncode == WRONG_USAGE and "default/default is on plan 'gold'" in told

    alone.settings["plans.gold"] = {"compute_hours": 78}
    alone.start(engine=False)
    assert alone.api.get("/managed/usage")["limit_minutes"] == 78 * 60
    assert alone.api.run(run["id"])["state"]["name"] == "Scheduled"
