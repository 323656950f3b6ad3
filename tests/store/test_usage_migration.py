"""The ledger of compute time, as it was kept by month, is kept by day without a minute lost or doubled."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from managedd.store import migrate

BY_DAY = 9
ADDED = "INSERT INTO usage (execution_id, month, day, workspace_id, minutes, flow_run_id, owner) VALUES (?, ?, ?, 'w', ?, 'r', 'etl')"


def sums(connection: sqlite3.Connection) -> list[tuple[str, int]]:
    return connection.execute("SELECT month, minutes FROM usage_months ORDER BY 1").fetchall()


def test_what_was_charged_stays_and_goes_on() -> None:
    migrations = migrate.load("managedd.store.migrations.state")
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        migrate.apply(connection, migrations[: BY_DAY - 1], 0)
        connection.execute("INSERT INTO accounts (id, handle, name, created) VALUES ('a', 'a', 'a', 0)")
        connection.execute(
            "INSERT INTO workspaces (id, account_id, handle, name, plan, created, updated) VALUES ('w', 'a', 'w', 'w', 'pro', 0, 0)"
        )
        old = [("x", "2026-10", "2026-10-31", 5), ("x", "2026-11", "2026-11-01", 70), ("y", "2026-11", "2026-11-02", 1)]
        connection.executemany(ADDED, old)
        before = sums(connection)
        assert before == [("2026-10", 5), ("2026-11", 71)]
        migrate.apply(connection, migrations, 0)
        assert sums(connection) == before
        kept = connection.execute("SELECT execution_id, month, day, minutes FROM usage ORDER BY 1, 3").fetchall()
        assert kept == old
        # Two days of one month, which one entry for each month had no room for.
        connection.executemany(ADDED, [("z", "2026-11", "2026-11-03", 10), ("z", "2026-11", "2026-11-04", 20)])
        assert sums(connection) == [("2026-10", 5), ("2026-11", 101)]
