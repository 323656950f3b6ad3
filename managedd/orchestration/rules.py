"""What a run may become: pure decisions from facts.

`decide` and `decide_task` answer any proposal for any run; they neither read nor write anything and never raise. Which rule says what is
in `flow_rules` and `task_rules`, one row each; what a written state changes in its run's row is in `columns`.
"""

from __future__ import annotations

from managedd.clock import iso
from managedd.model.flow_runs import (
    CollisionStrategy,
    FlowRunFacts,
    ProposedState,
    RunFacts,
    TagLimit,
    TaskRunFacts,
    moment_us,
)
from managedd.model.states import State, StateType
from managedd.orchestration.columns import run_columns, task_run_columns
from managedd.orchestration.flow_rules import (
    FLOW_RULES,
    INITIAL_FLOW_RULES,
    LATE_RULES,
    MINIMAL_FLOW_RULES,
    pause_timed_out,
)
from managedd.orchestration.task_rules import BACKGROUND_TASK_RULES, MINIMAL_TASK_RULES, TASK_RULES
from managedd.orchestration.verdicts import Amend, Decision, Effect, Refuse, Rule, Status, Verdict, hear

__all__ = [
    "BACKGROUND_TASK_RULES",
    "FLOW_RULES",
    "INITIAL_FLOW_RULES",
    "LATE_RULES",
    "MINIMAL_FLOW_RULES",
    "MINIMAL_TASK_RULES",
    "TASK_RULES",
    "Amend",
    "CollisionStrategy",
    "Decision",
    "Effect",
    "FlowRunFacts",
    "ProposedState",
    "Refuse",
    "Rule",
    "Status",
    "TagLimit",
    "TaskRunFacts",
    "Verdict",
    "decide",
    "decide_late",
    "decide_task",
    "initial",
    "initial_task",
    "pause_expired",
    "pause_expired_state",
    "resume_state",
    "run_columns",
    "task_run_columns",
]


def decide(facts: FlowRunFacts, proposed: ProposedState, *, force: bool = False) -> Decision:
    """What becomes of `proposed` for this flow run; `force` leaves only the minimal rules standing."""
    return _flow_decision(MINIMAL_FLOW_RULES if force else FLOW_RULES, facts, proposed)


def initial(facts: FlowRunFacts, proposed: ProposedState) -> Decision:
    """What becomes of the state that a flow run is created with; `facts.current` is None."""
    return _flow_decision(INITIAL_FLOW_RULES, facts, proposed)


def decide_late(facts: FlowRunFacts) -> Decision:
    """What becomes of a run that should have started: "Late", or CANCELLED where its deployment drops what finds no slot."""
    due_us = facts.next_scheduled_start_time_us
    details = {} if due_us is None else {"scheduled_time": iso(due_us)}
    return _flow_decision(LATE_RULES, facts, ProposedState(type=StateType.SCHEDULED, name="Late", details=details))


def decide_task(facts: TaskRunFacts, proposed: ProposedState, *, force: bool = False) -> Decision:
    """What becomes of `proposed` for this task run.

    A `deferred` proposal (a background task's) has rules of its own, which `force` does not lift: between task workers they are the lock.
    """
    if proposed.details.get("deferred"):
        rules = BACKGROUND_TASK_RULES
    else:
        rules = MINIMAL_TASK_RULES if force else TASK_RULES
    decision = hear(rules, facts, _complete(facts, proposed))
    return _stamped(decision, flow_run_id=facts.flow_run_id, task_run_id=facts.run_id)


def initial_task(facts: TaskRunFacts, proposed: ProposedState) -> Decision:
    """What becomes of the state that a task run is created with: a forced proposal."""
    return decide_task(facts, proposed, force=True)


def resume_state(current: State, now_us: int) -> ProposedState:
    """The state that ends a pause: a suspended run is scheduled for now, a paused process runs on. Propose it without force."""
    if current.details.get("pause_reschedule"):
        return ProposedState(type=StateType.SCHEDULED, name="Resuming", details={"scheduled_time": iso(now_us)})
    return ProposedState(type=StateType.RUNNING)


def pause_expired(current: State, now_us: int) -> bool:
    """Whether `current` is a pause that has lasted longer than it may."""
    timeout_us = moment_us(current.details.get("pause_timeout"))
    return current.type is StateType.PAUSED and timeout_us is not None and timeout_us < now_us


def pause_expired_state(current: State) -> ProposedState:
    """The state of a run whose pause has lasted longer than it may. Propose it with force."""
    return pause_timed_out(current.name)


def _flow_decision(rules: tuple[Rule[FlowRunFacts], ...], facts: FlowRunFacts, proposed: ProposedState) -> Decision:
    decision = hear(rules, facts, _complete(facts, proposed))
    # A subflow's states name the task run that stands for it in the parent.
    task_run_id = facts.parent_task_run_id
    return _stamped(decision, flow_run_id=facts.run_id, **({} if task_run_id is None else {"task_run_id": task_run_id}))


def _complete(facts: RunFacts, proposed: ProposedState) -> ProposedState:
    # What is scheduled for no particular time is scheduled for now.
    if proposed.type is not StateType.SCHEDULED or moment_us(proposed.details.get("scheduled_time")) is not None:
        return proposed
    return proposed.detailed(scheduled_time=iso(facts.now_us))


def _stamped(decision: Decision, **owner: str | None) -> Decision:
    return decision if decision.state is None else decision.with_state(decision.state.detailed(**owner))
