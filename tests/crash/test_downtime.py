"""A daemon that was down for hours: what its runs have cost meanwhile is known before anything is started or stopped for want of hours."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from managedd.clock import iso
from tests.crash.place import Place
from tests.support.process_daemon import IMAGE, ProcessDaemon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.client, pytest.mark.crash]

HOUR_US = 3600 * 1_000_000


@pytest.fixture
def daemon(fast_environments: Path, tmp_path: Path) -> Iterator[ProcessDaemon]:
    made = ProcessDaemon(tmp_path, environments=fast_environments, settings={"plans.pro": {"compute_hours": 4}})
    try:
        made.start()
        yield made
    finally:
        made.close()


def until(daemon: ProcessDaemon, run: str, *names: str) -> dict[str, Any]:
    """The run's state, which has one of those names."""
    deadline = time.monotonic() + 30
    while (state := daemon.api.run(run)["state"])["name"] not in names:
        assert time.monotonic() < deadline, f"{state}\n{daemon.log_tail()}"
        time.sleep(0.05)
    return dict(state)


def pretend_earlier(daemon: ProcessDaemon, waiting: str) -> None:
    """What runs was begun five hours before it was, and the other run is due."""
    [folder] = daemon.folders()
    state = folder.state()
    assert state is not None
    state["started_us"] -= 5 * HOUR_US
    (folder.path / "state.json").write_text(json.dumps(state))
    with closing(sqlite3.connect(daemon.data_dir / "state.db")) as db, db:
        for name in ("claimed_at", "created_at", "started_at", "installed_at", "seen_at"):
            db.execute(f"UPDATE executions SET {name} = {name} - ?", (5 * HOUR_US,))
        db.execute("UPDATE flow_runs SET next_scheduled_start_time = ? WHERE id = ?", (time.time_ns() // 1000, waiting))


def test_hours_that_went_by_while_it_was_down_are_counted_before_it_starts_a_run(
    daemon: ProcessDaemon, tmp_path: Path
) -> None:
    place, gate = Place(daemon=daemon), tmp_path / "gate"
    place.furnish(IMAGE)
    [run] = place.submit(1, gate=gate)
    until(daemon, run, "Running")
    later = {"type": "SCHEDULED", "state_details": {"scheduled_time": iso(time.time_ns() // 1000 + HOUR_US)}}
    made = place.api.post(f"/deployments/{place.deployment_id}/create_flow_run", {"state": later})
    waiting = str(made["id"])
    daemon.stop()
    pretend_earlier(daemon, waiting)
    daemon.start()
    state = until(daemon, waiting, "AwaitingComputeHours", "Pending", "Running", "Completed")
    assert state["name"] == "AwaitingComputeHours", state
    assert "the workspace has used 5" in state["message"]
    gate.touch()
    place.wait_all([run])
