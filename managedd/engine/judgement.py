"""Whether a run may go on: pure, from what the rows say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from managedd.model.executions import EndCause, Execution
from managedd.model.states import State, StateType

if TYPE_CHECKING:
    from managedd.config import RunsSection

SECOND_US: Final = 1_000_000
LEAVE_SECONDS: Final = 300.0
"""How long a process may stay after its run has an end of its own, or was suspended: hooks and clean-up of the flow run then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What the rows say of an execution and its run."""

    execution: Execution
    state: State | None
    """None: the run was deleted."""
    retries_in_process: bool
    """A SCHEDULED run's process is waiting for its next try, rather than leaving for a run of its own."""
    now_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The nearest reason to stop, and when it holds (microseconds)."""

    cause: EndCause
    at_us: int


def judge(view: View, settings: RunsSection, *, before_start: bool, progress_us: int = 0) -> Verdict | None:
    """When the execution has to stop, by what is known now; None: nothing of the kind is in sight.

    `progress_us` is when its image last made progress. Before the start nobody has to be given time to leave.
    """
    execution, state = view.execution, view.state
    if state is None:
        return Verdict(cause=EndCause.CANCEL, at_us=0)
    if execution.stop_requested_at is not None:
        return Verdict(cause=execution.stop_reason or EndCause.CANCEL, at_us=0)

    def after(seconds: float) -> int:
        return state.timestamp_us + (0 if before_start else int(seconds * SECOND_US))

    if state.type in {StateType.CANCELLING, StateType.CANCELLED}:
        return Verdict(cause=EndCause.CANCEL, at_us=after(settings.cancel_grace_seconds))
    found: list[Verdict] = []
    if ended_by_itself(view):
        found.append(Verdict(cause=EndCause.COMPLETED, at_us=after(LEAVE_SECONDS)))
    if state.type is StateType.PENDING:
        since = max(
            execution.claimed_at, state.timestamp_us, execution.created_at or 0, execution.started_at or 0, progress_us
        )
        at_us = since + int(settings.pending_deadline_seconds * SECOND_US)
        found.append(Verdict(cause=EndCause.PENDING_DEADLINE, at_us=at_us))
    if execution.started_at is not None and execution.time_limit_seconds is not None:
        at_us = execution.started_at + execution.time_limit_seconds * SECOND_US
        found.append(Verdict(cause=EndCause.TIME, at_us=at_us))
    return min(found, key=lambda verdict: verdict.at_us, default=None)


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
