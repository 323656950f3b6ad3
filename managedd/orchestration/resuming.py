"""Resuming a paused flow run, with the input that it waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from managedd.errors import ManagedError, invalid
from managedd.model.states import State, StateType
from managedd.orchestration import rules
from managedd.orchestration.parameters import HydrationContext, hydrate
from managedd.orchestration.schemas import first_error
from managedd.orchestration.transition import Client, Outcome, propose
from managedd.orchestration.verdicts import Status
from managedd.store import flow_runs, rows
from managedd.store.resources import FLOW_RUN_INPUT, FLOW_RUN_STATE
from managedd.store.variable_values import VariableValues

if TYPE_CHECKING:
    from managedd.store.database import Tx


def resume(tx: Tx, run_id: str, run_input: dict[str, Any] | None, *, client: Client) -> Outcome:
    """The paused run goes on: a suspended one is scheduled for now, a waiting process is RUNNING again.

    When it waits for input, `run_input` must fit the schema that the flow stored, and is stored as the response. Raises
    ManagedError(NOT_FOUND).
    """
    facts, _ = flow_runs.facts(tx, run_id, api_version=client.api_version, client_version=client.version)
    current = facts.current
    if current is None or current.type is not StateType.PAUSED:
        reason = "Cannot resume a flow run that is not paused."
        return Outcome(
            status=Status.ABORT, details={"type": "abort_details", "reason": reason}, state=None, created=False
        )
    keyset = current.details.get("run_input_keyset")
    given: dict[str, Any] = {}
    if keyset:
        try:
            given = _checked_input(tx, run_id, keyset, run_input or {})
        except ManagedError as error:
            return _rejected(tx, current, error.message)
    outcome = propose(tx, run_id, rules.resume_state(current, tx.now), client=client)
    if keyset and given and outcome.status is Status.ACCEPT:
        value = orjson.dumps(given).decode()
        rows.insert(tx, FLOW_RUN_INPUT, {"flow_run_id": run_id, "key": keyset["response"], "value": value})
    return outcome


def _checked_input(tx: Tx, run_id: str, keyset: dict[str, str], run_input: dict[str, Any]) -> dict[str, Any]:
    given = hydrate(run_input, HydrationContext(variables=VariableValues(tx)), what="run input")
    stored = rows.record(tx, FLOW_RUN_INPUT, flow_run_id=run_id, key=keyset["schema"])
    if stored is None:
        raise invalid("Run input schema not found.")
    try:
        schema = orjson.loads(stored["value"])
    except orjson.JSONDecodeError:
        raise invalid("Run input schema is not valid JSON.") from None
    failure = first_error(given, schema)
    if failure is not None:
        raise invalid(f"Reason: {failure}")
    return given


def _rejected(tx: Tx, current: State, reason: str) -> Outcome:
    return Outcome(
        status=Status.REJECT,
        details={"type": "reject_details", "reason": reason},
        state=rows.by(tx, FLOW_RUN_STATE, id=current.id),
        created=False,
    )
