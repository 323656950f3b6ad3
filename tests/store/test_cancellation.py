"""Cancelled callers and killed processes: nothing stays open, nobody is stranded, nobody is lied to."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from tests.store.bodies import (
    INSERT,
    add,
    check_sound,
    committed,
    one_batch,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from managedd.store.database import Database, Tx
    from tests.store.conftest import Open

pytestmark = pytest.mark.anyio

LONG_QUERY = (
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 3000000000) SELECT count(*) FROM n"
)


# -- writers


async def test_a_cancelled_caller_that_still_queues_has_written_nothing(db: Database) -> None:
    async with anyio.create_task_group() as outer:
        async with one_batch(db):
            async with anyio.create_task_group() as inner:
                inner.start_soon(db.write, add("dropped"))
                await anyio.wait_all_tasks_blocked()
                inner.cancel_scope.cancel()
            outer.start_soon(db.write, add("kept"))
    assert committed(db) == ["kept"]


async def test_a_caller_that_is_cancelled_already_writes_nothing(db: Database) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await db.write(add("a"))
    assert scope.cancelled_caught
    await check_sound(db)
    assert committed(db) == []


@pytest.mark.parametrize("native", [False, True])
async def test_a_body_that_started_commits_before_its_cancelled_caller_goes_on(db: Database, native: bool) -> None:
    started, go_on = threading.Event(), threading.Event()

    def slow(tx: Tx) -> None:
        tx.execute(INSERT, ("a",))
        started.set()
        assert go_on.wait(20)

    seen: list[list[str]] = []

    async def caller() -> None:
        try:
            await db.write(slow)
        finally:
            seen.append(committed(db))

    async def cancel(stop: Callable[[], Any]) -> None:
        await anyio.to_thread.run_sync(started.wait, 20)
        stop()
        await anyio.wait_all_tasks_blocked()
        assert seen == []
        go_on.set()

    if native:
        task = asyncio.ensure_future(caller())
        await cancel(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        async with anyio.create_task_group() as tasks:
            scope = anyio.CancelScope()

            async def scoped() -> None:
                with scope:
                    await caller()

            tasks.start_soon(scoped)
            await cancel(scope.cancel)
        assert scope.cancelled_caught
    assert seen == [["a"]]
    await check_sound(db)


async def _strand(db: Database, wrap: Callable[[Awaitable[Any], float], Awaitable[None]], seed: int) -> None:
    """Cancels some of many writers at any moment: the others never notice, and nobody lies."""
    chance = random.Random(seed)
    acknowledged: set[str] = set()

    async def client(name: str) -> None:
        async def write() -> None:
            await db.write(add(name))
            acknowledged.add(name)

        if chance.random() < 0.5:
            await wrap(write(), chance.random() * 0.004)
        else:
            await write()

    async with anyio.create_task_group() as tasks:
        for i in range(150):
            tasks.start_soon(client, f"{i}")
            if chance.random() < 0.2:
                await anyio.sleep(chance.random() * 0.002)
    names = set(committed(db))
    assert acknowledged <= names
    assert len(acknowledged) >= 50
    await check_sound(db)


@pytest.mark.parametrize("seed", range(6))
async def test_anyio_cancellation_at_any_moment_strands_nobody(db: Database, seed: int) -> None:
    async def wrap(write: Awaitable[None], delay_seconds: float) -> None:
        with anyio.move_on_after(delay_seconds):
            await write

    with anyio.fail_after(60):
        await _strand(db, wrap, seed)


@pytest.mark.parametrize("seed", range(6))
async def test_native_cancellation_at_any_moment_strands_nobody(db: Database, seed: int) -> None:
    async def wrap(write: Awaitable[None], delay_seconds: float) -> None:
        task = asyncio.ensure_future(write)
        await anyio.sleep(delay_seconds)
        task.cancel()
        if delay_seconds > 0.002:
            task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    with anyio.fail_after(60):
        await _strand(db, wrap, seed)


# -- readers


async def test_a_cancelled_read_stops_its_query_and_frees_the_reader(opened: Open) -> None:
    db = await opened(readers=1)
    before = time.monotonic()
    with anyio.move_on_after(0.2) as scope:
        await db.read(lambda tx: tx.scalar(LONG_QUERY))
    assert scope.cancelled_caught
    assert await db.read(lambda tx: tx.scalar("SELECT 1")) == 1
    assert time.monotonic() - before < 5


async def test_a_cancelled_read_that_still_waits_is_dropped(opened: Open) -> None:
    db = await opened(readers=1)
    started, go_on = threading.Event(), threading.Event()
    ran = []

    def hold(_: Tx) -> None:
        started.set()
        assert go_on.wait(10)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(db.read, hold)
        await anyio.to_thread.run_sync(started.wait, 10)
        with anyio.move_on_after(0.05) as scope:
            await db.read(lambda _: ran.append(1))
        assert scope.cancelled_caught
        go_on.set()
    assert await db.read(lambda tx: tx.scalar("SELECT 2")) == 2
    assert ran == []


# -- a process that dies

WRITER = """
import asyncio, sys
from pathlib import Path
from managedd.bus import Bus
from managedd.store.database import Database

async def client(database, number):
    for i in range(10_000):
        name = f"{number}/{i}"
        await database.write(lambda tx: tx.execute("INSERT INTO item (name) VALUES (?)", (name,)))
        print(name, flush=True)

async def main():
    database = await Database.open(Path(sys.argv[1]), bus=Bus(), migrations=Path(sys.argv[2]))
    await asyncio.gather(*(client(database, number) for number in range(8)))

asyncio.run(main())
"""


def start_writer(path: Path, migrations: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(migrations)], stdout=subprocess.PIPE, text=True
    )


async def test_what_was_acknowledged_survives_a_kill(opened: Open, tmp_path: Path, migrations: Path) -> None:
    path = tmp_path / "killed.db"
    process = start_writer(path, migrations)
    assert process.stdout is not None
    said = [await anyio.to_thread.run_sync(process.stdout.readline) for _ in range(500)]
    process.kill()
    rest, _ = await anyio.to_thread.run_sync(process.communicate)
    lines = "".join([*said, rest])
    acknowledged = set(lines[: lines.rfind("\n")].split("\n"))
    assert len(acknowledged) >= 500
    db = await opened("killed.db")
    assert acknowledged <= set(committed(db))
    await check_sound(db)
