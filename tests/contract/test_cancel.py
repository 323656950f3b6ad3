"""Cancelled means: no container, within the graces, whatever the flow thinks of it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.support.slow_server import SlowServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.contract.place import Place

pytestmark = [pytest.mark.docker, pytest.mark.client, pytest.mark.slow, pytest.mark.timeout(300)]

GRACE_SECONDS, STOP_SECONDS = 15.0, 3.0
"""As the daemon of these tests is set up."""
SLACK_SECONDS = 10.0


@pytest.fixture(scope="module")
def slow(place: Place) -> Iterator[SlowServer]:
    with SlowServer("127.0.0.1").serving() as server:
        yield server


@pytest.fixture(scope="module")
def ticks(place: Place) -> str:
    return place.deployments(*({"entrypoint": f"trouble.py:{name}"} for name in ("ticks", "deaf", "in_c")))[0]


@pytest.fixture(scope="module")
def running(place: Place, ticks: str) -> dict[str, str]:
    """Runs that do what they say, cancelled by nobody yet."""
    said = {"ticks": "ticking", "deaf": "deaf now", "in_c": "counting"}
    submitted = {name: place.submit(place.deployment(f"trouble.py:{name}")) for name in said}
    deadline = time.monotonic() + 120
    for name, words in said.items():
        place.api.wait(submitted[name], types={"RUNNING"})
        while words not in place.api.text(submitted[name]):
            assert time.monotonic() < deadline, place.api.text(submitted[name])
            time.sleep(0.3)
    time.sleep(3)  # past their last words
    return submitted


@pytest.mark.parametrize("name", ["ticks", "deaf", "in_c"])
def test_running_run(place: Place, running: dict[str, str], name: str) -> None:
    run_id = running[name]
    assert len(place.daemon.containers(flow_run_id=run_id, all_=False)) == 1
    began = time.monotonic()
    if name == "ticks":
        said = place.user.prefect("flow-run", "cancel", run_id)
        assert "successfully scheduled for cancellation" in said.text
    else:
        place.cancel(run_id)
    run = place.api.wait(run_id, types={"CANCELLED"}, seconds=GRACE_SECONDS + STOP_SECONDS + SLACK_SECONDS)
    [execution] = place.daemon.ended(run_id, seconds=GRACE_SECONDS + STOP_SECONDS + SLACK_SECONDS)
    took = time.monotonic() - began
    assert run["state_name"] == "Cancelled"
    assert took < GRACE_SECONDS + STOP_SECONDS + SLACK_SECONDS, "both graces count from the wish"
    assert execution["phase"] == "FINALIZED"
    assert execution["end_cause"] == "cancel"
    if name == "deaf":
        assert took >= GRACE_SECONDS, "a client that could still end it cleanly has all of its time"
        assert execution["exit_code"] == 137
    assert place.api.states(run_id)[-2:] == ["Cancelling", "Cancelled"]


def test_run_whose_image_is_being_pulled(place: Place, ticks: str, slow: SlowServer) -> None:
    run_id = place.submit(ticks, job_variables={"image": f"{slow.address}/slow/image:1"})
    deadline = time.monotonic() + 30
    while not any("slow" in path for path in slow.asked):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert place.api.run(run_id)["state_name"] == "Pending"
    began = time.monotonic()
    place.cancel(run_id)
    place.api.wait(run_id, types={"CANCELLED"}, seconds=10)
    assert time.monotonic() - began < 5
    [execution] = place.daemon.ended(run_id)
    assert execution["created_at"] is None, "there was no container"


def test_run_whose_packages_are_being_installed(place: Place, ticks: str) -> None:
    with SlowServer(place.daemon.gateway).serving() as index:
        run_id = place.submit(ticks, job_variables={"pip_packages": [f"thing @ http://{index.address}/slow-1.0.zip"]})
        deadline = time.monotonic() + 60
        while not index.asked:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        place.cancel(run_id)
        run = place.api.wait(run_id, types={"CANCELLED"}, seconds=GRACE_SECONDS + STOP_SECONDS + SLACK_SECONDS)
        assert run["state_name"] == "Cancelled"
        place.daemon.ended(run_id)


def test_scheduled_run_is_cancelled_at_once(place: Place, ticks: str) -> None:
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    run_id = place.submit(ticks, state={"type": "SCHEDULED", "state_details": {"scheduled_time": later}})
    said = place.user.prefect("flow-run", "cancel", run_id)
    assert "successfully scheduled for cancellation" in said.text
    run = place.api.run(run_id)
    assert (run["state_type"], run["state_name"]) == ("CANCELLED", "Cancelled")
    assert place.daemon.executions(run_id) == []
    refused = place.user.prefect("flow-run", "cancel", run_id, code=1)
    assert "terminal state" in refused.text
