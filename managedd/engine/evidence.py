"""From evidence to cause to message: pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from managedd.engine.judgement import SECOND_US, ended_by_itself
from managedd.model.amounts import human_bytes, human_seconds
from managedd.model.executions import END_RULES, EndCause, Execution
from managedd.model.flow_runs import ProposedState
from managedd.model.states import StateType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from managedd.engine.judgement import View
    from managedd.model.drivers import ExitStatus
    from managedd.model.states import State

NEAR_LIMIT = 0.95
"""With this share of the memory limit used and a SIGKILL nobody sent, memory was the cause (cgroup v2 may lose the flag)."""
SIGKILL_CODE = 137
KILLED_CODES = frozenset({SIGKILL_CODE, 143})
"""Ended by a signal such as we send, whoever sent it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a limit was, and how far the run has come."""

    limit: float | None
    reached: float | None
    unit: str
    """`bytes`, `seconds`, `minutes` or `processes`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Why an execution ended, and the state that the run gets for it; no state: the run has its own."""

    cause: EndCause
    message: str | None = None
    state: ProposedState | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    """The same for programs: `cause`, `execution_id`, `attempt`, and as far as they are known `limit`, `reached`, `unit`, `while`
    (`installing`, `starting` or `running`) and `exit_code`."""


def ending(cause: EndCause, execution: Execution, *, detail: str = "", elapsed_seconds: float | None = None,
           pending_deadline_seconds: float | None = None, exit_code: int | None = None,
           peak_memory_bytes: int | None = None, measured: Measured | None = None, state: State | None = None) -> Ending:  # fmt: skip
    """The ending of `cause` with its message filled in; `state` is the run's, in which it befell it."""
    if cause is EndCause.COMPLETED:
        return Ending(cause=cause)
    doing = _doing(cause, execution, state)
    while_doing, do_less = _WHILE.get(doing or "running", _WHILE["running"])
    values = {
        "detail": detail,
        "while_doing": while_doing,
        "do_less": do_less,
        "memory_limit": human_bytes(execution.memory_limit_bytes),
        "peak_memory": human_bytes(peak_memory_bytes),
        "elapsed": human_seconds(elapsed_seconds),
        "time_limit": human_seconds(execution.time_limit_seconds),
        "image": execution.image or "",
        "pending_deadline": human_seconds(pending_deadline_seconds),
        "exit_code": "unknown" if exit_code is None else str(exit_code),
    }
    proposed = end_state(cause, **values)
    of_the_cause = {
        EndCause.MEMORY: Measured(limit=execution.memory_limit_bytes, reached=peak_memory_bytes, unit="bytes"),
        EndCause.TIME: Measured(limit=execution.time_limit_seconds, reached=elapsed_seconds, unit="seconds"),
        EndCause.PENDING_DEADLINE: Measured(limit=pending_deadline_seconds, reached=elapsed_seconds, unit="seconds"),
    }
    measured = measured or of_the_cause.get(cause)
    facts = {
        "cause": cause.value,
        "execution_id": execution.id,
        "attempt": execution.attempt,
        **({} if measured is None else {name: getattr(measured, name) for name in ("limit", "reached", "unit")}),
        "while": doing,
        "exit_code": exit_code,
    }
    known = {name: value for name, value in facts.items() if value is not None}
    return Ending(cause=cause, message=proposed.message, state=proposed, facts=known)


_WHILE: Final = {
    "installing": ("while installing packages", "install less: an image that has its packages needs no pip_packages"),
    "starting": ("before the flow began", "fetch and import less before its flow begins"),
    "running": ("in the flow", "do less"),
}
"""What the run was doing: how that is said, and what would have taken less time."""


def _doing(cause: EndCause, execution: Execution, state: State | None) -> str | None:
    """What the run was doing when it ended; None: its container was never started."""
    if execution.started_at is None:
        return None
    is_pending = state is not None and state.type is StateType.PENDING
    has_begun = state is not None and not is_pending and not state.is_terminal
    if cause is EndCause.PACKAGES or (execution.installed_at is None and not has_begun):
        return "installing"
    return "starting" if is_pending else "running"


def end_state(cause: EndCause, **evidence: str) -> ProposedState:
    """The state that the table gives for `cause`; its template has to find what it names in `evidence`."""
    rule = END_RULES[cause]
    return ProposedState(type=rule.type, name=rule.name, message=rule.template.format(**evidence))


def cause_of_exit(view: View, status: ExitStatus, ran_us: int | None = None) -> EndCause:
    """Why the container ended, which has run for `ran_us`. Exit code 0 is never taken as success: only the run's own state is."""
    execution, state = view.execution, view.state
    if state is None:
        return EndCause.CANCEL
    asked = execution.stop_requested_at
    if state.is_terminal and (asked is None or asked > state.timestamp_us):
        if state.type is StateType.CRASHED and asked is None and status.oom_killed:
            # The client in the run saw its child killed and could only guess why.
            return EndCause.MEMORY
        # It had its end before anybody asked it to stop: nothing relabels that.
        return EndCause.CANCEL if state.type is StateType.CANCELLED else EndCause.COMPLETED
    if state.type is StateType.CANCELLING:
        return EndCause.CANCEL
    if execution.stop_reason is not None:
        return execution.stop_reason
    # A process that waits for its next try and ends with 0 has given the run back, to be started anew (SIGTERM behavior "reschedule").
    if ended_by_itself(view) or (state.type is StateType.SCHEDULED and status.exit_code == 0):
        return EndCause.COMPLETED
    if status.host_restarted:
        return EndCause.HOST_RESTART
    if status.gone:
        return EndCause.LOST
    if status.out_of_time:
        return EndCause.TIME
    if _out_of_memory(execution, status):
        return EndCause.MEMORY
    if status.install_failed:
        return EndCause.PACKAGES
    # Its engine was away when its time was over, or nobody looked: whoever killed it afterwards is not the cause.
    return EndCause.TIME if _beyond_its_time(execution, status, ran_us) else EndCause.ENGINE_EXIT


def _beyond_its_time(execution: Execution, status: ExitStatus, ran_us: int | None) -> bool:
    limit = execution.time_limit_seconds
    if limit is None or ran_us is None:
        return False
    return status.exit_code in KILLED_CODES and ran_us >= limit * SECOND_US


def _out_of_memory(execution: Execution, status: ExitStatus) -> bool:
    if status.exit_code == 0:
        return False
    if status.oom_killed:
        return True
    limit, peak = execution.memory_limit_bytes, status.peak_memory_bytes
    return status.exit_code == SIGKILL_CODE and limit is not None and peak is not None and peak >= NEAR_LIMIT * limit


def exit_detail(cause: EndCause, status: ExitStatus) -> str:
    """What the message adds from the container's end."""
    if cause is EndCause.LOST:
        return status.error or "it was removed from outside, or its engine lost it"
    if cause is EndCause.PACKAGES:
        return status.error or "see the lines above in the run's log"
    if cause is EndCause.ENGINE_EXIT:
        if status.exit_code == SIGKILL_CODE:
            return ": something outside killed it (SIGKILL)"
        return f": {status.error}" if status.error else ""
    return status.error or ""
