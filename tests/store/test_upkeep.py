"""Checkpoint, integrity, backup; opening and closing, and a process that forgets to close."""

from __future__ import annotations

import sqlite3
import stat
import sys
import threading
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import anyio
import pytest

from managedd.bus import Bus
from managedd.errors import ErrorCode
from managedd.store import database
from managedd.store.database import Database, Tx
from tests.store.bodies import INSERT_ROW, add, names, pragma, refused

if TYPE_CHECKING:
    from pathlib import Path

    from tests.store.conftest import Open

pytestmark = pytest.mark.anyio

# -- upkeep


async def test_a_checkpoint_gives_space_back(db: Database) -> None:
    await db.write(lambda tx: tx.executemany(INSERT_ROW, ((f"{i}-{'x' * 1000}", 0, None) for i in range(1500))))
    full = await db.size_bytes()
    await db.write(lambda tx: tx.execute("DELETE FROM item"))
    await db.checkpoint()
    assert db.path.with_name("x.db-wal").stat().st_size == 0
    assert full > 4_000_000
    assert await db.size_bytes() < full / 10


async def test_shrinking_gives_space_back_in_steps_and_leaves_a_tenth(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_SHRINK_PAGES", 50)
    await db.write(lambda tx: tx.executemany(INSERT_ROW, ((f"{i}-{'x' * 1000}", i, None) for i in range(1500))))
    await db.write(lambda tx: tx.execute("DELETE FROM item WHERE amount < 1200"))
    left = [await pages(db)]
    while await db.shrink():
        left.append(await pages(db))
    left.append(await pages(db))
    freed = [before[0] - after[0] for before, after in pairwise(left[:-1])]
    # With a page now and then that says whose the others are.
    assert len(freed) > 4 and min(freed) >= 50 and max(freed) < 55
    assert 0 < left[-1][1] <= left[-1][0] / 10 + 1
    assert not await db.shrink()
    assert await db.integrity() == []


async def test_a_file_that_can_give_nothing_back_is_left_as_it_is(opened: Open, tmp_path: Path) -> None:
    made = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    made.execute("CREATE TABLE other (x TEXT)")
    made.close()
    db = await opened()
    await db.write(lambda tx: tx.executemany(INSERT_ROW, ((f"{i}-{'x' * 1000}", i, None) for i in range(500))))
    await db.write(lambda tx: tx.execute("DELETE FROM item"))
    before = await pages(db)
    assert before[1] > before[0] / 2
    assert not await db.shrink()
    assert await pages(db) == before


async def pages(db: Database) -> tuple[int, int]:
    """How many the file has, and how many of them are free."""
    return await db.read(lambda tx: (tx.scalar("PRAGMA page_count"), tx.scalar("PRAGMA freelist_count")))


async def test_a_checkpoint_does_not_wait_for_a_slow_reader(db: Database) -> None:
    started, go_on = threading.Event(), threading.Event()

    def slow(tx: Tx) -> None:
        tx.all("SELECT * FROM item")
        started.set()
        assert go_on.wait(10)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(db.read, slow)
        await anyio.to_thread.run_sync(started.wait, 10)
        await db.write(add("a"))
        before = time.monotonic()
        await db.checkpoint()
        assert time.monotonic() - before < 3
        go_on.set()
    assert [await reader.call(pragma("busy_timeout")) for reader in db._readers] == [5000] * 3


async def test_integrity_names_what_is_wrong(db: Database) -> None:
    assert await db.integrity() == []
    other = sqlite3.connect(db.path, isolation_level=None)
    other.execute("INSERT INTO item (id, name, parent_id) VALUES (7, 'a', 99)")
    other.close()
    assert await db.integrity() == ["row 7 of item refers to a missing row of parent"]


def files(folder: Path, pattern: str) -> list[str]:
    return sorted(path.name for path in folder.glob(pattern))


async def test_a_backup_is_one_complete_file(db: Database, opened: Open, tmp_path: Path) -> None:
    await db.write(lambda tx: tx.executemany(INSERT_ROW, ((f"{i}-{'x' * 500}", i, None) for i in range(3000))))
    async with anyio.create_task_group() as tasks:
        for i in range(20):
            tasks.start_soon(db.write, add(f"late {i}"))
        await db.backup(tmp_path / "copy.db")
    assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600
    assert files(tmp_path, "copy*") == ["copy.db"]
    copy = await opened("copy.db")
    assert await copy.integrity() == []
    assert await copy.read(lambda tx: tx.scalar("SELECT sum(amount) FROM item WHERE name NOT LIKE 'late%'")) == sum(
        range(3000)
    )
    content = (tmp_path / "x.db").read_bytes()
    await refused(ErrorCode.CONFLICT, db.backup(tmp_path / "x.db"), "exists already")
    assert (tmp_path / "x.db").read_bytes() == content
    await refused(ErrorCode.UNAVAILABLE, db.backup(tmp_path / "nowhere" / "copy.db"), "can't be written")
    assert files(tmp_path, "*.partial") == []


# -- opening and closing


async def test_a_database_keeps_what_it_held(opened: Open) -> None:
    first = await opened()
    await first.write(add("a"))
    await first.close()
    assert not first.path.with_name("x.db-wal").exists()
    assert await (await opened()).read(names) == ["a"]


async def test_a_closed_database_is_unavailable(db: Database) -> None:
    await db.close()
    await db.close()
    await refused(ErrorCode.UNAVAILABLE, db.read(names), "closed")
    await refused(ErrorCode.UNAVAILABLE, db.write(add("a")), "closed")
    await refused(ErrorCode.UNAVAILABLE, db.checkpoint(), "closed")


async def test_closing_waits_for_what_is_queued_and_ends_every_thread(opened: Open) -> None:
    others = set(threading.enumerate())
    db = await opened(readers=2, batch_limit=1)
    threads = set(threading.enumerate()) - others
    assert len(threads) == 3
    async with anyio.create_task_group() as tasks:
        for i in range(5):
            tasks.start_soon(db.write, add(f"{i}"))
            tasks.start_soon(db.read, names)
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        tasks.start_soon(db.close)
        tasks.start_soon(db.close)
    for thread in threads:
        thread.join(5)
    assert not any(thread.is_alive() for thread in threads)
    check = sqlite3.connect(db.path)
    assert check.execute("SELECT count(*) FROM item").fetchone()[0] == 5
    check.close()


async def test_closing_ends_also_in_a_cancelled_scope(opened: Open) -> None:
    db = await opened()
    threads = [connection._raw._thread for connection in [db._writer, *db._readers]]
    with anyio.CancelScope() as scope:
        scope.cancel()
        await db.close()
    for thread in threads:
        thread.join(5)
    assert not any(thread.is_alive() for thread in threads)


async def test_what_can_not_be_opened_is_a_matter_of_configuration(
    tmp_path: Path, migrations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(threading.enumerate())

    async def opening(path: Path) -> Database:
        return await Database.open(path, bus=Bus(), migrations=migrations)

    await refused(ErrorCode.CONFIG, opening(tmp_path / "nowhere" / "x.db"), "can't be created")
    (tmp_path / "folder.db").mkdir()
    await refused(ErrorCode.CONFIG, opening(tmp_path / "folder.db"), "can't be opened")
    (tmp_path / "text.db").write_text("this is no database, however long it is " * 100)
    await refused(ErrorCode.CONFIG, opening(tmp_path / "text.db"), "not a SQLite database")
    (migrations / "0002_bad.sql").write_text("INSERT INTO nowhere VALUES (1);")
    await refused(ErrorCode.CONFIG, opening(tmp_path / "x.db"), "0002_bad failed")
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
    await refused(ErrorCode.CONFIG, opening(tmp_path / "y.db"), r"SQLite 3\.37 or newer")
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
    assert set(threading.enumerate()) <= before


FORGETFUL = """
import asyncio, sys, time
from pathlib import Path
from managedd.bus import Bus
from managedd.store.database import Database

async def main():
    database = await Database.open(Path(sys.argv[1]), bus=Bus(), migrations=Path(sys.argv[2]))
    await database.write(lambda tx: tx.execute("INSERT INTO parent VALUES (1)"))
    if sys.argv[3] == "busy":
        # The body still runs when the loop is gone.
        asyncio.ensure_future(database.write(lambda tx: time.sleep(2)))
        await asyncio.sleep(0.2)
    return database

kept = asyncio.run(main()) if sys.argv[3] != "dropped" else None
if sys.argv[3] == "dropped":
    asyncio.run(main())
print("end", flush=True)
"""


@pytest.mark.parametrize("how", ["kept", "dropped", "busy"])
async def test_an_unclosed_database_does_not_keep_the_process(tmp_path: Path, migrations: Path, how: str) -> None:
    command = [sys.executable, "-c", FORGETFUL, str(tmp_path / "x.db"), str(migrations), how]
    with anyio.fail_after(30):
        process = await anyio.run_process(command, check=False)
    assert process.returncode == 0, process.stderr.decode()
    assert process.stdout == b"end\n"
    assert process.stderr == b""
