"""The doctor where runs are processes of this host: judgements, and a whole examination without an engine."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from managedd.doctor.finding import Level
from managedd.doctor.judgement import processes
from managedd.drivers.process_cgroup import SUBGROUP
from managedd.drivers.process_probe import Needs, held_here, needs
from tests.support.daemon import LiveDaemon

if TYPE_CHECKING:
    from pathlib import Path


def needs_of(**changes: Any) -> Needs:
    there: dict[str, Any] = {
        "uv": "0.9",
        "uv_words": None,
        "python": "/usr/bin/python3",
        "python_wanted": ">=3.10",
        "image_words": None,
    }
    return Needs(**{**there, **changes})


def test_what_makes_environments() -> None:
    assert processes.installer(needs_of()).level is Level.OK
    missing = processes.installer(needs_of(uv=None, uv_words="uv is not installed"))
    assert (missing.level, missing.seen) == (Level.PROBLEM, "uv is not installed")


def test_the_python_of_runs() -> None:
    assert processes.python(needs_of(), configured=None).level is Level.OK
    assert processes.python(needs_of(python=None), configured=None).level is Level.NOTE
    assert processes.python(needs_of(python=None, python_wanted="3.99"), configured="3.99").level is Level.PROBLEM
    assert processes.python(needs_of(image_words="no"), configured=None).level is Level.PROBLEM


def test_git_is_needed_for_a_flows_code() -> None:
    assert processes.git("/usr/bin/git").level is Level.OK
    missing = processes.git(None)
    assert (missing.level, "clone" in missing.seen, "apt-get install git" in str(missing.mend)) == (
        Level.PROBLEM,
        True,
        True,
    )


def test_an_index_is_needed_for_environments() -> None:
    assert processes.package_index(None, has_environment=False).level is Level.OK
    assert processes.package_index("refused", has_environment=False).level is Level.PROBLEM
    assert processes.package_index("refused", has_environment=True).level is Level.WARNING


def test_limits_that_hold_for_processes() -> None:
    assert processes.limits({"memory", "pids", "cpu"}, whose="it").level is Level.OK
    some = processes.limits({"memory"}, whose="it")
    assert (some.level, some.facts["unsupported"]) == (Level.WARNING, ["pids", "cpu"])
    assert "memory: control group, processes: unsupported" in some.seen
    assert "memory: watched" in processes.limits((), whose="it").seen
    assert "files: weighed" in processes.limits((), whose="it").seen
    # Elsewhere than in that subgroup there are none to be found.
    assert f"DelegateSubgroup={SUBGROUP}" in str(some.mend)
    assert "--scope" not in str(some.mend)


def test_it_is_said_that_nothing_is_isolated() -> None:
    assert "nothing isolates" in processes.isolation(trusted=False).seen
    assert "process.trusted" in processes.isolation(trusted=True).seen


def test_control_groups_are_looked_at_and_not_made(tmp_path: Path) -> None:
    own, root = tmp_path / "own", tmp_path / "cgroup"
    unit = root / "system.slice" / "managedd.service"
    (unit / "daemon").mkdir(parents=True)
    (root / "cgroup.controllers").touch()
    (unit / "cgroup.subtree_control").touch()
    (unit / "cgroup.controllers").write_text("cpuset cpu memory pids\n")
    own.write_text("0::/system.slice/managedd.service/daemon\n")
    before = sorted(tmp_path.rglob("*"))
    assert held_here(root, own) == {"cpu", "memory", "pids"}
    own.write_text("0::/system.slice/managedd.service\n")
    assert held_here(root, own) == frozenset()
    assert held_here(root, tmp_path / "nothing") == frozenset()
    assert sorted(tmp_path.rglob("*")) == before


def test_control_groups_of_version_1(tmp_path: Path) -> None:
    own, root = tmp_path / "own", tmp_path / "cgroup"
    (root / "memory" / "user").mkdir(parents=True)
    (root / "pids").mkdir()
    own.write_text("4:memory:/user\n3:pids:/of/the/host\n2:name=systemd:/\n")
    assert held_here(root, own) == {"memory", "pids"}
    assert sorted(path.name for path in root.rglob("*")) == ["memory", "pids", "user"]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_there_is_here() -> None:
    found = await needs("prefecthq/prefect:3-latest", None)
    assert found.uv
    assert found.python is not None
    assert os.access(found.python, os.X_OK)
    odd = await needs("alpine:3", "3.99")
    assert (odd.python, odd.python_wanted) == (None, "3.99")
    assert odd.image_words


def examined(folder: Path, **variables: str) -> tuple[int, dict[str, dict[str, Any]]]:
    own = {
        "MANAGEDD_DOCKER__HOST": f"unix://{folder}/none.sock", "MANAGEDD_SERVER__PORT": "0", "MANAGEDD_RUNS__LISTEN_PORT": "0",
        "MANAGEDD_SERVER__AUTH_STRING": "u:p",
    }  # fmt: skip
    return examined_with("--data-dir", str(folder / "data"), **{**own, **variables})


def examined_with(*arguments: str, **variables: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and the findings by name."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MANAGEDD_")}
    done = subprocess.run(
        [sys.executable, "-m", "managedd", "doctor", "--json", *arguments],
        env={**kept, "PYTHONWARNINGS": "error", **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}


def test_a_host_without_an_engine_is_healthy(tmp_path: Path) -> None:
    code, found = examined(tmp_path)
    assert {finding["level"] for finding in found.values()} <= {"ok", "note", "warning"}
    assert code == 0
    assert found["driver"]["facts"] == {"configured": "auto", "chosen": "process"}
    assert (found["container engine"]["level"], found["container engine"]["facts"]["fault"]) == ("note", "no_socket")
    assert found["API from a process"]["level"] == "ok"
    assert [found[name]["level"] for name in ("installer", "git for runs", "package index")] == ["ok"] * 3
    # What only containers need is nobody's business here.
    assert not {"image", "container", "API from a run", "between runs"} & found.keys()
    assert list(tmp_path.iterdir()) == []


def test_a_host_where_no_environment_can_be_made_and_nothing_cloned(tmp_path: Path) -> None:
    nowhere = {"MANAGEDD_RUNS__INDEX_URL": "http://me:hunter2@127.0.0.1:9/simple", "NO_PROXY": "127.0.0.1"}
    code, found = examined(tmp_path, MANAGEDD_PROCESS__PATH="/nowhere", **nowhere)
    assert (code, found["git for runs"]["level"], found["package index"]["level"]) == (1, "problem", "problem")
    assert "runs.index_url" in found["package index"]["mend"]
    assert "127.0.0.1:9" in found["package index"]["seen"]
    assert "hunter2" not in json.dumps(found)
    (tmp_path / "data" / "environments" / "prefect-made" / "bin").mkdir(parents=True)
    _, found = examined(tmp_path, **nowhere)
    assert found["package index"]["level"] == "warning"


def test_processes_are_not_for_other_hosts_clients(tmp_path: Path) -> None:
    code, found = examined(tmp_path, MANAGEDD_SERVER__HOST="0.0.0.0")
    assert (code, found["driver"]["level"], found["container engine"]["level"]) == (1, "problem", "problem")
    assert "process.trusted" in found["driver"]["seen"]
    assert found["container"]["seen"] == "not checked: see container engine"


def test_processes_of_root_are_not_for_every_user_of_the_host(tmp_path: Path) -> None:
    _, found = examined(tmp_path, MANAGEDD_SERVER__AUTH_STRING="none")
    if os.geteuid() == 0:
        assert (found["driver"]["level"], "server.auth_string" in found["driver"]["seen"]) == ("problem", True)
    else:
        assert found["driver"]["facts"]["chosen"] == "process"


def test_processes_do_not_follow_containers_by_themselves(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "state.db")) as store, store:
        store.execute("CREATE TABLE meta (key TEXT, value TEXT)")
        store.execute("INSERT INTO meta VALUES ('last_driver', 'docker')")
    code, found = examined(tmp_path)
    assert (code, found["driver"]["level"], found["container engine"]["level"]) == (1, "problem", "problem")
    assert "the last runs were in containers" in found["driver"]["seen"]


def test_a_daemon_whose_runs_are_processes(tmp_path: Path) -> None:
    daemon = LiveDaemon(
        tmp_path, docker_host=None, settings={"runs": {"driver": "process"}, "process": {"trusted": True}}
    )
    try:
        daemon.start()
        before = sorted(each.name for each in daemon.data_dir.iterdir())
        code, found = examined_with("--config", str(tmp_path / "config.toml"))
        assert code == 0, found
        assert found["driver"]["facts"] == {"configured": "process", "chosen": "process"}
        assert "the daemon runs with it" in found["driver"]["seen"]
        assert (found["API from a process"]["level"], found["API from a process"]["facts"]["daemon_listens"]) == (
            "ok",
            True,
        )
        assert found["limits of processes"]["seen"].startswith("for the daemon: ")
        told = daemon.api.get("/managed/status")["engine"]["detail"]["unsupported"]
        assert found["limits of processes"]["facts"]["unsupported"] == told
        assert sorted(each.name for each in daemon.data_dir.iterdir()) == before
    finally:
        daemon.close()
