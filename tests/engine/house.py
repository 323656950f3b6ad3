"""A store, its clock, and what the scheduler is tested on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from managedd import ids
from managedd.clock import iso
from managedd.config import SchedulerSection
from managedd.engine.scheduler import Scheduler
from managedd.model.flow_runs import ProposedState
from managedd.model.states import StateType
from managedd.orchestration import deployments as deploying
from managedd.orchestration.transition import create_run, propose
from managedd.store import rows
from managedd.store.resources import FLOW, FLOW_RUN
from managedd.wire.deployments import DeploymentCreate, DeploymentUpdate

if TYPE_CHECKING:
    from collections.abc import Callable

    from managedd.bus import Bus
    from managedd.store.database import Database, Tx
    from tests.support.clock import ManualClock


@dataclass
class House:
    """A store, its clock, and a scheduler over them."""

    db: Database
    bus: Bus
    clock: ManualClock
    workspace: str = ids.DEFAULT_WORKSPACE_ID

    def scheduler(self, **settings: Any) -> Scheduler:
        return Scheduler(self.db, self.bus, self.clock, SchedulerSection(**settings))

    async def write(self, fn: Callable[[Tx], Any]) -> Any:
        return await self.db.write(fn, workspace=self.workspace)

    async def deploy(self, name: str = "prod", *schedules: dict[str, Any], **more: Any) -> str:
        """The id of the deployment, saved as the API saves it."""

        def body(tx: Tx) -> str:
            flow = rows.by(tx, FLOW, name="etl")
            flow_id = flow["id"] if flow is not None else rows.insert(tx, FLOW, {"name": "etl"})
            sent = {"name": name, "flow_id": flow_id, "schedules": list(schedules), **more}
            return deploying.save(tx, deploying.draft(tx, DeploymentCreate.model_validate(sent)))[0]

        return str(await self.write(body))

    async def change(self, deployment_id: str, **sent: Any) -> None:
        def body(tx: Tx) -> None:
            deploying.change(tx, deploying.draft_change(tx, deployment_id, DeploymentUpdate.model_validate(sent)))

        await self.write(body)

    async def runs(self, deployment_id: str | None = None) -> list[dict[str, Any]]:
        """The runs, in due order."""

        def body(tx: Tx) -> list[dict[str, Any]]:
            found = rows.find(tx, FLOW_RUN, [], "EXPECTED_START_TIME_ASC", 2000)
            runs: list[dict[str, Any]] = orjson.loads(orjson.dumps(found))
            return [run for run in runs if deployment_id in {None, run["deployment_id"]}]

        found: list[dict[str, Any]] = await self.db.read(body, workspace=self.workspace)
        return found

    async def times(self, deployment_id: str | None = None) -> list[str]:
        return [run["next_scheduled_start_time"][:19] for run in await self.runs(deployment_id)]

    async def run(self, state: ProposedState, **values: Any) -> str:
        """The id of a new run in `state`."""

        def body(tx: Tx) -> str:
            flow = rows.by(tx, FLOW, name="etl")
            flow_id = flow["id"] if flow is not None else rows.insert(tx, FLOW, {"name": "etl"})
            return create_run(tx, {"name": "r", "flow_id": flow_id, **values}, state)[0]

        return str(await self.write(body))

    async def state(self, run_id: str) -> tuple[str, str, str | None]:
        run: dict[str, Any] = await self.db.read(lambda tx: rows.get(tx, FLOW_RUN, run_id), workspace=self.workspace)
        return run["state"]["type"], run["state"]["name"], run["state"]["message"]

    async def propose(self, run_id: str, type_: StateType, **more: Any) -> None:
        outcome = await self.write(lambda tx: propose(tx, run_id, ProposedState(type=type_, **more), force=True))
        assert outcome.created


def cron(text: str, timezone: str = "UTC", **more: Any) -> dict[str, Any]:
    return {"schedule": {"cron": text, "timezone": timezone}, **more}


def every(seconds: float, **more: Any) -> dict[str, Any]:
    anchor = {"anchor_date": "2026-01-01T00:00:00Z"}
    return {"schedule": {"interval": seconds, **anchor}, **more}


def scheduled(house: House, seconds: float = 0) -> ProposedState:
    moment = iso(house.clock.now_us() + round(seconds * 1_000_000))
    return ProposedState(type=StateType.SCHEDULED, details={"scheduled_time": moment})
