"""Fifty runs, the daemon killed in the middle: on ten slots in containers and as processes, and all of them at once as processes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from managedd.drivers import run_environment, run_tree
from tests.crash.conftest import SETTINGS
from tests.crash.place import Place
from tests.support.process_daemon import IMAGE, ProcessDaemon

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.crash, pytest.mark.slow]


@pytest.mark.timeout(240)
def test_fifty_runs_on_ten_slots_with_a_kill_in_the_middle(place: Place) -> None:
    runs = place.submit(50, lines=10, pause=0.05)

    def count(sql: str) -> int:
        return int(place.daemon.query(f"SELECT count(*) AS n FROM flow_runs WHERE {sql}")[0]["n"])

    most = 0
    deadline = time.monotonic() + 90
    while count("state_type = 'COMPLETED'") < 15:
        most = max(most, count("state_type IN ('PENDING', 'RUNNING', 'CANCELLING')"))
        assert time.monotonic() < deadline, place.daemon.log_tail()
        time.sleep(0.05)
    place.daemon.kill()
    place.check_torn()
    assert sum(place.live_containers().values()) <= 10
    place.daemon.start()
    while count("state_type = 'COMPLETED'") < 50:
        most = max(most, count("state_type IN ('PENDING', 'RUNNING', 'CANCELLING')"))
        assert time.monotonic() < deadline + 90, place.daemon.log_tail()
        time.sleep(0.05)
    assert most == 10
    place.wait_all(runs)
    place.check_whole(runs, lines=10)


@pytest.mark.client
@pytest.mark.timeout(240)
def test_fifty_processes_at_once_live_through_a_kill_each_run_once(fast_environments: Path, tmp_path: Path) -> None:
    # Real supervisors, shims and families; the engine inside is the stand-in, since fifty of Prefect's take minutes of two processors.
    daemon = ProcessDaemon(
        tmp_path, environments=fast_environments, settings={**SETTINGS, "plans.pro": {"concurrent_runs": "none"}}
    )
    place, gate = Place(daemon=daemon), tmp_path / "gate"
    try:
        daemon.start()
        place.furnish(IMAGE, slots=50)
        runs = place.submit(50, lines=20, pause=0.1, gate=gate)
        wait_running(daemon, 50)
        daemon.kill()
        live = daemon.live_runs()
        assert live == dict.fromkeys(runs, 1), daemon.log_tail()
        folders = daemon.folders()
        # What they print now, and that they end, nobody hears until there is a daemon again.
        gate.touch()
        daemon.start()
        place.wait_all(runs)
        place.check_whole(runs, lines=20)
        assert {place.api.run(run)["run_count"] for run in runs} == {1}
        assert [found for one in folders for found in run_tree.marked(one.execution_id, str(one.path))] == []
        assert list(fast_environments.glob(f"*/{run_environment.USERS}/*")) == []
        assert daemon.complaints() == []
    finally:
        daemon.close()


def wait_running(daemon: ProcessDaemon, count: int, seconds: float = 90) -> None:
    """So many runs are Running at the same moment, or the test fails."""
    deadline = time.monotonic() + seconds
    while daemon.query("SELECT count(*) AS n FROM flow_runs WHERE state_type = 'RUNNING'") != [{"n": count}]:
        assert time.monotonic() < deadline, daemon.log_tail()
        time.sleep(0.1)
