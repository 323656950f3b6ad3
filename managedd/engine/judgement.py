"""Whether a run may go on: pure, from what the rows say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from managedd.model.executions import EndCause, Execution
from managedd.model.states import State, StateType

if TYPE_CHECKING:
    from managedd.clock import Clock
    from managedd.config import RunsSection

SECOND_US: Final = 1_000_000
LEAVE_SECONDS: Final = 60.0
"""How long a process may stay after its run has an end of its own, or was suspended: hooks and clean-up of the flow run then."""

OF_ITS_TIME: Final = frozenset({EndCause.TIME, EndCause.QUOTA, EndCause.PENDING_DEADLINE})
"""Limits of the run's own time: who has nothing more to do does not go beyond them."""
OF_LIMITS: Final = OF_ITS_TIME | {EndCause.DISK, EndCause.PIDS}
"""Causes for which a process that could go on is stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What the rows say of an execution and its run."""

    execution: Execution
    state: State | None
    """None: the run was deleted."""
    retries_in_process: bool
    """A SCHEDULED run's process is waiting for its next try, rather than leaving for a run of its own."""
    now_us: int
    cancelling_since_us: int | None = None
    """When a run that is CANCELLED was asked to end, if it was asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A reason to stop, and from when on it holds (microseconds)."""

    cause: EndCause
    at_us: int


class Countdown:
    """Turns moments of the wall clock into waiting: how long each is away is asked once, and counted down on the monotonic clock.

    So a wall clock that is set, forward or back, ends no run before its time and lets none go on beyond it.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due: dict[Verdict, float] = {}

    def nearest(self, verdicts: list[Verdict], now_us: int) -> tuple[EndCause, float] | None:
        """What comes first of `verdicts`, and in how many seconds; none left, or fewer: now."""
        now = self._clock.monotonic()
        self._due = {
            verdict: self._due.get(verdict, now + (verdict.at_us - now_us) / SECOND_US) for verdict in verdicts
        }
        first = min(self._due.items(), key=lambda item: item[1], default=None)
        return None if first is None else (first[0].cause, first[1] - now)


def judge(
    view: View, settings: RunsSection, *, before_start: bool, progress_us: int = 0, ran_us: int | None = None
) -> list[Verdict]:
    """Why and when the execution has to stop, by what is known now; none: nothing of the kind is in sight.

    `progress_us` is when its image or its installation last made progress. `ran_us` is for how long it has run; None: nobody has taken its
    time yet, and the wall clock has to do. Before the start nobody has to be given time to leave.
    """
    execution, state = view.execution, view.state
    if state is None:
        return [Verdict(cause=EndCause.CANCEL, at_us=0)]
    if execution.stop_requested_at is not None:
        return [Verdict(cause=execution.stop_reason or EndCause.CANCEL, at_us=0)]

    def after(seconds: float) -> int:
        return state.timestamp_us + (0 if before_start else int(seconds * SECOND_US))

    if state.type in {StateType.CANCELLING, StateType.CANCELLED}:
        # One grace from the wish to the process's end: saying "Cancelled" in between does not begin another.
        at_us = after(settings.cancel_grace_seconds)
        if view.cancelling_since_us is not None:
            at_us -= max(0, state.timestamp_us - view.cancelling_since_us)
        return [Verdict(cause=EndCause.CANCEL, at_us=at_us)]
    limit_us = None
    if execution.started_at is not None and execution.time_limit_seconds is not None:
        started_us = execution.started_at if ran_us is None else view.now_us - ran_us
        limit_us = started_us + execution.time_limit_seconds * SECOND_US
    if ended_by_itself(view):
        # Its process is gone by its time limit, which is then not why the run has ended.
        at_us = after(LEAVE_SECONDS)
        return [Verdict(cause=EndCause.COMPLETED, at_us=at_us if limit_us is None else min(at_us, limit_us))]
    found: list[Verdict] = []
    if state.type is StateType.PENDING:
        since = max(
            execution.claimed_at, state.timestamp_us, execution.created_at or 0, execution.started_at or 0, progress_us
        )
        at_us = since + int(settings.pending_deadline_seconds * SECOND_US)
        found.append(Verdict(cause=EndCause.PENDING_DEADLINE, at_us=at_us))
    if limit_us is not None:
        found.append(Verdict(cause=EndCause.TIME, at_us=limit_us))
    return found


def goes_before(view: View, cause: EndCause) -> bool:
    """Whether the run's own end, or somebody's wish, goes before `cause`, which was found without knowing of it."""
    state = view.state
    if state is None or state.is_terminal:
        return True
    if state.type is StateType.CANCELLING:
        # No limit cuts its grace short.
        return cause in OF_LIMITS
    if ended_by_itself(view):
        return cause in OF_ITS_TIME
    return cause is EndCause.PENDING_DEADLINE and state.type is not StateType.PENDING


def ended_by_itself(view: View) -> bool:
    """Whether the process has nothing more to do: the run is terminal, suspended, or scheduled anew (resumed, retried) already."""
    state = view.state
    if state is None:
        return False
    if state.is_terminal:
        return True
    if state.type is StateType.PAUSED:
        return bool(state.details.get("pause_reschedule"))
    return state.type is StateType.SCHEDULED and not view.retries_in_process
