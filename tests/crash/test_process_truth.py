"""How runs that are processes end against their will, and what is said of it: their limits hold with and without a daemon."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from managedd.drivers import run_tree
from tests.crash.place import Place
from tests.support.process_daemon import IMAGE, ProcessDaemon, ensure_environments, with_command

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.client, pytest.mark.crash]

MIB = 1024**2
DISK_MIB = 300
"""An environment with packages of its own is a part of the run's files."""
TROUBLE = Path(__file__).with_name("image") / "trouble.py"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessDaemon]:
    environments = with_command(ensure_environments(), tmp_path_factory.mktemp("trouble"), "prefect", TROUBLE)
    runs = {"stop_grace_seconds": 1.0, "disk_limit_bytes": DISK_MIB * MIB, "pids_limit": 40}
    made = ProcessDaemon(tmp_path_factory.mktemp("place"), environments=environments, settings={"runs": runs})
    try:
        made.start()
        yield made
    finally:
        made.close()


def submitted(daemon: ProcessDaemon, name: str, parameters: dict[str, Any], **variables: Any) -> str:
    """A run with those job variables that is due now."""
    place = Place(daemon=daemon, pool=name)
    place.furnish(IMAGE)
    body = {"state": {"type": "SCHEDULED"}, "parameters": parameters, "job_variables": {"image": IMAGE, **variables}}
    return str(place.api.post(f"/deployments/{place.deployment_id}/create_flow_run", body)["id"])


def until_running(daemon: ProcessDaemon, run: str) -> list[int]:
    """The processes of the run, which has said that it runs and has a child that left."""
    deadline = time.monotonic() + 30
    while True:
        found = [one for one in daemon.folders() if (one.spec() or {}).get("flow_run_id") == run]
        family = run_tree.marked(found[0].execution_id, str(found[0].path)) if found else []
        if daemon.api.run(run)["state_type"] == "RUNNING" and len(family) >= 4:
            return family
        assert time.monotonic() < deadline, daemon.log_tail()
        time.sleep(0.05)


def gone(family: list[int]) -> bool:
    return all((stat := run_tree.stat_of(pid)) is None or stat.state == "Z" for pid in family)


def told(daemon: ProcessDaemon, run: str) -> str:
    """The state's message of the run that crashed, of which nothing is left."""
    daemon.ended(run, seconds=30)
    state = daemon.api.run(run)["state"]
    assert state["type"] == "CRASHED", state
    deadline = time.monotonic() + 10
    while state["message"] not in daemon.api.text(run):
        assert time.monotonic() < deadline, "the run's log does not say so"
        time.sleep(0.1)
    return str(state["message"])


def test_memory_of_a_child_that_left(daemon: ProcessDaemon) -> None:
    run = submitted(daemon, "memory", {"eats": True}, memory_limit="128Mi")
    message = told(daemon, run)
    assert "Out of memory in the flow: the memory limit is 128.0 MiB" in message
    assert daemon.executions(run)[0]["end_cause"] == "memory"


def why(daemon: ProcessDaemon, run: str) -> dict[str, Any]:
    """The cause for programs, of the run's only execution."""
    [execution] = daemon.executions(run)
    facts: dict[str, Any] = json.loads(execution["evidence"])["end"]
    assert (facts["cause"], facts["execution_id"]) == (execution["end_cause"], execution["id"])
    return facts


def test_memory_while_packages_are_installed(daemon: ProcessDaemon, tmp_path: Path) -> None:
    package = tmp_path / "eater"
    package.mkdir()
    (package / "pyproject.toml").write_text(
        '[project]\nname = "eater"\nversion = "1"\n[build-system]\nrequires = []\nbuild-backend = "eats"\nbackend-path = ["."]\n'
    )
    (package / "eats.py").write_text("kept = []\nwhile True: kept.append(bytearray(16 << 20))\n")
    packages = {"pip_packages": [f"eater @ {package.as_uri()}"], "memory_limit": "256Mi"}
    message = told(daemon, submitted(daemon, "eater", {}, **packages))
    assert message.startswith("Out of memory while installing packages: the memory limit is 256.0 MiB")


def test_files(daemon: ProcessDaemon, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    bystander = submitted(daemon, "bystander", {"gate": str(gate), "code": 0})
    family = until_running(daemon, bystander)
    run = submitted(daemon, "disk", {"fills": True})
    message = told(daemon, run)
    assert message.startswith("Disk limit reached: the run has written ") and message.endswith(
        f"its limit is {DISK_MIB}.0 MiB."
    )
    facts = why(daemon, run)
    assert (facts["cause"], facts["limit"], facts["unit"]) == ("disk", DISK_MIB * MIB, "bytes")
    assert facts["reached"] > DISK_MIB * MIB
    assert not gone(family) and daemon.api.run(bystander)["state_type"] == "RUNNING", (
        "whoever runs beside it has lost nothing"
    )
    gate.touch()
    [execution] = daemon.ended(bystander, seconds=30)
    assert (execution["end_cause"], execution["attempt"]) == ("completed", 1)


def test_forks_without_end(daemon: ProcessDaemon) -> None:
    """By a control group or, without one, by counting: the run ends, and the host is there."""
    run = submitted(daemon, "forks", {"forks": True, "deaf": True})
    message = told(daemon, run)
    assert message.startswith("Process limit reached: the run had ") and message.endswith("its limit is 40.")
    assert (why(daemon, run)["limit"], why(daemon, run)["unit"]) == (40, "processes")


@pytest.mark.parametrize("how", ["deaf", "silent"])
def test_time_limit_of_one_that_does_not_listen_or_has_not_begun(daemon: ProcessDaemon, how: str) -> None:
    run = submitted(daemon, how, {how: True}, timeout=2)
    message = told(daemon, run)
    where = "before the flow began" if how == "silent" else "in the flow"
    assert message.startswith(f"Time limit reached {where}: the run was stopped after ")
    assert "its limit is 2.0 s, installation included. Raise the timeout job variable" in message
    facts = why(daemon, run)
    assert (facts["cause"], facts["limit"], facts["unit"]) == ("time", 2, "seconds") and facts["reached"] >= 2


def test_time_limit(daemon: ProcessDaemon) -> None:
    run = submitted(daemon, "time", {}, timeout=2)
    family = until_running(daemon, run)
    assert "Time limit reached" in told(daemon, run)
    assert gone(family)


def test_time_limit_while_the_daemon_is_dead(daemon: ProcessDaemon) -> None:
    run = submitted(daemon, "alone", {}, timeout=2)
    family = until_running(daemon, run)
    daemon.kill()
    deadline = time.monotonic() + 30
    while not gone(family):
        assert time.monotonic() < deadline, "nobody held the limit"
        time.sleep(0.1)
    daemon.start()
    message = told(daemon, run)
    assert "Time limit reached" in message and "2.0 s" in message
    assert daemon.executions(run)[0]["end_cause"] == "time"


@pytest.mark.parametrize("code", [0, 3])
def test_a_child_that_left_ends_with_its_run(daemon: ProcessDaemon, tmp_path: Path, code: int) -> None:
    gate = tmp_path / "gate"
    run = submitted(daemon, f"left-{code}", {"gate": str(gate), "code": code})
    family = until_running(daemon, run)
    assert len({os.getsid(pid) for pid in family}) >= 3, "the supervisor, the run, and the child that left"
    gate.touch()
    if code == 0:
        [ended] = daemon.ended(run, seconds=30)
        assert (ended["end_cause"], daemon.api.run(run)["state_type"]) == ("completed", "COMPLETED")
    else:
        assert f"exit code {code}" in told(daemon, run)
    assert gone(family)


def test_the_supervisor_is_killed_while_the_daemon_is_dead(daemon: ProcessDaemon) -> None:
    run = submitted(daemon, "killed", {})
    family = until_running(daemon, run)
    (folder,) = [one for one in daemon.folders() if (one.spec() or {}).get("flow_run_id") == run]
    daemon.kill()
    os.kill((folder.state() or {})["pid"], signal.SIGKILL)
    daemon.start()
    assert "exit code 137" in told(daemon, run)
    assert gone(family)
