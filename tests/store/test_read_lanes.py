"""Clients' reads: bounded in time, and never all the readers."""

from __future__ import annotations

import threading
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from managedd.errors import ErrorCode
from tests.store.bodies import refused
from tests.store.test_cancellation import LONG_QUERY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from managedd.store.database import Database, Tx
    from tests.store.conftest import Open

pytestmark = pytest.mark.anyio

PATIENCE_SECONDS = 5.0
SHORT_QUERY = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 2000) SELECT count(*) FROM n"


def one(tx: Tx) -> Any:
    return tx.scalar("SELECT 1")


@asynccontextmanager
async def held(db: Database, count: int) -> AsyncIterator[None]:
    """`count` client reads have begun, or would if they might, and don't end before the block does."""
    go_on = threading.Event()
    begun = threading.Semaphore(0)

    def hold(_: Tx) -> None:
        begun.release()
        assert go_on.wait(20)

    async def call() -> None:
        await db.read(hold, lane="clients")

    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(call)
        for _ in range(min(count, len(db._readers) - 1)):
            await anyio.to_thread.run_sync(begun.acquire)
        try:
            yield
        finally:
            go_on.set()


async def test_with_every_client_reader_busy_the_engine_still_reads(db: Database) -> None:
    async with held(db, 20):
        with anyio.fail_after(PATIENCE_SECONDS):
            assert await db.read(one) == 1
            assert await db.size_bytes() > 0
        await refused(ErrorCode.UNAVAILABLE, db.read(one, lane="clients", deadline_seconds=0.05), "no reader")
    assert await db.read(one, lane="clients") == 1


async def test_a_single_reader_serves_both(opened: Open) -> None:
    db = await opened(readers=1)
    assert [await db.read(one, lane="clients"), await db.read(one)] == [1, 1]


async def test_a_query_that_takes_too_long_is_stopped_and_said_so(opened: Open) -> None:
    db = await opened(readers=1)
    before = time.monotonic()
    call = db.read(lambda tx: tx.scalar(LONG_QUERY), lane="clients", deadline_seconds=0.2)
    await refused(ErrorCode.UNAVAILABLE, call, "longer than 0.2 seconds")
    assert time.monotonic() - before < PATIENCE_SECONDS
    assert await db.read(one) == 1


async def test_many_short_statements_are_stopped_too(opened: Open) -> None:
    """An interrupt between two statements is lost, so one is not enough."""
    db = await opened(readers=1)

    def busy(tx: Tx) -> None:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            tx.scalar(SHORT_QUERY)

    before = time.monotonic()
    await refused(ErrorCode.UNAVAILABLE, db.read(busy, lane="clients", deadline_seconds=0.1), "longer than")
    assert time.monotonic() - before < PATIENCE_SECONDS


async def test_a_read_that_ends_in_time_is_not_disturbed(db: Database) -> None:
    assert await db.read(one, lane="clients", deadline_seconds=PATIENCE_SECONDS) == 1
