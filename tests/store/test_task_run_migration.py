"""Task runs and their states, which were known by ids of the whole store, are known by ids of their workspace, and none is lost."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from managedd.store import migrate

OF_WORKSPACES = 17
RUN = "INSERT INTO flow_runs (id, workspace_id, name, flow_id, created, updated) VALUES (?, ?, 'r', ?, 0, 0)"
TASK = (
    "INSERT INTO task_runs (id, workspace_id, name, flow_run_id, task_key, dynamic_key, state_id, created, updated) "
    "VALUES (?, ?, ?, ?, 't', ?, ?, 0, 0)"
)
STATE = "INSERT INTO task_run_states (id, workspace_id, task_run_id, type, name, timestamp) VALUES (?, ?, ?, 'RUNNING', 'Running', ?)"
KEPT = "SELECT t.workspace_id, t.id, t.name, s.id, s.timestamp FROM task_runs AS t JOIN task_run_states AS s ON s.task_run_id = t.id AND s.workspace_id = t.workspace_id ORDER BY t.rowid, s.rowid"


def test_all_stay_in_their_order_and_another_workspace_may_have_the_same_ids() -> None:
    migrations = migrate.load("managedd.store.migrations.state")
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        migrate.apply(connection, migrations[: OF_WORKSPACES - 1], 0)
        connection.execute("INSERT INTO accounts (id, handle, name, created) VALUES ('a', 'a', 'a', 0)")
        for each in ("v", "w"):
            connection.execute(
                "INSERT INTO workspaces (id, account_id, handle, name, plan, created, updated) VALUES (?, 'a', ?, ?, 'pro', 0, 0)",
                (each, each, each),
            )
            connection.execute(
                "INSERT INTO flows (id, workspace_id, name, created, updated) VALUES (?, ?, 'f', 0, 0)",
                (f"f{each}", each),
            )
            connection.execute(RUN, (f"r{each}", each, f"f{each}"))
        for number in (3, 1, 2):
            connection.execute(TASK, (f"t{number}", "v", f"n{number}", "rv", str(number), f"s{number}"))
            connection.execute(STATE, (f"s{number}", "v", f"t{number}", number))
        migrate.apply(connection, migrations, 0)
        before = connection.execute(KEPT).fetchall()
        assert before == [("v", f"t{number}", f"n{number}", f"s{number}", number) for number in (3, 1, 2)]
        connection.execute(TASK, ("t1", "w", "own", "rw", "1", "s1"))
        connection.execute(STATE, ("s1", "w", "t1", 9))
        assert connection.execute(KEPT).fetchall() == [*before, ("w", "t1", "own", "s1", 9)]
        for again in ((TASK, ("t1", "w", "own", "rw", "9", "s1")), (STATE, ("s1", "w", "t1", 9))):
            with pytest.raises(sqlite3.IntegrityError):
                connection.execute(*again)
        connection.execute("DELETE FROM flow_runs WHERE id = 'rv'")
        assert connection.execute(KEPT).fetchall() == [("w", "t1", "own", "s1", 9)]
        assert connection.execute("SELECT count(*) FROM task_run_states").fetchone() == (1,)
