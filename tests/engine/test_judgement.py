"""When a run has to stop: the pure judgement."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from managedd.engine.judgement import LEAVE_SECONDS, Countdown, Verdict, View, goes_before, judge
from managedd.model.executions import EndCause
from managedd.model.states import State, StateType
from tests.engine.test_reconciler import row
from tests.engine.world import SECOND_US, quick_settings
from tests.support.clock import ManualClock

AT = 100 * SECOND_US
SETTINGS = quick_settings(cancel_grace_seconds=30, pending_deadline_seconds=900)


def view(
    type_: StateType | None, *, retries: bool = False, details: dict[str, Any] | None = None, **changes: Any
) -> View:
    state = (
        None if type_ is None else State(type=type_, name=type_.value, id="s", timestamp_us=AT, details=details or {})
    )
    execution = replace(row("e"), claimed_at=AT - SECOND_US, **changes)
    return View(execution=execution, state=state, retries_in_process=retries, now_us=AT)


def nearest(seen: View, *, before_start: bool = False, **more: int) -> Verdict | None:
    found = judge(seen, SETTINGS, before_start=before_start, **more)
    return min(found, key=lambda verdict: verdict.at_us, default=None)


@pytest.mark.parametrize("before_start", [False, True])
@pytest.mark.parametrize(
    ("seen", "cause", "seconds"),
    [
        (view(None), EndCause.CANCEL, -100),
        (view(StateType.RUNNING, stop_requested_at=AT, stop_reason=EndCause.DRAIN), EndCause.DRAIN, -100),
        (view(StateType.CANCELLING), EndCause.CANCEL, 30),
        (view(StateType.CANCELLED), EndCause.CANCEL, 30),
        (view(StateType.COMPLETED), EndCause.COMPLETED, LEAVE_SECONDS),
        (view(StateType.FAILED), EndCause.COMPLETED, LEAVE_SECONDS),
        (view(StateType.PAUSED, details={"pause_reschedule": True}), EndCause.COMPLETED, LEAVE_SECONDS),
        (view(StateType.SCHEDULED), EndCause.COMPLETED, LEAVE_SECONDS),
        # Whichever comes first; its time is then not why it has ended.
        (view(StateType.COMPLETED, started_at=AT, time_limit_seconds=5), EndCause.COMPLETED, 5),
        (view(StateType.SCHEDULED, started_at=AT, time_limit_seconds=5), EndCause.COMPLETED, 5),
    ],
)
def test_what_has_to_go(seen: View, cause: EndCause, seconds: float, before_start: bool) -> None:
    verdict = nearest(seen, before_start=before_start)
    assert verdict is not None
    assert verdict.cause is cause
    # Before the start nobody has to be given time to leave.
    assert verdict.at_us == (AT + seconds * SECOND_US if not before_start or seconds < 0 else AT)


@pytest.mark.parametrize(
    "seen",
    [
        view(StateType.RUNNING),
        view(StateType.PAUSED, details={"pause_reschedule": False}),
        view(StateType.SCHEDULED, retries=True),
    ],
)
def test_what_may_go_on(seen: View) -> None:
    assert judge(seen, SETTINGS, before_start=False) == []
    limited = replace(seen, execution=replace(seen.execution, started_at=AT + SECOND_US, time_limit_seconds=60))
    verdict = nearest(limited)
    assert verdict is not None and (verdict.cause, verdict.at_us) == (EndCause.TIME, AT + 61 * SECOND_US)


@pytest.mark.parametrize("ran_seconds", [0, 11, 61])
def test_time_that_was_taken_goes_before_the_wall_clock(ran_seconds: int) -> None:
    seen = view(StateType.RUNNING, started_at=AT - 10_000 * SECOND_US, time_limit_seconds=60)
    verdict = nearest(seen, ran_us=ran_seconds * SECOND_US)
    assert verdict == Verdict(cause=EndCause.TIME, at_us=AT + (60 - ran_seconds) * SECOND_US)


ITS_TIME = {EndCause.TIME, EndCause.QUOTA, EndCause.PENDING_DEADLINE}
LIMITS = {*ITS_TIME, EndCause.DISK, EndCause.PIDS}


@pytest.mark.parametrize(
    ("seen", "spared"),
    [
        (view(None), set(EndCause)),
        (view(StateType.COMPLETED), set(EndCause)),
        (view(StateType.CANCELLED), set(EndCause)),
        (view(StateType.CANCELLING), LIMITS),
        (view(StateType.PAUSED, details={"pause_reschedule": True}), ITS_TIME),
        (view(StateType.SCHEDULED), ITS_TIME),
        (view(StateType.SCHEDULED, retries=True), {EndCause.PENDING_DEADLINE}),
        (view(StateType.PAUSED), {EndCause.PENDING_DEADLINE}),
        (view(StateType.RUNNING), {EndCause.PENDING_DEADLINE}),
        (view(StateType.PENDING), set()),
    ],
)
def test_what_goes_before_a_limit(seen: View, spared: set[EndCause]) -> None:
    assert {cause for cause in EndCause if goes_before(seen, cause)} == spared


def test_having_said_cancelled_begins_no_second_grace() -> None:
    asked_us = AT - 20 * SECOND_US
    seen = replace(view(StateType.CANCELLED), cancelling_since_us=asked_us)
    assert nearest(seen) == nearest(
        replace(seen, state=replace(seen.state or pytest.fail(), type=StateType.CANCELLING, timestamp_us=asked_us))
    )
    assert nearest(seen) == Verdict(cause=EndCause.CANCEL, at_us=asked_us + 30 * SECOND_US)


@pytest.mark.parametrize("step", ["claimed_at", "created_at", "started_at", "progress"])
def test_the_pending_deadline_counts_from_the_last_progress(step: str) -> None:
    last = AT + 7 * SECOND_US
    seen = view(StateType.PENDING)
    if step != "progress":
        seen = replace(seen, execution=replace(seen.execution, **{step: last}))
    verdict = nearest(seen, before_start=True, progress_us=last if step == "progress" else 0)
    assert verdict is not None and (verdict.cause, verdict.at_us) == (EndCause.PENDING_DEADLINE, last + 900 * SECOND_US)


@pytest.mark.parametrize("set_by_seconds", [-7200, 3600, 86_400])
def test_a_wall_clock_that_is_set_moves_no_limit(set_by_seconds: int) -> None:
    """What had passed when it was first asked counts, and from then on only time that really passes."""
    clock = ManualClock()
    limit = Verdict(cause=EndCause.TIME, at_us=clock.now_us() + 60 * SECOND_US)
    countdown = Countdown(clock)
    assert countdown.nearest([limit], clock.now_us()) == (EndCause.TIME, 60)
    clock.advance(20)
    clock.set_wall(set_by_seconds)
    assert countdown.nearest([limit], clock.now_us()) == (EndCause.TIME, 40)
    # What came up after the jump is on the new wall clock, and is not confused with what came before.
    leave = Verdict(cause=EndCause.COMPLETED, at_us=clock.now_us() + 10 * SECOND_US)
    assert countdown.nearest([limit, leave], clock.now_us()) == (EndCause.COMPLETED, 10)
    clock.advance(40)
    assert countdown.nearest([limit], clock.now_us()) == (EndCause.TIME, 0)
    assert countdown.nearest([], clock.now_us()) is None
