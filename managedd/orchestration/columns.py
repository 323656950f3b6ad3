"""What a new state changes in its run's own row.

A run repeats a good part of its state and history in columns, so that lists and filters need no join. Times and durations are integer
microseconds. Only what changes is returned: the keys are columns, `empirical_policy` is a patch to merge into the stored policy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from managedd.model.flow_runs import moment_us
from managedd.model.states import State, StateType

if TYPE_CHECKING:
    from managedd.model.flow_runs import FlowRunFacts, RunFacts, TaskRunFacts
    from managedd.orchestration.verdicts import Decision


def run_columns(facts: FlowRunFacts, new_state: State, decision: Decision | None = None) -> dict[str, Any]:
    """The changed columns of a flow run that enters `new_state`.

    `decision` is what allowed the state; its `policy_changes` are part of `empirical_policy`.
    """
    columns = _common_columns(facts, new_state)
    patch = {} if decision is None else dict(decision.policy_changes)
    # A reset ("resuming" is False) came before this transition, the mark of a resumed run (True) is for the one after it.
    resuming = facts.resuming and patch.get("resuming") is not False
    running = new_state.type is StateType.RUNNING
    if running and not (resuming and facts.knows_pauses):
        columns["run_count"] = facts.run_count + 1
    if resuming and facts.knows_pauses and (running or new_state.is_terminal):
        patch.setdefault("resuming", False)
    if patch:
        columns["empirical_policy"] = patch
    return columns


def task_run_columns(facts: TaskRunFacts, new_state: State, decision: Decision | None = None) -> dict[str, Any]:
    """The changed columns of a task run that enters `new_state`, by what `decision` allowed."""
    columns = _common_columns(facts, new_state)
    resets = decision is not None and decision.resets_run_count
    run_count = 0 if resets else facts.run_count
    if new_state.type is StateType.RUNNING:
        run_count += 1
    if run_count != facts.run_count:
        columns["run_count"] = run_count
    if decision is not None and decision.flow_run_run_count is not None:
        columns["flow_run_run_count"] = decision.flow_run_run_count
    return columns


def _common_columns(facts: RunFacts, new_state: State) -> dict[str, Any]:
    current, now_us = facts.current, new_state.timestamp_us
    running = new_state.type is StateType.RUNNING
    scheduled_us = moment_us(new_state.details.get("scheduled_time")) if new_state.type is StateType.SCHEDULED else None
    columns: dict[str, Any] = {
        "state_id": new_state.id,
        "state_type": new_state.type.value,
        "state_name": new_state.name,
        "state_timestamp": now_us,
    }
    end_time_us = facts.end_time_us
    if current is not None and current.is_terminal and not new_state.is_terminal:
        columns["end_time"] = end_time_us = None
    ends = new_state.is_terminal and end_time_us is None
    if ends:
        columns["end_time"] = now_us
    # A run that fails before it ran has a start all the same: the moment it ended.
    if facts.start_time_us is None and (running or ends):
        columns["start_time"] = now_us
    if current is not None and current.type is StateType.RUNNING:
        # A state's time may be set back by its proposer; a run never ran for less than nothing.
        columns["total_run_time"] = facts.total_run_time_us + max(0, now_us - current.timestamp_us)
    if facts.expected_start_time_us is None:
        columns["expected_start_time"] = now_us if scheduled_us is None else scheduled_us
    if scheduled_us is not None:
        columns["next_scheduled_start_time"] = scheduled_us
    elif current is not None and current.type is StateType.SCHEDULED:
        columns["next_scheduled_start_time"] = None
    return columns
