"""Many runs of the real client at once on few slots: each is executed once, and no more of them at a time than there are slots."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.contract.place import POOL

if TYPE_CHECKING:
    from tests.contract.place import Place

pytestmark = [pytest.mark.docker, pytest.mark.client, pytest.mark.slow]

RUNS = int(os.environ.get("MANAGEDD_TEST_RUNS", "12"))
"""By hand with 50."""
SLOTS = 10
SECONDS = 600.0


@pytest.mark.timeout(SECONDS + 60)
def test_many_runs_on_ten_slots(place: Place) -> None:
    api, daemon = place.api, place.daemon
    deployment = place.deployment("tutorial.py:counted")
    with ThreadPoolExecutor(10) as pool:
        ids = list(pool.map(lambda number: place.submit(deployment, {"number": number}), range(RUNS)))
    assert len(set(ids)) == RUNS
    deadline = time.monotonic() + SECONDS
    most = 0
    while True:
        states = [run["state_type"] for run in api.post("/flow_runs/filter", {"flow_runs": {"id": {"any_": ids}}})]
        taken = sum(state in {"PENDING", "RUNNING", "CANCELLING"} for state in states)
        most = max(most, taken)
        assert taken <= SLOTS
        # A run whose process is still leaving holds its slot, too.
        assert len(daemon.containers(all_=False)) <= SLOTS
        if not {"SCHEDULED", "PENDING", "RUNNING"} & set(states):
            break
        assert time.monotonic() < deadline, states
        time.sleep(1)
    assert states == ["COMPLETED"] * RUNS
    assert most > SLOTS // 2, "the slots are used"

    for run in api.post("/flow_runs/filter", {"flow_runs": {"id": {"any_": ids}}}):
        assert run["run_count"] == 1
        assert run["work_pool_name"] == POOL
    marks = ", ".join("?" * RUNS)
    attempts = daemon.query(f"SELECT flow_run_id, attempt FROM executions WHERE flow_run_id IN ({marks})", *ids)
    assert sorted((one["flow_run_id"], one["attempt"]) for one in attempts) == sorted((run_id, 1) for run_id in ids)
    made = [
        one
        for offset in (0, 200)
        for one in api.post("/artifacts/filter", {"artifacts": {"key": {"any_": ["counted"]}}, "offset": offset})
    ]
    assert sorted(int(one["data"]) for one in made) == list(range(RUNS))
    daemon.wait_no_containers()
