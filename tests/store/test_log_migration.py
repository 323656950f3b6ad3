"""A log store of before keys becomes one with keys: every line keeps its id and what it names."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from managedd import ids
from managedd.model.logs import LogRecord
from managedd.store import log_pages, log_sizes, logs, migrate
from managedd.wire.filters.logs import LogFilter
from managedd.wire.sorting import LogSort
from tests.support.sync_store import OTHER_WORKSPACE, SyncStore

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = ids.DEFAULT_WORKSPACE_ID
RUN, RUN_2, SILENT, TASK = (ids.new_id() for _ in range(4))
OLD = [
    # id, workspace, flow run, task run, name, level, timestamp, message
    (3, HERE, RUN, None, "a", 20, 30, "first"),
    (5, HERE, RUN, TASK, "b", 40, 10, "of a task"),
    (6, OTHER_WORKSPACE, RUN, TASK, "c", 20, 20, "of another workspace"),
    (7, HERE, None, None, "d", 20, 40, "of no run"),
    (8, HERE, RUN_2, None, "e", 20, 50, "of another run"),
]


@pytest.fixture
def store() -> Iterator[SyncStore]:
    """A store that was made by the migrations of before, and had a newer line that is gone."""
    known = migrate.load("managedd.store.migrations.logs")
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as old:
        old.row_factory = sqlite3.Row
        migrate.apply(old, known[:2], 0)
        old.executemany(
            "INSERT INTO logs (id, workspace_id, flow_run_id, task_run_id, name, level, timestamp, message) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [*OLD, (12, HERE, RUN, None, "gone", 20, 60, "gone")],
        )
        old.execute("DELETE FROM logs WHERE id = 12")
        old.executemany("INSERT INTO log_sizes VALUES (?, ?)", [(RUN, 500), (SILENT, 7)])
        old.execute("INSERT INTO log_cursors VALUES ('execution', 5, 1, 2, 30)")
        migrate.apply(old, known, 0)
        yield SyncStore.over(old)


def messages(store: SyncStore, workspace: str = HERE, **given: object) -> list[str]:
    filter_ = LogFilter.model_validate(given)
    return [
        row["message"] for row in store.read(lambda tx: logs.find(tx, filter_, LogSort.TIMESTAMP_ASC, 9, 0), workspace)
    ]


def test_every_line_keeps_its_id_and_what_it_names(store: SyncStore) -> None:
    sql = (
        "SELECT id, workspace_id, flow_run_id, task_run_id, name, level, timestamp, message FROM log_lines ORDER BY id"
    )
    assert [tuple(row) for row in store.read(lambda tx: tx.all(sql))] == OLD
    assert messages(store) == ["of a task", "first", "of no run", "of another run"]
    assert messages(store, OTHER_WORKSPACE) == ["of another workspace"]
    assert messages(store, task_run_id={"any_": [TASK]}) == ["of a task"]
    assert store.read(lambda tx: log_pages.page_after(tx, RUN, 3)).batches[0].keys == [5]


def test_an_id_that_was_used_is_not_used_again(store: SyncStore) -> None:
    new = LogRecord(name="n", level=20, message="new", timestamp_us=1, flow_run_id=RUN)
    store.write(lambda tx: logs.append(tx, [new]))
    assert store.read(log_pages.head) == 13


def test_an_empty_store_begins_where_its_ids_ended() -> None:
    known = migrate.load("managedd.store.migrations.logs")
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as old:
        old.row_factory = sqlite3.Row
        migrate.apply(old, known[:2], 0)
        old.execute("INSERT INTO logs VALUES (41, 'w', 'r', NULL, 'n', 20, 1, 'm', NULL)")
        old.execute("DELETE FROM logs")
        migrate.apply(old, known, 0)
        store = SyncStore.over(old)
        store.write(lambda tx: logs.append(tx, [LogRecord("n", 20, "m", 1, RUN)]))
        assert store.read(log_pages.head) == 42


def test_sizes_and_cursors_are_kept(store: SyncStore) -> None:
    assert [store.read(lambda tx, run=run: log_sizes.size(tx, run)) for run in (RUN, RUN_2, SILENT)] == [500, 0, 7]
    assert store.read(lambda tx: log_sizes.untold(tx, "execution").lines) == 2


def test_what_sqlite_is_told_of_the_tables_are_the_new_ones(store: SyncStore) -> None:
    told = store.read(lambda tx: {tuple(row) for row in tx.all("SELECT tbl, idx FROM sqlite_stat1")})
    there = store.read(
        lambda tx: {tuple(row) for row in tx.all("SELECT tbl_name, name FROM sqlite_schema WHERE type = 'index'")}
    )
    assert {name for _, name in told} >= {"logs_flow_run", "logs_run_order", "logs_task_run", "logs_workspace"}
    assert told <= there
