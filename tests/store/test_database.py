"""The database's door: settings, reads, bodies, errors and bounds."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import aiosqlite
import anyio
import pytest

from managedd.bus import Topic
from managedd.errors import ErrorCode, ManagedError
from managedd.store.connection import Connection
from managedd.store.database import Database, IntegrityFault, Tx
from tests.store.bodies import INSERT_ROW, add, names, pragma, refused

if TYPE_CHECKING:
    from pathlib import Path

    from tests.store.conftest import Open

pytestmark = pytest.mark.anyio

# -- settings and the adapter


async def test_settings_of_the_writer_and_the_readers(db: Database) -> None:
    settings = {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 5000,
        "auto_vacuum": 2,
        "query_only": 0,
    }
    assert {name: await db._writer.call(pragma(name)) for name in settings} == settings
    assert len(db._readers) == 3
    for reader in db._readers:
        assert await reader.call(pragma("query_only")) == 1
        assert await reader.call(pragma("busy_timeout")) == 5000
    assert stat.S_IMODE(db.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(db.path.with_name("x.db-wal").stat().st_mode) == 0o600


async def test_what_the_adapter_uses_of_aiosqlite_is_there() -> None:
    """aiosqlite has no public "run this function": `Connection` uses `_tx`, `_thread` and `_conn`."""
    raw = aiosqlite.connect(":memory:")
    assert not raw._thread.is_alive()
    raw._thread.daemon = True
    await raw
    ran = asyncio.Event()
    loop = asyncio.get_running_loop()
    threads: list[threading.Thread] = []
    connections: list[sqlite3.Connection] = []

    def hop() -> None:
        threads.append(threading.current_thread())
        connections.append(raw._conn)
        loop.call_soon_threadsafe(ran.set)

    raw._tx.put_nowait((None, hop))
    with anyio.fail_after(5):
        await ran.wait()
    assert threads == [raw._thread]
    assert isinstance(connections[0], sqlite3.Connection)
    ended = raw.stop()
    assert ended is not None
    with anyio.fail_after(5):
        await ended
    threads[0].join(5)
    assert not threads[0].is_alive()


async def test_a_transaction_is_one_hop_whatever_its_statements(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    hops = 0
    submit = Connection.submit

    def counted(self: Connection, work: Any, then: Any) -> None:
        nonlocal hops
        hops += 1
        submit(self, work, then)

    monkeypatch.setattr(Connection, "submit", counted)
    threads = set()

    def body(tx: Tx) -> None:
        for i in range(20):
            tx.execute(INSERT_ROW, (f"i{i}", 0, None))
            threads.add(threading.current_thread())

    await db.write(body)
    assert hops == 1
    assert threads == {db._writer._raw._thread}
    assert all(thread.daemon for thread in threads)
    await db.read(lambda tx: [tx.scalar("SELECT 1") for _ in range(20)])
    assert hops == 2


# -- what a body sees


async def test_rows_come_back_by_name_and_by_position(db: Database) -> None:
    assert await db.write(add("a", 5)) == 1
    row = await db.read(lambda tx: tx.one("SELECT name, amount FROM item"))
    assert row is not None
    assert (row["name"], row[1]) == ("a", 5)
    assert await db.read(lambda tx: tx.one("SELECT 1 WHERE 0")) is None
    assert await db.read(lambda tx: tx.scalar("SELECT 1 WHERE 0")) is None
    assert await db.read(lambda tx: tx.scalar("SELECT :x + 1", {"x": 41})) == 42
    await db.write(lambda tx: tx.executemany(INSERT_ROW, [("b", 1, None), ("c", 2, None)]))
    assert await db.read(names) == ["a", "b", "c"]


async def test_the_workspace_is_the_one_it_was_opened_for(db: Database) -> None:
    assert await db.read(lambda tx: (tx.workspace, tx.scoped("w2").workspace, tx.workspace), workspace="w1") == (
        "w1",
        "w2",
        "w1",
    )
    assert await db.write(lambda tx: tx.workspace, workspace="w3") == "w3"
    await refused(ErrorCode.INTERNAL, db.read(lambda tx: tx.workspace), "without a workspace")
    assert await db.write(lambda tx: tx.scoped("w4").execute(INSERT_ROW, ("a", 0, None)).rowcount) == 1


class Hand:
    """A clock that goes one second per look."""

    def __init__(self) -> None:
        self.seconds = 0

    def now_us(self) -> int:
        self.seconds += 1
        return self.seconds * 1_000_000

    def monotonic(self) -> float:
        return float(self.seconds)


async def test_time_stands_still_in_a_transaction(opened: Open) -> None:
    db = await opened(clock=Hand())

    def body(tx: Tx) -> tuple[int, int]:
        return tx.now, tx.scoped("w").now

    first, second = await db.write(body), await db.read(body)
    assert first[0] == first[1] and second[0] == second[1]
    assert second[0] > first[0]
    assert first[0] % 1_000_000 == 0


async def test_a_read_sees_one_state_and_nothing_uncommitted(db: Database) -> None:
    await db.write(add("a"))
    inserted, looked, go_on = threading.Event(), threading.Event(), threading.Event()

    def slow_write(tx: Tx) -> None:
        tx.execute(INSERT_ROW, ("b", 0, None))
        inserted.set()
        assert go_on.wait(10)

    def slow_read(tx: Tx) -> tuple[list[str], list[str]]:
        before = names(tx)
        looked.set()
        assert done.wait(10)
        return before, names(tx)

    done = threading.Event()
    seen: list[Any] = []

    async def read() -> None:
        seen.append(await db.read(slow_read))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(db.write, slow_write)
        await anyio.to_thread.run_sync(inserted.wait, 10)
        assert await db.read(names) == ["a"]
        tasks.start_soon(read)
        await anyio.to_thread.run_sync(looked.wait, 10)
        go_on.set()
        await db.write(add("c"))
        assert await db.read(names) == ["a", "b", "c"]
        done.set()
    assert seen == [(["a"], ["a"])]


async def test_a_read_can_neither_write_nor_publish(db: Database) -> None:
    await refused(ErrorCode.INTERNAL, db.read(add("a")), "tried to write")
    await refused(ErrorCode.INTERNAL, db.read(lambda tx: tx.publish(Topic.RUNS)), "nothing to publish")
    assert await db.read(lambda tx: tx.readonly)
    assert not await db.write(lambda tx: tx.readonly)
    assert await db.read(names) == []


async def test_cursors_and_the_transaction_end_with_the_body(db: Database) -> None:
    await db.write(lambda tx: tx.executemany(INSERT_ROW, [("a", 0, None), ("b", 0, None), ("c", 0, None)]))
    # Unread RETURNING rows would make the commit fail, unread SELECT rows would pin the snapshot.
    cursor = await db.write(lambda tx: tx.execute("UPDATE item SET amount = 1 RETURNING id"))
    with pytest.raises(sqlite3.ProgrammingError):
        cursor.fetchone()
    assert await db.write(lambda tx: tx.scalar("UPDATE item SET amount = 2 RETURNING id")) == 1
    assert await db.read(lambda tx: tx.scalar("SELECT sum(amount) FROM item")) == 6
    kept = await db.read(lambda tx: (tx, tx.execute("SELECT * FROM item")))
    with pytest.raises(ManagedError, match="after its end"):
        kept[0].all("SELECT 1")
    await db.write(add("d"))
    await db.checkpoint()
    assert db.path.with_name("x.db-wal").stat().st_size == 0


@pytest.mark.parametrize("sql", ["COMMIT", "  rollback", "BEGIN", "END", "SAVEPOINT x", "RELEASE body"])
async def test_a_body_may_not_control_its_transaction(db: Database, sql: str) -> None:
    def body(tx: Tx) -> None:
        tx.execute(INSERT_ROW, ("a", 0, None))
        tx.execute(sql)

    await refused(ErrorCode.INTERNAL, db.write(body), "may not control")
    assert await db.read(names) == []


async def test_a_coroutine_is_no_body(db: Database) -> None:
    async def body(tx: Tx) -> None:
        tx.execute(INSERT_ROW, ("a", 0, None))

    await refused(ErrorCode.INTERNAL, db.write(body), "plain function")
    await refused(ErrorCode.INTERNAL, db.read(body), "plain function")


# -- errors


@pytest.mark.parametrize(
    ("sql", "constraint"),
    [
        ("INSERT INTO item (name) VALUES ('taken')", "UNIQUE item.name"),
        ("INSERT INTO item (name, amount) VALUES ('x', -1)", "CHECK positive"),
        ("INSERT INTO item (amount) VALUES (1)", "NOT NULL item.name"),
        ("INSERT INTO item (name, parent_id) VALUES ('x', 99)", "FOREIGN KEY"),
        (
            "INSERT INTO item (name, amount) VALUES ('x', 'many')",
            "cannot store TEXT value in INTEGER column item.amount",
        ),
    ],
)
async def test_a_constraint_is_a_conflict_that_a_body_may_survive(db: Database, sql: str, constraint: str) -> None:
    await db.write(add("taken"))
    with pytest.raises(IntegrityFault) as caught:
        await db.write(lambda tx: tx.execute(sql))
    assert caught.value.code is ErrorCode.CONFLICT
    assert caught.value.constraint == constraint
    assert "item" not in caught.value.message

    def survive(tx: Tx) -> str:
        tx.execute(INSERT_ROW, ("before", 0, None))
        try:
            tx.execute(sql)
        except IntegrityFault as fault:
            tx.execute(INSERT_ROW, ("after", 0, None))
            return fault.constraint
        return ""

    assert await db.write(survive) == constraint
    assert await db.read(names) == ["taken", "before", "after"]


async def test_a_fault_of_ours_is_raised_as_it_is(db: Database) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        await db.write(lambda tx: tx.execute("SELECT * FROM nowhere"))
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        await db.read(lambda tx: tx.execute("SELECT * FROM nowhere"))
    with pytest.raises(ZeroDivisionError):
        await db.read(lambda _: 1 / 0)
    assert await db.write(add("a")) == 1


HOLD_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


def hold_lock(path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", HOLD_LOCK, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


async def test_a_lock_held_by_another_process_is_unavailable_and_passes(db: Database) -> None:
    await db.write(add("a"))
    await db._writer.call(lambda sqlite: sqlite.execute("PRAGMA busy_timeout = 50").fetchall())
    other = hold_lock(db.path)
    try:
        assert other.stdout is not None
        assert await anyio.to_thread.run_sync(other.stdout.readline) == b"held\n"
        error = await refused(ErrorCode.UNAVAILABLE, db.write(add("b")), "busy")
        assert error.retry_after_seconds == 1
        assert "locked" not in error.message
        assert await db.read(names) == ["a"]
    finally:
        await anyio.to_thread.run_sync(lambda: other.communicate(timeout=20))
    await db.write(add("b"))
    assert await db.read(names) == ["a", "b"]


# -- bounds


async def test_a_full_queue_is_unavailable(opened: Open) -> None:
    db = await opened(queue_limit=2, readers=1)
    for call, starter in ((db.write, db.write), (db.read, db.read)):
        started, go_on = threading.Event(), threading.Event()

        def hold(_: Tx, started: threading.Event = started, go_on: threading.Event = go_on) -> None:
            started.set()
            assert go_on.wait(10)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(starter, hold)
            await anyio.to_thread.run_sync(started.wait, 10)
            tasks.start_soon(call, lambda _: None)
            tasks.start_soon(call, lambda _: None)
            await anyio.wait_all_tasks_blocked()
            await refused(ErrorCode.UNAVAILABLE, call(lambda _: None), "too much to do")
            go_on.set()
        await call(lambda _: None)


async def test_many_writers_and_readers_at_once_meet_no_error(db: Database) -> None:
    async def client(number: int) -> None:
        for i in range(10):
            await db.write(add(f"{number}/{i}"))
            assert f"{number}/{i}" in await db.read(names)

    async with anyio.create_task_group() as tasks:
        for number in range(64):
            tasks.start_soon(client, number)
    assert len(await db.read(names)) == 640
