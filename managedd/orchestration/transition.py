"""Proposing states: load the facts, let the rules decide, write what they decided. All in the caller's transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from managedd import ids
from managedd.bus import Topic
from managedd.model.flow_runs import FlowRunFacts, ProposedState, RunFacts, TaskRunFacts
from managedd.model.states import TERMINAL, State, StateType
from managedd.orchestration import events, rules
from managedd.orchestration.columns import run_columns, task_run_columns
from managedd.orchestration.verdicts import Decision, Effect, Status
from managedd.store import executions, flow_runs, queue, rows, task_run_facts
from managedd.store.filtering import to_param
from managedd.store.resources import FLOW_RUN, FLOW_RUN_STATE, TASK_RUN, TASK_RUN_STATE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from managedd.store.database import Tx
    from managedd.store.rows import Wire
    from managedd.store.tables import Table
    from managedd.wire.states import StateCreate


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """What a request says of its sender; our own proposals have none."""

    api_version: tuple[int, ...] | None = None
    version: str | None = None


OURSELVES = Client()
"""Known by being this very object: a request may say as little of its sender."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The answer to a proposal."""

    status: Status
    details: Mapping[str, Any]
    state: Wire | None
    """The state that the run is in now."""
    created: bool
    """Whether a state was written (HTTP 201, else 200)."""

    def wire(self) -> Wire:
        """Prefect's OrchestrationResult."""
        return {"state": self.state, "status": self.status.value, "details": dict(self.details)}


def to_proposed(state: StateCreate) -> ProposedState:
    """A client's state as the rules see it; details that say nothing are left out."""
    return ProposedState(
        type=state.type,
        name=state.name or "",
        message=state.message,
        data=state.data,
        details=state.state_details.model_dump(mode="json", exclude_defaults=True, exclude_none=True),
    )


def propose(
    tx: Tx,
    run_id: str,
    proposed: ProposedState,
    *,
    force: bool = False,
    client: Client = OURSELVES,
    about: Mapping[str, Any] | None = None,
) -> Outcome:
    """The flow run is in the state that the rules allow. Raises ManagedError(NOT_FOUND).

    `about` is what programs find in the state's event beside the state, when the proposal is accepted.
    """
    facts, _ = flow_runs.facts(tx, run_id, api_version=client.api_version, client_version=client.version)
    decision = None if force else _final(tx, facts, proposed)
    if client is not OURSELVES:
        decision = decision or _unheld(tx, facts, proposed)
    return _settle(tx, facts, decision or rules.decide(facts, proposed, force=force), about)


def _final(tx: Tx, facts: FlowRunFacts, proposed: ProposedState) -> Decision | None:
    """The refusal of whoever speaks for a process that we have ended: the end that we gave its run is the last word.

    Prefect's rules let one terminal state follow another, and a crashed run run again. A process that is told to go may well say both on
    its way out. Only a new start (SCHEDULED), or force, leads out of such an end.
    """
    if facts.current is None or not facts.current.is_terminal or proposed.type is StateType.SCHEDULED:
        return None
    ended = executions.ended_by_us(tx, facts.run_id)
    if ended is None:
        return None
    # Terminal states are rejected, so that the client takes the run's real end for its own; whoever wants to go on must stop.
    status = Status.REJECT if proposed.type in TERMINAL else Status.ABORT
    kind = "reject_details" if status is Status.REJECT else "abort_details"
    reason = f"This run has ended as {facts.current.type.value}: {ended}"
    return Decision(status=status, state=None, details={"type": kind, "reason": reason})


def _unheld(tx: Tx, facts: FlowRunFacts, proposed: ProposedState) -> Decision | None:
    """The refusal of whoever would have a managed run be under way while nothing runs for it, by force too.

    Only the dispatcher makes such runs Pending, and only the process in their container makes them Running: the slot of any other would
    never be given back.
    """
    if proposed.type not in {StateType.PENDING, StateType.RUNNING} or facts.work_queue_id is None:
        return None
    if not queue.is_unheld(tx, facts.run_id):
        return None
    reason = (
        f"This run belongs to a managed work pool and has no container, so it cannot become {proposed.type.value}: "
        "the server starts it itself. Propose SCHEDULED."
    )
    return Decision(status=Status.ABORT, state=None, details={"type": "abort_details", "reason": reason})


def propose_late(tx: Tx, run_id: str) -> Outcome:
    """The overdue flow run is Late, unless the rules say otherwise. Raises ManagedError(NOT_FOUND)."""
    facts, _ = flow_runs.facts(tx, run_id, api_version=None, client_version=None)
    return _settle(tx, facts, rules.decide_late(facts))


def create_run(
    tx: Tx, values: Mapping[str, Any], state: ProposedState | None, *, client: Client = OURSELVES
) -> tuple[str, bool]:
    """The flow run exists: its id, and whether it is new. One with the same flow and `idempotency_key` is taken instead."""
    key = values.get("idempotency_key")
    if key is not None and (found := flow_runs.by_idempotency_key(tx, str(values["flow_id"]), key)) is not None:
        return found, False
    row = rows.new_row(tx, FLOW_RUN, values)
    if state is None:
        rows.put(tx, FLOW_RUN, row)
    else:
        _create_in(tx, row, state, client)
    tx.publish(Topic.RUNS)
    return row["id"], True


def _create_in(tx: Tx, row: dict[str, Any], proposed: ProposedState, client: Client) -> None:
    """The run of `row` exists in the state that the rules make of the proposed one: one row, written once."""
    facts = flow_runs.facts_of_new(tx, row, api_version=client.api_version, client_version=client.version)
    decision = rules.initial(facts, proposed)
    state = _new_state(tx, facts, decision)
    if state is not None:
        columns = run_columns(facts, state, decision)
        patch = columns.pop("empirical_policy", None)
        row |= {name: to_param(value) for name, value in columns.items()}
        if patch is not None:
            row["empirical_policy"] = flow_runs.patched(row.get("empirical_policy", "{}"), patch)
    rows.put(tx, FLOW_RUN, row)
    if state is not None:
        flow_runs.add_state(tx, FLOW_RUN.name, facts.run_id, state)
        _follow(tx, facts, state, decision)


def propose_task(tx: Tx, task_run_id: str, proposed: ProposedState, *, force: bool = False) -> Outcome:
    """The task run is in the state that the rules allow. Raises ManagedError(NOT_FOUND)."""
    facts, _ = task_run_facts.facts(tx, task_run_id)
    return _settle_task(tx, facts, rules.decide_task(facts, proposed, force=force))


def create_task_run(tx: Tx, values: Mapping[str, Any], state: ProposedState | None) -> tuple[str, bool]:
    """The task run exists: its id, and whether it is new. One of the same flow run, task key and dynamic key is taken instead."""
    if values.get("flow_run_id") is not None:
        same = {name: values[name] for name in ("flow_run_id", "task_key", "dynamic_key")}
        if (found := rows.record(tx, TASK_RUN, **same)) is not None:
            return found["id"], False
    task_run_id = rows.insert(tx, TASK_RUN, values)
    if state is not None:
        facts, _ = task_run_facts.facts(tx, task_run_id)
        _settle_task(tx, facts, rules.initial_task(facts, state))
    return task_run_id, True


def _settle(tx: Tx, facts: FlowRunFacts, decision: Decision, about: Mapping[str, Any] | None = None) -> Outcome:
    state = _new_state(tx, facts, decision)
    if state is not None:
        flow_runs.write_state(tx, FLOW_RUN.name, facts.run_id, state, run_columns(facts, state, decision))
        _follow(tx, facts, state, decision, about)
    return _outcome(tx, FLOW_RUN_STATE, facts, decision, state)


def _follow(
    tx: Tx, facts: FlowRunFacts, state: State, decision: Decision, about: Mapping[str, Any] | None = None
) -> None:
    """What a flow run's new state brings with it is done too."""
    if facts.has_turn and state.type not in {StateType.PENDING, StateType.RUNNING}:
        tx.publish(Topic.QUEUE)
    if facts.parent_task_run_id is not None:
        _mirror(tx, facts, state)
    if Effect.EMIT_EVENT in decision.effects:
        told = about if decision.status is Status.ACCEPT else None
        events.emit_state_event(tx, facts.run_id, state, facts.current, told)
    if Effect.FREE_SLOT in decision.effects:
        tx.publish(Topic.SLOTS)


def _settle_task(tx: Tx, facts: TaskRunFacts, decision: Decision) -> Outcome:
    state = _new_state(tx, facts, decision)
    if state is not None:
        flow_runs.write_state(tx, TASK_RUN.name, facts.run_id, state, task_run_columns(facts, state, decision))
    return _outcome(tx, TASK_RUN_STATE, facts, decision, state)


def _new_state(tx: Tx, facts: RunFacts, decision: Decision) -> State | None:
    if decision.state is None:
        return None
    # No two states of a run share a moment: clients order them by it.
    after = 0 if facts.current is None else facts.current.timestamp_us + 1
    chosen = decision.state
    return State(
        id=ids.new_id(),
        type=chosen.type,
        name=chosen.name,
        timestamp_us=max(tx.now, after),
        message=chosen.message,
        data=chosen.data,
        details=chosen.details,
    )


def _mirror(tx: Tx, facts: FlowRunFacts, state: State) -> None:
    """The task run that stands for a subflow in its parent has a copy of the subflow's state."""
    if rows.record(tx, TASK_RUN, id=facts.parent_task_run_id) is None:
        return
    parent, _ = task_run_facts.facts(tx, str(facts.parent_task_run_id))
    details = {**state.details, "task_run_id": parent.run_id, "child_flow_run_id": facts.run_id}
    copy = State(
        id=ids.new_id(),
        type=state.type,
        name=state.name,
        timestamp_us=state.timestamp_us,
        message=state.message,
        data=state.data,
        details=details,
    )
    flow_runs.write_state(tx, TASK_RUN.name, parent.run_id, copy, task_run_columns(parent, copy))


def _outcome(tx: Tx, table: Table, facts: RunFacts, decision: Decision, state: State | None) -> Outcome:
    if state is not None:
        now_in: Wire | None = flow_runs.state_wire(state)
    else:
        now_in = None if facts.current is None else rows.by(tx, table, id=facts.current.id)
    return Outcome(status=decision.status, details=decision.details, state=now_in, created=state is not None)
