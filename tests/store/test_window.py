"""Looks: small reads made on the event loop, and what becomes of those that are not small."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from managedd.errors import ErrorCode, ManagedError, not_found
from managedd.store.window import QUESTIONS, STEPS
from tests.store.bodies import refused

if TYPE_CHECKING:
    from managedd.store.database import Database, Tx
    from tests.store.conftest import Open

pytestmark = pytest.mark.anyio

MUCH = STEPS * (QUESTIONS + 1)
COUNT = f"WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < {MUCH}) SELECT count(*) FROM n"


def items(tx: Tx) -> Any:
    return tx.scalar("SELECT count(*) FROM item")


def add(name: str) -> Any:
    return lambda tx: tx.execute("INSERT INTO item (name) VALUES (?)", (name,)) and None


async def test_a_look_is_made_on_the_thread_that_asks_and_sees_what_was_committed(db: Database) -> None:
    seen = []

    def look(tx: Tx) -> Any:
        seen.append(threading.current_thread())
        return items(tx)

    assert await db.look(look) == 0
    await db.write(add("a"))
    assert await db.look(look) == 1
    assert seen == [threading.current_thread()] * 2


async def test_a_look_that_turns_out_long_is_left_to_a_reader(db: Database) -> None:
    threads = []

    def much(tx: Tx) -> Any:
        threads.append(threading.current_thread())
        return tx.scalar(COUNT)

    assert await db.look(much) == MUCH
    assert threads[0] is threading.current_thread()
    assert threads[1] is not threading.current_thread()
    assert await db.look(items) == 0


async def test_short_looks_are_never_left_to_a_reader_however_many_they_are(db: Database) -> None:
    seen = set()

    def look(tx: Tx) -> Any:
        seen.add(threading.current_thread())
        return [items(tx) for _ in range(5)]

    for _ in range(STEPS):
        assert await db.look(look) == [0] * 5
    assert seen == {threading.current_thread()}


async def test_long_looks_of_every_length_leave_nothing_open(db: Database) -> None:
    for length in range(MUCH - 2 * STEPS, MUCH, 97):
        assert await db.look(lambda tx, length=length: tx.scalar(COUNT.replace(str(MUCH), str(length)))) == length
        assert await db.look(items) == 0


async def test_what_a_look_raises_is_raised_and_leaves_nothing_open(db: Database) -> None:
    def missing(tx: Tx) -> Any:
        tx.execute("SELECT * FROM item")
        raise not_found("Item", "a")

    await refused(ErrorCode.NOT_FOUND, db.look(missing), "Item")
    await db.write(add("a"))
    assert await db.look(items) == 1


async def test_a_look_can_not_write(db: Database) -> None:
    with pytest.raises(ManagedError, match="tried to write"):
        await db.look(add("a"))
    assert await db.look(items) == 0


async def test_a_look_has_its_workspace(db: Database) -> None:
    assert await db.look(lambda tx: tx.workspace, workspace="w") == "w"


async def test_after_the_end_there_is_nothing_to_see(opened: Open) -> None:
    db = await opened()
    await db.close()
    await refused(ErrorCode.UNAVAILABLE, db.look(items), "closed")
