"""Killed at every place between an effect and its record, started again: each run runs once, with every line, and nothing is left."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from managedd import failpoints

if TYPE_CHECKING:
    from tests.crash.place import Place

LINES = 20
# The third batch of lines: the first tells of the image and of the start.
TIMES = {"logs.uncommitted": 3, "logs.committed": 3}


@pytest.mark.crash
@pytest.mark.parametrize("name", sorted(failpoints.NAMES))
def test_killed_there_and_started_again(place: Place, name: str) -> None:
    place.daemon.stop()
    place.arm(f"{name}:{TIMES.get(name, 1)}")
    place.daemon.start()
    runs = place.submit(2, lines=LINES)
    place.wait_dead()
    place.check_torn()
    place.arm(None)
    place.daemon.start()
    place.wait_all(runs)
    place.check_whole(runs, lines=LINES)


@pytest.mark.crash
@pytest.mark.parametrize("name", ["settle.uncommitted", "settle.committed", "remove.done"])
def test_killed_around_a_runs_end_its_log_says_once_how_it_ended(place: Place, name: str) -> None:
    place.daemon.stop()
    place.arm(name)
    place.daemon.start()
    runs = place.submit(2, lines=LINES, breaks=True)
    place.wait_dead()
    place.check_torn()
    place.arm(None)
    place.daemon.start()
    place.wait_all(runs)
    for run_id in runs:
        state = place.api.run(run_id)["state"]
        assert state["type"] == "CRASHED" and "exit code 3" in state["message"]
        said = [line["message"] for line in place.api.logs(run_id)]
        assert said.count(state["message"]) == 1
        assert [text for text in said if text.startswith("line ")] == [f"line {number}" for number in range(LINES)]
    place.daemon.wait_no_containers(seconds=15)
    place.check_sound()


@pytest.mark.crash
def test_killed_again_and_again(place: Place) -> None:
    """The same run meets one crash after the other."""
    place.daemon.stop()
    runs: list[str] = []
    for name in (
        "claim.committed",
        "create.done",
        "created.committed",
        "start.done",
        "logs.uncommitted",
        "settle.uncommitted",
    ):
        place.arm(name)
        place.daemon.start(engine=False)
        runs = runs or place.submit(1, lines=LINES)
        place.wait_dead()
        place.check_torn()
    place.arm(None)
    place.daemon.start()
    place.wait_all(runs)
    place.check_whole(runs, lines=LINES)


def test_an_unknown_failpoint_is_told() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import managedd.failpoints"],
        env={**os.environ, failpoints.VARIABLE: "nowhere"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0 and "nowhere" in done.stderr


def test_an_unarmed_failpoint_does_nothing() -> None:
    for name in failpoints.NAMES:
        failpoints.reach(name)


def test_an_armed_one_kills_at_its_count() -> None:
    code = "from managedd import failpoints as f\nfor n in range(5): f.reach('exit.seen'); f.reach('start.done'); print(n, flush=True)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, failpoints.VARIABLE: "exit.seen:3"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.split()) == (-9, ["0", "1"])
