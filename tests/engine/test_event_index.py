"""What follows after the commits: indexes of events, and what more was changed than one transaction tells."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from managedd import ids
from managedd.config import SchedulerSection
from managedd.engine import event_index
from managedd.engine.scheduler import Scheduler
from managedd.errors import ErrorCode, ManagedError
from managedd.model.events import Event
from managedd.store import changes, events

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from managedd.store.database import Database, Tx
    from tests.engine.world import World

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def kept(world: World) -> AsyncIterator[None]:
    """The loop of a daemon runs until the block ends."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(event_index.keep, world.db, world.bus)
        await anyio.wait_all_tasks_blocked()
        yield
        tasks.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_index, "REST_SECONDS", 0.01)


def store_events(tx: Tx, count: int) -> None:
    events.insert(
        tx,
        [
            Event(id=ids.new_id(), occurred_us=tx.now, event="thing.happened", resource={"prefect.resource.id": "a"})
            for _ in range(count)
        ],
    )


async def until(db: Database, what: Any) -> None:
    with anyio.fail_after(20):
        while not await db.read(what):  # noqa: ASYNC110 (nobody tells)
            await anyio.sleep(0.01)


def all_indexed(tx: Tx) -> bool:
    return events.indexed_to(tx) == events.head(tx) and not tx.scalar("SELECT count(*) FROM events WHERE indexed = 0")


async def test_indexes_follow_without_a_query(world: World) -> None:
    async with kept(world):
        for _ in range(3):
            await world.write(lambda tx: store_events(tx, events.CATCH_UP_EVENTS + 1))
            assert not await world.read(all_indexed)
            await until(world.db, all_indexed)


async def test_what_one_transaction_left_is_told_without_another_one(world: World) -> None:
    count = 2 * changes.TAKEN + 3

    def make(tx: Tx) -> None:
        for number in range(count):
            tx.execute(
                "INSERT INTO flows (id, workspace_id, name, tags, labels, created, updated) VALUES (?, ?, ?, '[]', '{}', ?, ?)",
                (ids.new_id(), tx.workspace, f"flow {number}", tx.now, tx.now),
            )

    async with kept(world):
        await world.write(make)
        await until(world.db, lambda tx: not changes.are_left(tx))
    told = await world.read(
        lambda tx: tx.scalar(
            "SELECT count(*) FROM events JOIN flows ON resource_id = 'prefect.flow.' || flows.id "
            "WHERE event = 'prefect.flow.created' AND flows.name LIKE 'flow %'"
        )
    )
    assert told == count


async def test_a_store_that_fails_for_a_while_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    settle, failures = events.settle, 2

    async def failing(db: Database) -> None:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise ManagedError(ErrorCode.UNAVAILABLE, "the disk is full")
        await settle(db)

    monkeypatch.setattr(events, "settle", failing)
    await world.write(lambda tx: store_events(tx, 1))
    async with kept(world):
        await until(world.db, all_indexed)


async def test_events_that_are_gone_are_waited_for_by_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """They were deleted after it was seen how far the indexes have to go."""
    await world.write(lambda tx: store_events(tx, 3))
    newest = await world.read(events.head)
    await world.write(lambda tx: tx.execute("DELETE FROM events WHERE position > ?", (newest - 2,)))
    monkeypatch.setattr(events, "head", lambda _: newest)
    with anyio.fail_after(10):
        await events.settle(world.db)
    assert await world.read(lambda tx: tx.scalar("SELECT count(*) FROM events WHERE indexed = 0")) == 0


async def test_the_schedulers_round_tells_what_has_lapsed(world: World) -> None:
    """Nobody has asked a queue for work for a long time; every round tells what is new to it, and no more."""
    _, queue = await world.pool("mine", type="process")
    await world.write(
        lambda tx: tx.execute("UPDATE work_queues SET status_told = 'READY', last_polled = 1 WHERE id = ?", (queue,))
    )
    told = [await world.read(lambda tx: not_ready(tx, queue))]
    scheduler = Scheduler(world.db, world.bus, world.clock, SchedulerSection())
    for _ in range(2):
        await scheduler.tick()
        told.append(await world.read(lambda tx: not_ready(tx, queue)))
    assert told == [told[0], told[0] + 1, told[0] + 1]


def not_ready(tx: Tx, queue: str) -> int:
    count: int = tx.scalar(
        "SELECT count(*) FROM events WHERE resource_id = ? AND event = 'prefect.work-queue.not-ready'",
        (f"prefect.work-queue.{queue}",),
    )
    return count
