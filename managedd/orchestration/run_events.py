"""Which events a run may tell, by its own key: what happens to its own task runs and to whatever is no run, but no state of any flow run.

The client in a run tells of its task runs and of those of its subflows, of its heartbeat (`prefect.flow-run.heartbeat`) and of its pull
steps (`prefect.flow-run.pull-step.executed`); what else it emits is the user's own. A flow run's states are told by this server alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from managedd.orchestration.task_run_recorder import TASK_RUN_EVENTS, flow_run_of, object_id, task_run_of
from managedd.store import lineage

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from managedd.model.events import Event
    from managedd.store.database import Tx

_FLOW_RUN: Final = "prefect.flow-run."
_OURS: Final = "managedd."
_STATE_TYPE: Final = "prefect.state-type"


def own(tx: Tx, events: Sequence[Event], flow_run_id: str) -> list[Event]:
    """Those of `events` that the run may tell, in their order."""
    claims = [(event, *_claimed(event)) for event in events if not _is_told_by_the_server(event)]
    owners = lineage.owners_of(tx, {task for _, _, task in claims if task is not None})
    runs = {run for _, run, _ in claims} | set(owners.values())
    foreign = lineage.foreign(tx, {run for run in runs if run not in {None, flow_run_id}}, flow_run_id)
    return [event for event, run, task in claims if _may_tell(run, task, owners, foreign)]


def _may_tell(run: str | None, task: str | None, owners: Mapping[str, str | None], foreign: Container[str]) -> bool:
    owner = None if task is None else owners.get(task)
    if run in foreign or owner in foreign:
        return False
    # A task run of no flow run does not become a run's own because the run says so.
    return run is None or task not in owners or owner is not None


def _is_told_by_the_server(event: Event) -> bool:
    if event.event.startswith(_OURS):
        return True
    name = event.event.removeprefix(_FLOW_RUN)
    # States have names that begin with a capital; those that a user has named otherwise have the label.
    return name != event.event and (name[:1].isupper() or _STATE_TYPE in event.resource)


def _claimed(event: Event) -> tuple[str | None, str | None]:
    """The flow run and the task run that the event is about."""
    if event.event.startswith(_FLOW_RUN):
        return object_id(event.resource_id, _FLOW_RUN), None
    if event.event.startswith(TASK_RUN_EVENTS):
        return flow_run_of(event), task_run_of(event)
    return None, None
