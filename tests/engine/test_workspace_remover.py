"""What removes the rows and lines of deleted workspaces: woken at once, and whatever a crash left is done by the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from managedd import ids
from managedd.bus import Bus
from managedd.engine import workspace_remover
from managedd.engine.workspace_remover import WorkspaceRemover
from managedd.model.executions import ENDED, EndCause
from managedd.model.logs import LogRecord
from managedd.store import executions, logs, rows, workspace_removal, workspaces
from managedd.store.database import Database
from managedd.store.resources import FLOW
from tests.engine.test_runner import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from managedd.model.executions import Execution
    from managedd.store.database import Tx
    from tests.engine.world import World

pytestmark = pytest.mark.anyio

FLOWS = 30


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class House:
    """Both stores of a directory, opened."""

    def __init__(self, db: Database, log_db: Database, bus: Bus) -> None:
        self.db = db
        self.log_db = log_db
        self.bus = bus

    @classmethod
    async def open(cls, folder: Path) -> House:
        bus = Bus()
        db = await Database.open(folder / "state.db", bus=bus, migrations="managedd.store.migrations.state")
        log_db = await Database.open(folder / "logs.db", bus=bus, migrations="managedd.store.migrations.logs")
        return cls(db, log_db, bus)

    async def close(self) -> None:
        await self.log_db.close()
        await self.db.close()

    def remover(self) -> WorkspaceRemover:
        return WorkspaceRemover(self.db, self.log_db, self.bus)

    async def workspace(self, handle: str) -> str:
        """A workspace with flows and lines in it."""
        made = await self.db.write(lambda tx: workspaces.make(tx, account="acme", handle=handle, plan="pro").id)

        def body(tx: Tx) -> None:
            for number in range(FLOWS):
                rows.insert(tx, FLOW, {"id": ids.new_id(), "name": f"flow-{number}", "tags": [], "labels": {}})

        await self.db.write(body, workspace=made)
        lines = [LogRecord("l", 20, "text", 1, None) for _ in range(FLOWS)]
        await self.log_db.write(lambda tx: logs.append(tx, lines), workspace=made)
        return made

    async def left(self, workspace: str) -> tuple[int, int]:
        """How many flows and lines it has."""
        flows = await self.db.read(
            lambda tx: tx.scalar("SELECT count(*) FROM flows WHERE workspace_id = ?", (workspace,))
        )
        lines = await self.log_db.read(
            lambda tx: tx.scalar(
                "SELECT count(*) FROM logs WHERE workspace = (SELECT key FROM log_workspaces WHERE id = ?)",
                (workspace,),
            )
        )
        return flows, lines


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = await House.open(tmp_path)
    yield made
    await made.close()


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace_removal, "STEP", 10)
    monkeypatch.setattr(workspace_remover, "PAUSE_SECONDS", 0)


async def test_a_workspace_that_is_deleted_is_removed_at_once_and_no_other(house: House) -> None:
    mine, others = await house.workspace("mine"), await house.workspace("others")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(house.remover().run)
        await house.db.write(lambda tx: workspace_removal.begin(tx, mine, force=False))
        with anyio.fail_after(20):
            while await house.left(mine) != (0, 0):  # noqa: ASYNC110 - deleting lines wakes nobody
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert await house.left(others) == (FLOWS, FLOWS)


async def test_whatever_a_crash_leaves_half_done_the_next_one_does(tmp_path: Path) -> None:
    house = await House.open(tmp_path)
    mine, others = await house.workspace("mine"), await house.workspace("others")
    await house.db.write(lambda tx: workspace_removal.begin(tx, mine, force=False))
    seen = set()
    while True:
        more = await house.db.write(lambda tx: workspace_removal.step(tx, mine))
        # The process ends between two steps: the next one finds the files as they are.
        await house.close()
        house = await House.open(tmp_path)
        flows, lines = await house.left(mine)
        assert lines == FLOWS
        seen.add(flows)
        if not more:
            break
    assert seen == {20, 10, 0}
    assert not await house.remover().once()
    assert await house.left(mine) == (0, 0)
    assert await house.left(others) == (FLOWS, FLOWS)
    await house.close()


async def test_by_force_what_runs_is_stopped_with_a_cause_what_waits_never_starts_and_all_slots_are_free(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace_remover, "WAIT_SECONDS", 0.05)
    home = world.workspace
    world.workspace = await world.db.write(lambda tx: workspaces.make(tx, account="acme", handle="mine", plan="pro").id)
    world.flow_id = await world.write(lambda tx: rows.insert(tx, FLOW, {"name": "f"}))
    world.pool_id, world.queue_id = await world.pool("p")
    ended: list[Execution] = []
    seen = executions.advance

    def advance(tx: Tx, execution_id: str, *moves: Any) -> Execution | None:
        found = seen(tx, execution_id, *moves)
        if found is not None and found.phase in ENDED:
            ended.append(found)
        return found

    monkeypatch.setattr(executions, "advance", advance)
    async with world.daemon() as daemon, anyio.create_task_group() as tasks:
        execution = await running(world, daemon)
        await world.run()
        tasks.start_soon(WorkspaceRemover(world.db, world.logs, world.bus).run)
        await world.db.write(lambda tx: workspace_removal.begin(tx, execution.workspace_id, force=True))
        daemon.dispatch()

        async def gone() -> bool:
            counts = " + ".join(
                f"(SELECT count(*) FROM {table} WHERE workspace_id = ?1)"
                for table in ("flow_runs", "executions", "work_pools")
            )
            return not await world.read(lambda tx: tx.scalar(f"SELECT {counts}", (execution.workspace_id,)))

        await world.until(gone, 20.0, "removed")
        tasks.cancel_scope.cancel()
    assert [(each.id, each.stop_reason, each.end_cause) for each in ended] == [
        (execution.id, EndCause.CANCEL, EndCause.CANCEL)
    ]
    assert world.engine.containers == {}
    assert world.calls("create") == 1
    assert (await world.db.read(executions.reserved)).memory_bytes == 0
    world.workspace = home
