"""A workspace to be shown: three weeks of runs of four deployments, with everything that a page can tell of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import orjson

from managedd import ids
from managedd.clock import to_us
from managedd.model.access import Role
from managedd.model.executions import EndCause, Phase
from managedd.model.logs import LogRecord
from managedd.orchestration.pool_types import default_template
from managedd.store import executions, logs, samples, usage, workspaces
from tests.api.deployed import deploy, flow_of, run_it
from tests.api.test_automations import TRIGGER
from tests.support.api_keys import make_key
from tests.ui import pictured_texts as texts
from tests.ui.runs_of import MIB, to

if TYPE_CHECKING:
    from collections.abc import Callable

    from managedd.store.database import Tx
    from tests.support.clock import ManualClock
    from tests.ui.conftest import Pages

NOW: Final = datetime(2026, 11, 20, 15, 20, tzinfo=UTC)
"""A Friday."""
BEGIN: Final = datetime(2026, 11, 2, tzinfo=UTC)
SECOND: Final = 1_000_000
_BUSY_DAYS: Final = (2, 3, 4, 5, 6, 9, 10, 11, 12, 13, 16, 17, 18, 19)


@dataclass
class World:
    """What there is, by what the pages' paths are filled with."""

    site: Pages
    clock: ManualClock
    deployments: dict[str, dict[str, Any]]
    runs: dict[str, dict[str, Any]]
    block: str = ""
    automation: str = ""
    task_run: str = ""

    async def made(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a POST that makes something."""
        status, answer = await self.site.api.post(path, body)
        assert status in {200, 201}, (path, answer)
        return dict(answer or {})

    async def went(
        self, of: str, name: str, began: datetime, minutes: float, type_: str = "COMPLETED", cause: EndCause | None = None,
        message: str | None = None, **more: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """The deployment has a run of that name that began then and took so long; `RUNNING`: it goes on."""
        self.clock.turn_to(began - timedelta(seconds=8))
        run = await run_it(self.site.api, self.deployments[of], name=name, **more)
        self.runs[name] = run
        self.clock.advance(3)
        execution = await self.write(partial(_claimed, run["id"], self.deployments[of]["work_pool_name"]))
        await to(self.site, run, "PENDING")
        self.clock.turn_to(began + timedelta(seconds=6))
        await self.write(partial(_started, execution, to_us(began), to_us(began + timedelta(minutes=minutes)), cause))
        await to(self.site, run, "RUNNING")
        if type_ != "RUNNING":
            self.clock.turn_to(began + timedelta(minutes=minutes))
            await to(self.site, run, type_, message)
            await self.write(partial(_ended, execution, type_, cause, message))
        return run

    async def write(self, body: Callable[[Tx], Any]) -> Any:
        """As the engine writes."""
        return await self.site.services.db.write(body, workspace=ids.DEFAULT_WORKSPACE_ID)


def _claimed(run: str, pool: str, tx: Tx) -> str:
    pool_id = tx.scalar("SELECT id FROM work_pools WHERE name = ? AND workspace_id = ?", (pool, tx.workspace))
    return executions.insert(tx, flow_run_id=run, work_pool_id=pool_id, driver="docker").id


def _started(execution: str, start: int, end: int, cause: EndCause | None, tx: Tx) -> None:
    is_full = cause is EndCause.MEMORY
    moments = {
        "pulled_at": start - 2 * SECOND, "created_at": start - SECOND, "started_at": start, "installed_at": start + 5 * SECOND,
        "image": "prefecthq/prefect:3-python3.12", "memory_limit_bytes": 1024 * MIB, "cpu_limit": 1.0, "time_limit_seconds": 7200 if cause is EndCause.TIME else 36_000,
        "peak_memory_bytes": (1024 if is_full else 612) * MIB,
    }  # fmt: skip
    executions.note(tx, execution, moments)
    samples.add(tx, {execution: _used(start, end, is_full=is_full)})
    executions.advance(tx, execution, (Phase.CLAIMED,), Phase.CREATED)
    executions.advance(tx, execution, (Phase.CREATED,), Phase.RUNNING)


def _ended(execution: str, type_: str, cause: EndCause | None, message: str | None, tx: Tx) -> None:
    code = 0 if type_ == "COMPLETED" else 1 if cause is None else 137
    ended = {"exited_at": tx.now, "exit_code": code, "end_cause": cause, "end_message": message}
    executions.advance(tx, execution, (Phase.RUNNING,), Phase.EXITED, ended)
    done = executions.advance(tx, execution, (Phase.EXITED,), Phase.FINALIZED)
    assert done is not None
    usage.record(tx, done, None, UTC)


def _used(start: int, end: int, *, is_full: bool) -> list[tuple[int, int, int]]:
    """Memory that grows in steps, or to the limit, and a processor that is busy at first."""
    count = 60
    every = (end - start) // count
    shares = [(each + 1) / count for each in range(count)]
    top = 1010 if is_full else 600
    return [
        (
            start + every * (n + 1),
            round((140 + (top - 140) * (share if is_full else texts.grown(share)) + 22 * math.sin(n / 2)) * MIB),
            round(every * (n + 1) * (0.9 - 0.5 * share)),
        )
        for n, share in enumerate(shares)
    ]


async def build(site: Pages, clock: ManualClock) -> World:
    """All of it; afterwards it is `NOW`."""
    world = World(site=site, clock=clock, deployments={}, runs={})
    await _pools(world)
    await _deployments(world)
    await _settings(world)
    await _weeks(world)
    await _today(world)
    clock.turn_to(NOW)
    site.services.facts.update(texts.facts())
    site.services.examinations.last = texts.EXAMINATION
    return world


async def _pools(world: World) -> None:
    for name, type_, about, limit in texts.POOLS:
        template = default_template(type_) or {}
        for variable, value in (texts.VARIABLES_OF_ETL if name == "etl" else {}).items():
            template["variables"]["properties"][variable]["default"] = value
        body = {
            "name": name,
            "type": type_,
            "description": about,
            "concurrency_limit": limit,
            "base_job_template": template,
        }
        await world.made("/work_pools/", body)
    for name, priority, most in (("urgent", 1, None), ("backfill", 9, 2)):
        await world.made("/work_pools/etl/queues", {"name": name, "priority": priority, "concurrency_limit": most})
    await world.site.api.patch("/work_pools/training", {"is_paused": True})


async def _deployments(world: World) -> None:
    for flow, name, more in texts.DEPLOYMENTS:
        world.deployments[name] = await deploy(
            world.site.api, name, flow_id=await flow_of(world.site.api, flow), **more
        )


async def _settings(world: World) -> None:
    db = world.site.services.db
    for name, role, left_days in texts.KEYS:
        ends = None if left_days is None else to_us(NOW + timedelta(days=left_days))
        await make_key(db, Role(role), name=name, expires_us=ends)
    for name, value, tags in texts.VARIABLES:
        await world.made("/variables/", {"name": name, "value": value, "tags": tags})
    for name, slots in (("warehouse", 6), ("vendor-api", 2)):
        await world.made("/v2/concurrency_limits/", {"name": name, "limit": slots})
    await world.made("/concurrency_limits/", {"tag": "gpu", "concurrency_limit": 1})
    for account, handle, plan in (("acme", "research", "pro"), ("acme", "trial", "free")):
        ours = {"account_id": ids.new_id(), "workspace_id": ids.new_id()}
        await db.write(
            lambda tx, ours=ours, account=f"{account}-{handle}", handle=handle, plan=plan: workspaces.create(
                tx, **ours, account=account, handle=handle, plan=plan
            )
        )
    kind = await world.made("/block_types/", {"name": "Secret", "slug": "secret"})
    fields = {"type": "object", "properties": {"value": {"type": "string", "format": "password", "title": "Value"}}, "secret_fields": ["value"], "block_type_slug": "secret"}  # fmt: skip
    schema = await world.made("/block_schemas/", {"block_type_id": kind["id"], "fields": fields})
    sent = {"name": "warehouse-password", "data": {"value": "correct horse"}, "block_type_id": kind["id"], "block_schema_id": schema["id"]}  # fmt: skip
    acting = {"name": "tell of late reports", "trigger": TRIGGER, "actions": [{"type": "cancel-flow-run"}]}
    world.automation = (await world.made("/automations/", acting))["id"]
    world.block = (await world.made("/block_documents/", sent))["id"]


async def _weeks(world: World) -> None:
    for n, day in enumerate(_BUSY_DAYS):
        night = datetime(2026, 11, day, 1, tzinfo=UTC)
        await world.went(
            "nightly",
            f"orders-2026-11-{day:02}",
            night,
            128 + 37 * (n % 5),
            parameters={"day": f"2026-11-{day:02}", "rows": 50_000},
        )
        await world.went(
            "hourly", f"report-{day:02}-09", night.replace(hour=9), 11 + n % 4, "FAILED" if n % 6 == 4 else "COMPLETED"
        )
        if day % 7 == 2:
            await world.went("weekly", f"model-{day:02}", night.replace(hour=4), 410)


async def _today(world: World) -> None:
    def at(hour: int, minute: int = 0) -> datetime:
        return datetime(2026, 11, 20, hour, minute, tzinfo=UTC)

    await world.went("nightly", "orders-2026-11-20", at(1), 190, parameters={"day": "2026-11-20", "rows": 50_000})
    for hour in range(6, 15):
        wrong = {9: ("FAILED", None, texts.FAILED), 12: ("CRASHED", EndCause.TIME, texts.TIME)}.get(
            hour, ("COMPLETED", None, None)
        )
        await world.went("hourly", f"report-20-{hour:02}", at(hour), 120 if hour == 12 else 12, *wrong)
    await world.went("backfill", "backfill-2019", at(8), 44, "CRASHED", EndCause.MEMORY, texts.MEMORY)
    await world.went(
        "backfill", "backfill-2020", at(10), 7, "CANCELLED", EndCause.CANCEL, "Flow run was cancelled: by a client."
    )
    run = await world.went(
        "nightly",
        "orders-again",
        at(14, 41),
        39,
        "RUNNING",
        tags=["orders", "by hand"],
        parameters={"day": "2026-11-19", "rows": 50_000},
    )
    await _told(world, run["id"], at(14, 41))
    await _waiting(world, at)


async def _waiting(world: World, at: Any) -> None:
    asks = await world.went("backfill", "backfill-2021", at(15, 2), 1, "RUNNING")
    for key, value in texts.ASKED.items():
        await world.made(f"/flow_runs/{asks['id']}/input", {"key": key, "value": orjson.dumps(value).decode()})
    keyset = {"schema": "paused-1-schema", "response": "paused-1-response", "description": "paused-1-description"}
    await to(
        world.site, asks, "PAUSED", state_details={"pause_timeout": "2026-11-21T15:00:00Z", "run_input_keyset": keyset}
    )
    world.clock.turn_to(at(15, 16))
    for name, of in (("model-20", "weekly"), ("report-20-15", "hourly")):
        world.runs[name] = await run_it(world.site.api, world.deployments[of], name=name)
    later = {"state": {"type": "SCHEDULED", "state_details": {"scheduled_time": "2026-11-21T01:00:00Z"}}}
    await run_it(
        world.site.api,
        world.deployments["nightly"],
        name="orders-2026-11-21",
        parameters={"day": "2026-11-21"},
        **later,
    )


async def _told(world: World, run: str, began: datetime) -> None:
    """Its task runs, log and artifacts."""
    for name, offset, took, type_ in texts.TASKS:
        world.clock.turn_to(began + timedelta(seconds=offset or 0))
        task = await world.made(
            "/task_runs/", {"flow_run_id": run, "name": name, "task_key": name, "dynamic_key": name, "tags": ["orders"]}
        )
        if offset is not None:
            await _task_is(world, task["id"], "RUNNING")
        if took is not None:
            world.clock.advance(took)
            await _task_is(world, task["id"], type_)
        if name == "extract-1":
            world.task_run = task["id"]
    start = to_us(began)
    lines = [
        LogRecord(name, level, text, start + round(seconds * SECOND), run) for seconds, name, level, text in texts.LOG
    ]
    await world.site.services.logs.write(lambda tx: logs.append(tx, lines), workspace=ids.DEFAULT_WORKSPACE_ID)
    for each in texts.ARTIFACTS:
        await world.made("/artifacts/", {**each, "flow_run_id": run})


async def _task_is(world: World, task: str, type_: str) -> None:
    await world.made(f"/task_runs/{task}/set_state", {"state": {"type": type_}, "force": True})
