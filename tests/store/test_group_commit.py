"""Group commit: what is acknowledged is committed, what is committed is acknowledged, whatever happens beside it."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from managedd.bus import Bus, Topic
from managedd.errors import ErrorCode, ManagedError
from managedd.store.database import Database, IntegrityFault, Tx
from tests.store.bodies import (
    INSERT,
    Body,
    add,
    broken,
    check_sound,
    committed,
    ends_the_transaction,
    fills_the_disk,
    makes_commit_fail,
    swallows_the_end_of_the_transaction,
    together,
    trace,
)
from tests.store.conftest import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.store.conftest import Open

pytestmark = pytest.mark.anyio

# -- one commit


async def test_bodies_that_wait_share_one_commit(db: Database) -> None:
    async with trace(db) as seen:
        outcomes = await together(db, [add(f"{i}") for i in range(20)])
    assert outcomes == list(range(1, 21))
    # The first pair belongs to the body that held the thread.
    assert seen == ["BEGIN IMMEDIATE", "COMMIT"] * 2


async def test_bodies_of_one_turn_of_the_loop_share_one_commit(db: Database) -> None:
    async with trace(db) as seen:
        async with anyio.create_task_group() as tasks:
            for i in range(20):
                tasks.start_soon(db.write, add(f"{i}"))
    assert seen == ["BEGIN IMMEDIATE", "COMMIT"]
    assert len(committed(db)) == 20


async def test_a_batch_is_bounded_by_count(opened: Open) -> None:
    db = await opened(batch_limit=8)
    async with trace(db) as seen:
        await together(db, [add(f"{i}") for i in range(20)])
    assert seen.count("COMMIT") == 4
    assert committed(db) == [f"{i}" for i in range(20)]


class Slow:
    """A clock on which every look takes a second."""

    def __init__(self) -> None:
        self._seconds = 0

    def now_us(self) -> int:
        return 0

    def monotonic(self) -> float:
        self._seconds += 1
        return float(self._seconds)


async def test_a_batch_is_bounded_by_time_and_the_rest_keeps_its_order(opened: Open) -> None:
    db = await opened(clock=Slow())
    async with trace(db) as seen:
        outcomes = await together(db, [add(f"{i}") for i in range(10)])
    assert outcomes == list(range(1, 11))
    assert seen.count("COMMIT") == 11
    assert committed(db) == [f"{i}" for i in range(10)]


async def test_durable_decides_how_the_batch_is_synced(opened: Open) -> None:
    normal = await opened("normal.db", synchronous="NORMAL")
    async with trace(normal) as seen:
        await normal.write(add("a"))
        await normal.write(add("b"), durable=True)
        await normal.write(add("c"), durable=True)
        await normal.write(add("d"))
    commit = ["BEGIN IMMEDIATE", "COMMIT"]
    assert seen == [*commit, "PRAGMA synchronous = FULL", *commit, *commit, "PRAGMA synchronous = NORMAL", *commit]

    async with trace(normal) as seen, anyio.create_task_group() as tasks:
        for i in range(4):
            tasks.start_soon(lambda i=i: normal.write(add(f"{i}"), durable=i == 2))
    assert seen == ["PRAGMA synchronous = FULL", *commit]

    full = await opened("full.db")
    async with trace(full) as seen:
        await full.write(add("a"))
        await full.write(add("b"), durable=True)
        await full.write(add("c"), durable=False)
    assert seen == [*commit, *commit, "PRAGMA synchronous = NORMAL", *commit]


# -- publishing


class WatchingBus(Bus):
    """Notes what was committed when something was published."""

    def __init__(self) -> None:
        super().__init__()
        self.db: Database | None = None
        self.seen: list[tuple[set[Topic], list[str]]] = []

    def publish(self, topics: Iterable[Topic]) -> None:
        found = set(topics)
        if found and self.db is not None:
            assert threading.current_thread() is threading.main_thread()
            self.seen.append((found, committed(self.db)))
        super().publish(found)


def publishing(body: Body, *topics: Topic) -> Body:
    def both(tx: Tx) -> Any:
        tx.publish(*topics)
        return body(tx)

    return both


async def test_topics_are_published_after_the_commit_and_before_the_answer(opened: Open) -> None:
    bus = WatchingBus()
    bus.db = db = await opened(bus=bus)
    with bus.subscribe(Topic.RUNS) as subscription:
        await db.write(publishing(add("a"), Topic.RUNS, Topic.SLOTS))
        assert bus.seen == [({Topic.RUNS, Topic.SLOTS}, ["a"])]
        assert await subscription.wait(1)
    with pytest.raises(LookupError):
        await db.write(publishing(broken("b"), Topic.LOGS))
    assert len(bus.seen) == 1


async def test_only_committed_bodies_publish(opened: Open) -> None:
    bus = WatchingBus()
    bus.db = db = await opened(bus=bus)
    bodies = [
        publishing(add("a"), Topic.RUNS),
        publishing(broken("b"), Topic.LOGS),
        publishing(ends_the_transaction, Topic.EVENTS),
        publishing(add("c"), Topic.SLOTS),
    ]
    await together(db, bodies)
    assert set().union(*(topics for topics, _ in bus.seen)) == {Topic.RUNS, Topic.SLOTS}
    for topics, names in bus.seen:
        assert Topic.RUNS not in topics or "a" in names
        assert Topic.SLOTS not in topics or "c" in names


# -- isolation


async def test_a_failing_body_takes_nobody_with_it(db: Database) -> None:
    async with trace(db) as seen:
        outcomes = await together(db, [add("a"), broken("b"), add("a"), add("c"), lambda _: 1 / 0])
    assert outcomes[0] == 1
    assert isinstance(outcomes[1], LookupError)
    assert isinstance(outcomes[2], IntegrityFault)
    assert outcomes[3] == 2
    assert isinstance(outcomes[4], ZeroDivisionError)
    assert committed(db) == ["a", "c"]
    assert seen.count("COMMIT") == 2
    await check_sound(db)


@pytest.mark.parametrize("culprit", [ends_the_transaction, swallows_the_end_of_the_transaction, makes_commit_fail])
async def test_innocent_bodies_survive_the_end_of_their_transaction(db: Database, culprit: Body) -> None:
    outcomes = await together(db, [add("a"), culprit, broken("x"), add("b")])
    assert isinstance(outcomes[1], IntegrityFault)
    assert isinstance(outcomes[2], LookupError)
    assert sorted([outcomes[0], outcomes[3]]) == [1, 2]
    assert sorted(committed(db)) == ["a", "b"]
    await check_sound(db)


async def test_a_failure_over_a_row_that_never_came_to_be_is_tried_again(db: Database) -> None:
    runs = 0

    def only_the_first_time(tx: Tx) -> None:
        nonlocal runs
        runs += 1
        tx.execute(INSERT, ("wanted",))
        if runs > 1:
            raise LookupError

    outcomes = await together(db, [only_the_first_time, add("wanted"), ends_the_transaction])
    assert isinstance(outcomes[0], LookupError)
    assert outcomes[1] == 1
    assert isinstance(outcomes[2], IntegrityFault)
    assert committed(db) == ["wanted"]


async def test_a_body_whose_own_commit_fails_is_told_once(db: Database) -> None:
    ran = 0

    def counted(tx: Tx) -> None:
        nonlocal ran
        ran += 1
        makes_commit_fail(tx)

    with pytest.raises(IntegrityFault):
        await db.write(counted)
    assert ran == 1
    await check_sound(db)


async def test_a_full_disk_is_unavailable_and_passes(db: Database) -> None:
    await db.write(add("before"))
    pages = await db._writer.call(lambda sqlite: sqlite.execute("PRAGMA page_count").fetchone()[0])
    await db._writer.call(lambda sqlite: sqlite.execute(f"PRAGMA max_page_count = {pages + 20}").fetchall())
    outcomes = await together(db, [add("a"), fills_the_disk, add("b")])
    error = outcomes[1]
    assert isinstance(error, ManagedError)
    assert error.code is ErrorCode.UNAVAILABLE
    assert "disk is full" in error.message
    assert error.retry_after_seconds
    assert [isinstance(outcome, int) for outcome in outcomes] == [True, False, True]
    assert sorted(committed(db)) == ["a", "b", "before"]
    await db._writer.call(lambda sqlite: sqlite.execute("PRAGMA max_page_count = 100000").fetchall())
    await db.write(fills_the_disk)
    assert len(committed(db)) == 403
    await check_sound(db)


KINDS = ["add", "duplicate", "broken", "ends", "swallows", "commit", "full"]


def body_of(kind: str, number: int) -> Body:
    name = f"{number}"
    special: dict[str, Body] = {"ends": ends_the_transaction, "swallows": swallows_the_end_of_the_transaction}
    inner = special.get(kind) or {"commit": makes_commit_fail, "full": fills_the_disk}.get(kind)

    def body(tx: Tx) -> str:
        tx.execute(INSERT, (name,))
        if kind == "duplicate":
            tx.execute(INSERT, ("same for all",))
        elif kind == "broken":
            raise LookupError
        elif inner is not None:
            inner(tx)
        return name

    return body


@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=14), batch_limit=st.integers(1, 8), one=st.booleans()
)
@settings(max_examples=60, deadline=None)
def test_the_acknowledged_are_the_committed(kinds: list[str], batch_limit: int, one: bool) -> None:
    async def scenario(folder: Path) -> None:
        (folder / "migrations").mkdir()
        (folder / "migrations" / "0001_init.sql").write_text(SCHEMA)
        db = await Database.open(
            folder / "x.db",
            bus=Bus(),
            migrations=folder / "migrations",
            readers=1,
            batch_limit=batch_limit,
            synchronous="NORMAL",
        )
        try:
            pages = await db._writer.call(lambda sqlite: sqlite.execute("PRAGMA page_count").fetchone()[0])
            await db._writer.call(lambda sqlite: sqlite.execute(f"PRAGMA max_page_count = {pages + 20}").fetchall())
            bodies = [body_of(kind, number) for number, kind in enumerate(kinds)]
            outcomes = await together(db, bodies) if one else [await attempt(db, body) for body in bodies]
            acknowledged = {outcome for outcome in outcomes if isinstance(outcome, str)}
            assert {name for name in committed(db) if name.isdigit()} == acknowledged
            expected = {f"{number}" for number, kind in enumerate(kinds) if kind == "add"}
            assert acknowledged - {f"{number}" for number, kind in enumerate(kinds) if kind == "duplicate"} == expected
            assert len(acknowledged) - len(expected) == min(1, kinds.count("duplicate"))
            await check_sound(db)
        finally:
            await db.close()

    with tempfile.TemporaryDirectory() as folder:
        anyio.run(scenario, Path(folder))


async def attempt(db: Database, body: Body) -> Any:
    try:
        return await db.write(body)
    except Exception as error:
        return error
