"""Transaction bodies that go well or ill, and ways to run them together."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from managedd.errors import ErrorCode, ManagedError
from managedd.store.database import Database, Tx

Body = Callable[[Tx], Any]

INSERT = "INSERT INTO item (name, amount) VALUES (?, 0)"
INSERT_ROW = "INSERT INTO item (name, amount, parent_id) VALUES (?, ?, ?)"


def add(name: str, amount: int = 0) -> Callable[[Tx], int | None]:
    return lambda tx: tx.execute(INSERT_ROW, (name, amount, None)).lastrowid


def names(tx: Tx) -> list[str]:
    return [row["name"] for row in tx.all("SELECT name FROM item ORDER BY id")]


def pragma(name: str) -> Callable[[sqlite3.Connection], Any]:
    return lambda sqlite: sqlite.execute(f"PRAGMA {name}").fetchone()[0]


async def refused(code: ErrorCode, call: Any, match: str = "") -> ManagedError:
    with pytest.raises(ManagedError, match=match) as caught:
        await call
    assert caught.value.code is code
    return caught.value


def broken(name: str) -> Body:
    """Writes, then fails."""

    def body(tx: Tx) -> None:
        tx.execute(INSERT, (name,))
        raise LookupError(name)

    return body


def ends_the_transaction(tx: Tx) -> None:
    tx.execute("INSERT OR ROLLBACK INTO item (name, amount) VALUES ('rolled back', -1)")


def swallows_the_end_of_the_transaction(tx: Tx) -> None:
    for _ in range(2):
        try:
            ends_the_transaction(tx)
        except ManagedError:
            continue


def makes_commit_fail(tx: Tx) -> None:
    tx.execute("PRAGMA defer_foreign_keys = ON")
    tx.execute("INSERT INTO item (name, parent_id) VALUES ('dangling', 99)")


def fills_the_disk(tx: Tx) -> None:
    tx.executemany(INSERT, ((f"huge {i} {'x' * 4000}",) for i in range(400)))


def committed(db: Database) -> list[str]:
    connection = sqlite3.connect(db.path)
    try:
        return [row[0] for row in connection.execute("SELECT name FROM item ORDER BY id")]
    finally:
        connection.close()


@asynccontextmanager
async def one_batch(db: Database) -> AsyncIterator[None]:
    """The bodies that are queued inside go into one batch."""
    started, go_on = threading.Event(), threading.Event()

    def hold(_: Tx) -> None:
        started.set()
        assert go_on.wait(20)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(db.write, hold)
        await anyio.to_thread.run_sync(started.wait, 20)
        yield
        await anyio.wait_all_tasks_blocked()
        go_on.set()


async def together(db: Database, bodies: Iterable[Body]) -> list[Any]:
    """What each of `bodies` returned or raised, having been queued in order for one batch."""
    outcomes: dict[int, Any] = {}

    async def call(number: int, body: Body) -> None:
        try:
            outcomes[number] = await db.write(body)
        except Exception as error:
            outcomes[number] = error

    async with anyio.create_task_group() as tasks:
        async with one_batch(db):
            for number, body in enumerate(bodies):
                tasks.start_soon(call, number, body)
                await anyio.wait_all_tasks_blocked()
    return [outcomes[number] for number in sorted(outcomes)]


@asynccontextmanager
async def trace(db: Database) -> AsyncIterator[list[str]]:
    """The statements that steer the writer's transactions."""
    seen: list[str] = []
    words = ("BEGIN", "COMMIT", "ROLLBACK", "PRAGMA synchronous")

    def look(statement: str) -> None:
        if statement.startswith(words):
            seen.append(statement)

    await db._writer.call(lambda sqlite: sqlite.set_trace_callback(look))
    yield seen
    await db._writer.call(lambda sqlite: sqlite.set_trace_callback(None))


async def check_sound(db: Database) -> None:
    assert not await db._writer.call(lambda sqlite: sqlite.in_transaction)
    assert await db.integrity() == []
    await db.write(lambda tx: tx.execute("INSERT INTO parent DEFAULT VALUES"))
