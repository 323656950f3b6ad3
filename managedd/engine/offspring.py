"""What ran in a run's process ends with it: subflows without a place of their own, and every task run of theirs and of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from managedd.engine.evidence import end_state
from managedd.model.executions import EndCause
from managedd.model.states import StateType
from managedd.orchestration.transition import propose, propose_task
from managedd.store import flow_runs, offspring

if TYPE_CHECKING:
    from managedd.model.flow_runs import ProposedState
    from managedd.model.states import State
    from managedd.store.database import Tx

STEP: Final = 200
"""So many children end in one transaction: nobody else waits long for the writer."""


def any_below(tx: Tx, run_id: str) -> bool:
    """Whether the run has ended and anything of its process is still said to go on."""
    state = flow_runs.current(tx, run_id)
    if state is None or not state.is_terminal:
        return False
    return bool(offspring.open_runs(tx, run_id, 1) or offspring.open_task_runs(tx, run_id, 1))


def end_below(tx: Tx, run_id: str) -> int:
    """At most a step of what went on in the process of a run that has ended is ended with it; how many.

    A run that is suspended or scheduled anew will go on with its children: the client runs those again that have no end, and would take
    an end of ours for theirs.
    """
    state = flow_runs.current(tx, run_id)
    if state is None or not state.is_terminal:
        return 0
    runs = offspring.open_runs(tx, run_id, STEP)
    for run in runs:
        propose(tx, run.id, _end(state, run), force=True)
    # After the flow runs: the task run that stands for a subflow has the subflow's end.
    tasks = offspring.open_task_runs(tx, run_id, STEP - len(runs)) if len(runs) < STEP else []
    for task in tasks:
        propose_task(tx, task.id, _end(state, task), force=True)
    return len(runs) + len(tasks)


def _end(parent: State, child: offspring.Child) -> ProposedState:
    if parent.type is StateType.CANCELLED:
        return end_state(EndCause.PARENT_CANCELLED)
    if child.state_type == StateType.CANCELLING.value:
        return end_state(EndCause.CANCEL, detail="the process that it ran in has ended")
    return end_state(EndCause.PARENT_ENDED, detail=parent.message or f"the parent flow run is {parent.name}")
