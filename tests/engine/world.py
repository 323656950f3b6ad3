"""The world of the engine's tests: a real store, a fake container engine that outlives daemons, and daemons made of the real parts."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from datetime import UTC
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import orjson

from managedd import ids
from managedd.bus import Bus
from managedd.clock import SystemClock, iso
from managedd.config import RunsSection
from managedd.drivers.fake import FakeDriver, FakeEngine
from managedd.engine.dispatcher import Dispatcher
from managedd.engine.fleet import Fleet
from managedd.engine.limiter import Limits
from managedd.engine.log_writer import LogWriter
from managedd.engine.means import Job, Means
from managedd.engine.reconciler import Reconciler
from managedd.model.drivers import RunSpec
from managedd.model.flow_runs import ProposedState
from managedd.model.limits import HostLimits, Needs, Plan
from managedd.model.states import State, StateType
from managedd.orchestration import lifecycle
from managedd.orchestration.transition import Outcome, create_run, propose
from managedd.store import executions, flow_runs, plans, rows
from managedd.store.cipher import Key, KeyRing
from managedd.store.database import Database
from managedd.store.resources import DEPLOYMENT, FLOW, WORK_POOL, WORK_QUEUE
from managedd.store.workspaces import ensure_default

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from managedd.clock import Clock
    from managedd.model.drivers import Driver
    from managedd.model.executions import Execution, Phase
    from managedd.store.database import Tx

T = TypeVar("T")

INSTANCE = "here"
SECOND_US = 1_000_000
NEEDS = Needs(memory_bytes=2 * 1024**3, cpus=1.0)


def quick_settings(**changes: Any) -> RunsSection:
    """Settings under which everything that waits waits for parts of a second."""
    return RunsSection(
        **{
            "cancel_grace_seconds": 0.2,
            "stop_grace_seconds": 0.2,
            "pending_deadline_seconds": 20.0,
            "poll_seconds": 30.0,
            **changes,
        }
    )


@dataclass(kw_only=True)
class World:
    """What outlives a daemon."""

    folder: Path
    db: Database
    logs: Database
    bus: Bus
    clock: Clock
    engine: FakeEngine
    workspace: str = ids.DEFAULT_WORKSPACE_ID
    flow_id: str = ""
    pool_id: str = ""
    queue_id: str = ""
    settings: RunsSection = field(default_factory=quick_settings)

    # --- rows ----------------------------------------------------------------------------------------------------------

    async def write(self, body: Callable[[Tx], T]) -> T:
        return await self.db.write(body, workspace=self.workspace)

    async def read(self, body: Callable[[Tx], T]) -> T:
        return await self.db.read(body, workspace=self.workspace)

    async def on_plan(self, **limits: Any) -> None:
        """Plan `pro`, which every workspace is on, has these limits and no others."""
        await self.db.write(lambda tx: plans.replace(tx, [Plan(name="pro", **limits)]))

    async def pool(self, name: str, **values: Any) -> tuple[str, str]:
        """A managed pool and its queue."""

        def body(tx: Tx) -> tuple[str, str]:
            pool = rows.insert(
                tx, WORK_POOL, {"name": name, "type": "prefect:managed", "base_job_template": {}, **values}
            )
            return pool, rows.insert(tx, WORK_QUEUE, {"name": "default", "work_pool_id": pool, "priority": 1})

        return await self.write(body)

    async def queue(self, name: str, pool_id: str | None = None, **values: Any) -> str:
        values = {"name": name, "work_pool_id": pool_id or self.pool_id, "priority": 1, **values}
        return await self.write(lambda tx: rows.insert(tx, WORK_QUEUE, values))

    async def deployment(self, name: str = "prod", **values: Any) -> str:
        values = {"name": name, "flow_id": self.flow_id, "work_queue_id": self.queue_id, **values}
        return await self.write(lambda tx: rows.insert(tx, DEPLOYMENT, values))

    async def run(
        self,
        *,
        due_in_seconds: float = 0.0,
        queue_id: str | None = None,
        state: ProposedState | None = None,
        **values: Any,
    ) -> str:
        """A run that is due."""
        moment = iso(self.clock.now_us() + round(due_in_seconds * SECOND_US))
        first = state or ProposedState(type=StateType.SCHEDULED, details={"scheduled_time": moment})
        made = {"name": "r", "flow_id": self.flow_id, "work_queue_id": queue_id or self.queue_id, **values}
        return (await self.write(lambda tx: create_run(tx, made, first)))[0]

    async def claimed(self, **values: Any) -> Execution:
        """A run that was claimed, without a runner."""
        run_id = await self.run(**values)

        def body(tx: Tx) -> Execution:
            propose(tx, run_id, ProposedState(type=StateType.PENDING))
            made = executions.insert(tx, flow_run_id=run_id, work_pool_id=self.pool_id, driver="fake")
            flow_runs.set_infrastructure(tx, run_id, f"managedd:{made.id}")
            return made

        return await self.write(body)

    async def propose(self, run_id: str, type_: StateType, *, force: bool = False, **more: Any) -> Outcome:
        """The answer to a client's proposal."""
        return await self.write(lambda tx: propose(tx, run_id, ProposedState(type=type_, **more), force=force))

    async def state(self, run_id: str) -> State:
        found = await self.read(lambda tx: flow_runs.current(tx, run_id))
        assert found is not None
        return found

    async def history(self, run_id: str) -> list[str]:
        """The names of the run's states."""

        def body(tx: Tx) -> list[str]:
            found = tx.all("SELECT name FROM flow_run_states WHERE flow_run_id = ? ORDER BY timestamp", (run_id,))
            return [row[0] for row in found]

        return await self.read(body)

    async def executions(self, run_id: str) -> list[Execution]:
        return await self.read(lambda tx: executions.of_run(tx, run_id))

    async def execution(self, run_id: str) -> Execution:
        """The run's only execution."""
        (found,) = await self.executions(run_id)
        return found

    async def evidence(self, execution_id: str) -> dict[str, Any]:
        text = await self.read(lambda tx: tx.scalar("SELECT evidence FROM executions WHERE id = ?", (execution_id,)))
        return dict(orjson.loads(text))

    async def log_lines(self, run_id: str, name: str | None = None) -> list[str]:
        """The run's log; of one logger, if named."""

        def body(tx: Tx) -> list[str]:
            found = tx.all("SELECT name, message FROM log_lines WHERE flow_run_id = ? ORDER BY id", (run_id,))
            return [row[1] for row in found if name in {None, row[0]}]

        return await self.logs.read(body)

    async def printed(self, run_id: str) -> list[str]:
        """What the run's container printed, as far as it is stored."""
        return [line for name in ("stdout", "stderr") for line in await self.log_lines(run_id, name)]

    async def slots(self) -> int:
        """How many runs hold a slot."""

        def body(tx: Tx) -> int:
            return int(
                tx.scalar("SELECT count(*) FROM flow_runs WHERE state_type IN ('PENDING', 'RUNNING', 'CANCELLING')")
            )

        return await self.read(body)

    # --- waiting -------------------------------------------------------------------------------------------------------

    async def until(self, holds: Callable[[], Awaitable[bool]], seconds: float = 10.0, what: str = "") -> None:
        """`holds` does, within the time."""
        with anyio.move_on_after(seconds):
            while not await holds():  # noqa: ASYNC110
                await anyio.sleep(0.01)
            return
        raise AssertionError(f"not within {seconds} s: {what or holds}")

    async def until_state(self, run_id: str, type_: StateType, seconds: float = 10.0) -> State:
        async def holds() -> bool:
            return (await self.state(run_id)).type is type_

        await self.until(holds, seconds, f"{run_id} {type_}")
        return await self.state(run_id)

    async def until_phase(self, run_id: str, phase: Phase, seconds: float = 10.0) -> Execution:
        async def holds() -> bool:
            return any(execution.phase is phase for execution in await self.executions(run_id))

        await self.until(holds, seconds, f"{run_id} {phase}")
        return next(execution for execution in await self.executions(run_id) if execution.phase is phase)

    async def until_called(self, verb: str, execution_id: str = "", times: int = 1, seconds: float = 10.0) -> None:
        async def holds() -> bool:
            return self.calls(verb, execution_id) >= times

        await self.until(holds, seconds, f"{verb} called {times} times")

    def calls(self, verb: str, execution_id: str = "") -> int:
        """How often the engine was asked to."""
        return sum(1 for called, whose in self.engine.calls if called == verb and execution_id in {"", whose})

    # --- daemons -------------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def daemon(self, **options: Any) -> AsyncIterator[Daemon]:
        """A daemon over this world until the block ends: then it is detached, as by a stop."""
        made = Daemon(self, **options)
        async with anyio.create_task_group() as tasks:
            writer = anyio.CancelScope()

            async def write() -> None:
                with writer:
                    await made.writer.run()

            tasks.start_soon(write)
            async with anyio.create_task_group() as loops:
                await loops.start(made.fleet.run)
                made.loops = loops
                yield made
                loops.cancel_scope.cancel()
            writer.cancel()


class Daemon:
    """The engine's parts, put together as the daemon does."""

    def __init__(
        self,
        world: World,
        *,
        driver: Driver | None = None,
        db: Database | None = None,
        logs: Database | None = None,
        job: Callable[[Execution], Awaitable[Job]] | None = None,
        may_claim: Callable[[], bool] = lambda: True,
    ) -> None:
        self.world = world
        self.driver = driver or FakeDriver(world.engine)
        db, logs = db or world.db, logs or world.logs
        self.writer = LogWriter(db, logs, world.clock)
        self.means = Means(
            db=db,
            bus=world.bus,
            clock=world.clock,
            driver=self.driver,
            log_writer=self.writer,
            settings=world.settings,
            instance_id=INSTANCE,
            job=job or job_of,
        )
        self.fleet = Fleet(self.means)
        self.reconciler = Reconciler(db, self.driver, self.fleet, world.clock, instance_id=INSTANCE)
        self.dispatcher = Dispatcher(
            db,
            world.bus,
            world.clock,
            driver="fake",
            limits=limits(),
            needs=lambda tx, run_id: NEEDS,
            poll_seconds=world.settings.poll_seconds,
            key_hash=lambda execution_id: f"hash of {execution_id}",
            start=self.fleet.start,
            may_claim=may_claim,
        )
        self.loops: Any = None

    def dispatch(self) -> None:
        """The dispatcher runs."""
        self.loops.start_soon(self.dispatcher.run)


def limits(host: HostLimits | None = None) -> Limits:
    """What the limiter is made with."""
    return Limits(zone=UTC, host=host or HostLimits())


def spec_of(execution: Execution) -> RunSpec:
    """A specification like the real one's."""
    return RunSpec(execution_id=execution.id, flow_run_id=execution.flow_run_id, instance_id=INSTANCE, image="image")


async def job_of(execution: Execution) -> Job:
    return Job(execution=execution, spec=spec_of(execution))


@contextlib.asynccontextmanager
async def open_world(folder: Path, clock: Clock | None = None) -> AsyncIterator[World]:
    """A world with one pool, one queue and one flow."""
    bus, clock = Bus(), clock or SystemClock()
    # No power is cut here: waiting for the disk is other tests' business.
    db, logs = [
        await Database.open(
            folder / f"{name}.db",
            bus=bus,
            clock=clock,
            migrations=f"managedd.store.migrations.{name}",
            synchronous="NORMAL",
            finish=lifecycle.tell if name == "state" else None,
        )
        for name in ("state", "logs")
    ]
    db.vault.take(KeyRing(Key.new()))
    try:
        await db.write(lambda tx: ensure_default(tx, plan="pro"))
        await db.write(lambda tx: plans.replace(tx, [Plan(name="pro")]))
        made = World(folder=folder, db=db, logs=logs, bus=bus, clock=clock, engine=FakeEngine(clock=clock))
        made.flow_id = await made.write(lambda tx: rows.insert(tx, FLOW, {"name": "etl"}))
        made.pool_id, made.queue_id = await made.pool("managed")
        yield made
    finally:
        await logs.close()
        await db.close()
