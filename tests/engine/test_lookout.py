"""The lookout: who has changed is woken, nobody else is, and one commit costs one query."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from managedd.bus import Topic
from managedd.engine.lookout import Lookout
from managedd.errors import unavailable
from managedd.model.executions import EndCause, Phase
from managedd.model.states import StateType
from managedd.store import executions, flow_runs

if TYPE_CHECKING:
    from tests.engine.world import World

pytestmark = pytest.mark.anyio


class Counting:
    def __init__(self, world: World, refusals: int = 0) -> None:
        self._db, self.reads, self.refusals = world.db, 0, refusals

    async def read(self, body: Any) -> Any:
        self.reads += 1
        if self.reads <= self.refusals:
            raise unavailable("the store is busy")
        return await self._db.read(body)


async def test_only_who_has_changed_is_woken(world: World) -> None:
    watched, other = await world.claimed(), await world.claimed()
    db = Counting(world)
    lookout = Lookout(db, world.bus)  # type: ignore[arg-type]
    with lookout.watching(watched.id) as woken, lookout.watching(other.id) as quiet:
        await lookout.once()
        assert await woken.wait(0.01) and await quiet.wait(0.01)
        changes = [
            lambda: world.propose(watched.flow_run_id, StateType.RUNNING),
            lambda: world.write(lambda tx: executions.request_stop(tx, watched.id, EndCause.CANCEL)),
            lambda: world.write(lambda tx: executions.advance(tx, watched.id, (Phase.CLAIMED,), Phase.EXITED)),
            lambda: world.write(lambda tx: flow_runs.delete(tx, watched.flow_run_id)),
        ]
        for change in changes:
            before = db.reads
            await change()
            await lookout.once()
            assert db.reads == before + 1
            assert await woken.wait(0.01) and not await quiet.wait(0.01)
    await lookout.once()
    assert db.reads == before + 1


async def test_a_store_that_is_busy_leaves_nobody_asleep(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from managedd.engine import lookout as module

    monkeypatch.setattr(module, "FAILED_SECONDS", 0.01)
    execution = await world.claimed()
    lookout = Lookout(Counting(world, refusals=2), world.bus)  # type: ignore[arg-type]
    async with anyio.create_task_group() as tasks:
        await tasks.start(lookout.run)
        with lookout.watching(execution.id) as woken:
            await world.propose(execution.flow_run_id, StateType.CANCELLING)
            assert await woken.wait(3)
        tasks.cancel_scope.cancel()


async def test_who_begins_to_watch_after_commits_that_concerned_nobody_is_woken_by_the_next(world: World) -> None:
    execution = await world.claimed()
    lookout = Lookout(world.db, world.bus)
    async with anyio.create_task_group() as tasks:
        await tasks.start(lookout.run)
        for _ in range(3):
            for _ in range(2):
                world.bus.publish([Topic.RUNS])
                await anyio.wait_all_tasks_blocked()
            with lookout.watching(execution.id) as woken:
                world.bus.publish([Topic.EXECUTIONS])
                assert await woken.wait(10)
        tasks.cancel_scope.cancel()
