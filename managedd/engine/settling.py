"""Settling: one transaction in which an execution gets its end and its evidence, and its run the state that goes with them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from managedd import failpoints
from managedd.engine.evidence import Ending, cause_of_exit, ending, exit_detail
from managedd.engine.judgement import SECOND_US, View, goes_before
from managedd.engine.offspring import end_below
from managedd.model.amounts import human_bytes
from managedd.model.executions import ENDED, LIVE, EndCause, EndLine, Execution, Phase
from managedd.model.states import StateType
from managedd.observe import get_log
from managedd.orchestration import events
from managedd.orchestration.transition import propose
from managedd.orchestration.verdicts import Status
from managedd.store import execution_leases, executions, flow_runs, usage

if TYPE_CHECKING:
    from managedd.model.drivers import ExitStatus
    from managedd.model.metering import Watched
    from managedd.store.database import Tx

log = get_log("settling")

FACTS = "end"
"""Of an execution's evidence: what ended it, for programs."""
LINE = "line"
"""Of an execution's evidence: what the run's log has to say of the end."""
ERROR_LEVEL: Final = 40
WARNING_LEVEL: Final = 30
ASKED_TO_STOP = "it was asked to stop and was ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """How it came out; `line` is what the run's log shall say of it."""

    execution: Execution
    cause: EndCause | None
    line: EndLine | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """The wish to stop an execution is on record; `line` is what the run's log shall say of it."""

    line: EndLine | None


def look(tx: Tx, execution_id: str) -> View | None:
    """What the rows say now; None when there is no such execution."""
    execution = executions.get(tx, execution_id)
    if execution is None:
        return None
    run_id = execution.flow_run_id
    state = flow_runs.current(tx, run_id)
    cancelled = state is not None and state.type is StateType.CANCELLED
    return View(
        execution=execution,
        state=state,
        retries_in_process=flow_runs.retries_in_process(tx, run_id),
        now_us=tx.now,
        cancelling_since_us=flow_runs.cancelling_since(tx, run_id, execution.claimed_at) if cancelled else None,
    )


def settle(
    tx: Tx,
    execution_id: str,
    *,
    ended: Ending | None,
    status: ExitStatus | None,
    seen_peak_bytes: int | None,
    pending_deadline_seconds: float,
    watched: Watched | None = None,
) -> Settled | None:
    """The execution is EXITED, and its run has an end state; None when it is gone or had ended for good.

    `ended` is why it never ran, `status` how its container ended: one of them is given. `watched` is what was seen of its time.
    """
    view = look(tx, execution_id)
    if view is None or view.execution.phase in ENDED:
        return None
    execution = view.execution
    if execution.phase not in LIVE:
        # Written before, by a commit of which the answer was lost.
        return Settled(execution=execution, cause=execution.end_cause, line=end_line(tx, execution_id))
    changes: dict[str, Any] = {"exited_at": tx.now}
    if status is not None:
        peak_bytes = max(filter(None, (status.peak_memory_bytes, seen_peak_bytes)), default=None)
        changes |= _evidence(execution, status, peak_bytes)
        ran_us = None
        if execution.started_at is not None:
            ran_us = usage.ran_for_us(tx, execution, tx.now - execution.started_at, status, watched)
        ended = _ending_of(view, status, peak_bytes, ran_us, pending_deadline_seconds)
    assert ended is not None
    ended = _as_the_run_has_it(view, ended)
    changes |= {"end_cause": ended.cause, "end_message": execution.end_message or ended.message}
    # What was measured before its end is what ended it.
    before = executions.evidence(tx, execution.id)
    of_the_end = {FACTS: before.get(FACTS) or dict(ended.facts), LINE: before.get(LINE)}
    changes["evidence"] = {**changes.get("evidence", {}), **{name: of for name, of in of_the_end.items() if of}}
    advanced = executions.advance(tx, execution.id, (execution.phase,), Phase.EXITED, changes)
    assert advanced is not None
    if _tell(tx, view, ended) and ended.message is not None:
        _note_line(tx, execution.id, EndLine(level=ERROR_LEVEL, message=ended.message))
    elif status is not None and status.oom_killed and ended.cause is EndCause.COMPLETED:
        _note_line(tx, execution.id, EndLine(level=WARNING_LEVEL, message=_went_on(advanced)))
    # The process is gone, or never was; also where the run had an end of its own.
    end_below(tx.scoped(execution.workspace_id), execution.flow_run_id)
    execution_leases.release_all(tx.scoped(execution.workspace_id), execution.id, execution.flow_run_id)
    failpoints.reach("settle.uncommitted")
    return Settled(execution=advanced, cause=ended.cause, line=end_line(tx, execution.id))


def end_line(tx: Tx, execution_id: str) -> EndLine | None:
    """What the run's log has to say of the execution's end; None: nothing, or it has not ended."""
    noted = executions.evidence(tx, execution_id).get(LINE)
    return None if noted is None else EndLine(**noted)


def _note_line(tx: Tx, execution_id: str, line: EndLine) -> None:
    """The line is on record in the end's own transaction: whoever completes the log finds out whether it was written."""
    executions.note(tx, execution_id, {"evidence": {**executions.evidence(tx, execution_id), LINE: asdict(line)}})


def _went_on(execution: Execution) -> str:
    limit, peak = execution.memory_limit_bytes, execution.peak_memory_bytes
    told = f"the memory limit is {human_bytes(limit)}, the highest use seen was {human_bytes(peak)}"
    return f"A process of the run was killed for want of memory, and the run went on: {told}."


def close(tx: Tx, execution: Execution) -> Execution | None:
    """The EXITED execution has ended for good: LOST when its container vanished before its run had an end, else FINALIZED; None when it
    is not EXITED any more."""
    vanished = executions.evidence(tx, execution.id).get("gone") is True
    if vanished and execution.end_cause is not EndCause.COMPLETED:
        return executions.advance(tx, execution.id, (Phase.EXITED,), Phase.LOST)
    return executions.advance(tx, execution.id, (Phase.EXITED,), Phase.FINALIZED, {"finalized_at": tx.now})


def end_first(tx: Tx, ended: Ending, execution_id: str) -> Stopping | None:
    """The run has its end state and the wish to stop is on record, before any signal. None when the run's own end or its cancel goes before
    the cause, and nobody has wished for a stop before."""
    view = look(tx, execution_id)
    if ended.state is None or view is None:
        return None
    if goes_before(view, ended.cause):
        return None if view.execution.stop_requested_at is None else Stopping(line=None)
    ended = _as_the_run_has_it(view, ended)
    executions.request_stop(tx, execution_id, ended.cause)
    executions.note(tx, execution_id, {"end_message": ended.message, "evidence": {FACTS: dict(ended.facts)}})
    if not _tell(tx, view, ended):
        return Stopping(line=None)
    end_below(tx.scoped(view.execution.workspace_id), view.execution.flow_run_id)
    if ended.message is not None:
        _note_line(tx, execution_id, EndLine(level=ERROR_LEVEL, message=ended.message))
    return Stopping(line=end_line(tx, execution_id))


def _tell(tx: Tx, view: View, ended: Ending) -> bool:
    """The run has the state of the ending, unless it has an end already: a crash that its client could not explain is explained."""
    execution = view.execution
    if ended.state is None or view.state is None:
        return False
    if view.state.is_terminal:
        if ended.cause is not EndCause.MEMORY or execution.stop_requested_at is not None:
            return False
        # Not one more state, which would set off once more what crashes set off.
        message = " ".join(filter(None, (ended.message, view.state.message)))
        flow_runs.explain(tx, view.state.id, message)
        events.emit_explained(
            tx.scoped(execution.workspace_id), execution.flow_run_id, view.state, message, ended.facts
        )
        return True
    outcome = propose(tx.scoped(execution.workspace_id), execution.flow_run_id, ended.state, about=ended.facts)
    if outcome.status is not Status.ACCEPT:
        log.error("execution.end_refused", execution_id=execution.id, cause=ended.cause.value, **outcome.details)
    return outcome.status is Status.ACCEPT


def _as_the_run_has_it(view: View, ended: Ending) -> Ending:
    """A run that is gone or being cancelled ends as cancelled, whatever else befell its container."""
    state = view.state
    unwanted = state is None or state.type is StateType.CANCELLING
    if unwanted and ended.cause is not EndCause.CANCEL:
        return ending(EndCause.CANCEL, view.execution, detail=ASKED_TO_STOP)
    return ended


def _ending_of(
    view: View, status: ExitStatus, peak_bytes: int | None, ran_us: int | None, pending_deadline_seconds: float
) -> Ending:
    execution, cause = view.execution, cause_of_exit(view, status, ran_us)
    execution = replace(execution, installed_at=execution.installed_at or status.installed_at_us)
    return ending(
        cause,
        execution,
        detail=ASKED_TO_STOP if cause is EndCause.CANCEL else exit_detail(cause, status),
        elapsed_seconds=None if ran_us is None else ran_us / SECOND_US,
        exit_code=status.exit_code,
        peak_memory_bytes=peak_bytes,
        pending_deadline_seconds=pending_deadline_seconds,
        state=view.state,
    )


def _evidence(execution: Execution, status: ExitStatus, peak_bytes: int | None) -> dict[str, Any]:
    changes: dict[str, Any] = {
        "exit_code": status.exit_code,
        "oom_killed": status.oom_killed,
        "peak_memory_bytes": peak_bytes,
        "evidence": {
            "error": status.error,
            "gone": status.gone,
            "host_restarted": status.host_restarted,
            "install_failed": status.install_failed,
            "out_of_time": status.out_of_time,
            "unsupported": list(status.unsupported),
            # The engine's own clock, which may be another host's: the columns are all of ours.
            "started_at_us": status.started_at_us,
            "finished_at_us": status.finished_at_us,
        },
    }
    if status.installed_at_us is not None and execution.installed_at is None:
        changes["installed_at"] = status.installed_at_us
    return changes
