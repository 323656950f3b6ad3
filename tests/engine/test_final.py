"""An end that we gave a run is the last word, unless it is started anew or forced."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from managedd.model.executions import EndCause, Phase
from managedd.model.states import StateType
from managedd.store import executions

if TYPE_CHECKING:
    from tests.engine.world import World

pytestmark = pytest.mark.anyio

COMPLETED, FAILED, CRASHED, CANCELLED = StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED
RUNNING, PENDING, PAUSED, SCHEDULED = StateType.RUNNING, StateType.PENDING, StateType.PAUSED, StateType.SCHEDULED


async def ended(world: World, cause: EndCause | None, type_: StateType, *, settled: bool) -> str:
    """A run that ended; by its execution's end, or by a wish to stop that is under way."""
    deployment = await world.deployment()
    execution = await world.claimed(deployment_id=deployment)
    await world.propose(execution.flow_run_id, RUNNING)

    def body(tx) -> None:  # type: ignore[no-untyped-def]
        if settled:
            executions.advance(
                tx, execution.id, (Phase.CLAIMED,), Phase.EXITED, {"end_cause": cause, "end_message": "why"}
            )
        elif cause is not None:
            executions.request_stop(tx, execution.id, cause)

    await world.write(body)
    await world.propose(execution.flow_run_id, type_, force=True, message="the end")
    return execution.flow_run_id


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize(
    ("cause", "type_"), [(EndCause.TIME, CRASHED), (EndCause.MEMORY, CRASHED), (EndCause.CANCEL, CANCELLED)]
)
@pytest.mark.parametrize(
    ("proposed", "answer"),
    [(COMPLETED, "REJECT"), (FAILED, "REJECT"), (CRASHED, "REJECT"), (CANCELLED, "REJECT"),
     (RUNNING, "ABORT"), (PENDING, "ABORT"), (PAUSED, "ABORT"), (StateType.CANCELLING, "ABORT")],
)  # fmt: skip
async def test_what_we_ended_stays_ended(
    world: World, cause: EndCause, type_: StateType, settled: bool, proposed: StateType, answer: str
) -> None:
    run_id = await ended(world, cause, type_, settled=settled)
    outcome = await world.propose(run_id, proposed, message="on its way out")
    assert (outcome.status.value, outcome.created) == (answer, False)
    assert outcome.state is not None and outcome.state["type"] == type_.value
    assert ("why" if settled else cause.value) in outcome.details["reason"]
    state = await world.state(run_id)
    assert (state.type, state.message) == (type_, "the end")


async def test_a_new_start_or_force_leads_out_of_it(world: World) -> None:
    for force, type_ in ((False, SCHEDULED), (True, COMPLETED)):
        run_id = await ended(world, EndCause.TIME, CRASHED, settled=True)
        assert (await world.propose(run_id, type_, force=force)).created
        assert (await world.state(run_id)).type is type_
        await world.write(lambda tx: tx.execute("DELETE FROM deployments"))


@pytest.mark.parametrize("cause", [None, EndCause.COMPLETED])
async def test_prefects_own_rules_hold_for_what_ended_by_itself(world: World, cause: EndCause | None) -> None:
    run_id = await ended(world, cause, FAILED, settled=cause is not None)
    assert (await world.propose(run_id, COMPLETED)).created
    assert (await world.propose(run_id, CRASHED)).status.value == "ABORT"
