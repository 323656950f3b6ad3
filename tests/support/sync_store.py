"""The store's transactions over an in-memory database, without an event loop: for tests that run many of them."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, Self, TypeVar

from managedd import ids
from managedd.clock import SystemClock
from managedd.store import migrate
from managedd.store.cipher import Key, KeyRing, Vault
from managedd.store.transaction import Job, Tx, commit_group, read_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
OTHER_WORKSPACE = "00000000-0000-4000-8000-000000000002"


class SyncStore:
    """One database, migrated; bodies run at once, each in its own transaction."""

    def __init__(self, migrations: str = "managedd.store.migrations.state") -> None:
        self.topics: list[Any] = []
        self.vault = Vault(KeyRing(Key.new()))
        self._clock = SystemClock()
        self._sqlite = sqlite3.connect(":memory:", isolation_level=None)
        self._sqlite.row_factory = sqlite3.Row
        self._sqlite.execute("PRAGMA foreign_keys = ON")
        migrate.apply(self._sqlite, migrate.load(migrations), self._clock.now_us())

    @classmethod
    def over(cls, sqlite: sqlite3.Connection) -> Self:
        """The same over a database that is there; its owner closes it."""
        made = cls.__new__(cls)
        made.topics, made._clock, made._sqlite = [], SystemClock(), sqlite
        made.vault = Vault(KeyRing(Key.new()))
        return made

    def write(self, fn: Callable[[Tx], T], workspace: str = ids.DEFAULT_WORKSPACE_ID) -> T:
        """What `fn` returned, committed."""
        job: Job[T] = Job(fn, workspace)
        commit_group(self._sqlite, [job], self._clock, 1.0, self.vault)
        outcome = job.outcome()
        self.topics.extend(job.topics)
        return outcome

    def read(self, fn: Callable[[Tx], T], workspace: str = ids.DEFAULT_WORKSPACE_ID) -> T:
        """What `fn` returned."""
        return read_snapshot(self._sqlite, fn, workspace, self._clock, self.vault)  # type: ignore[no-any-return]

    def plan(self, sql: str, params: Any = ()) -> str:
        """How SQLite would answer the query."""
        return "\n".join(row[3] for row in self._sqlite.execute(f"EXPLAIN QUERY PLAN {sql}", params))

    def steps(self, fn: Callable[[Tx], object]) -> int:
        """How many instructions SQLite's machine takes to answer what `fn` asks."""
        taken = 0

        def one_more() -> None:
            nonlocal taken
            taken += 1

        self._sqlite.set_progress_handler(one_more, 1)
        try:
            self.read(fn)
        finally:
            self._sqlite.set_progress_handler(None, 1)
        return taken

    def close(self) -> None:
        self._sqlite.close()


def with_workspaces(store: SyncStore) -> SyncStore:
    """The default workspace, and `OTHER_WORKSPACE` of the same account, are there."""

    def fill(tx: Tx) -> None:
        tx.execute("INSERT INTO accounts VALUES (?, 'a', 'a', 0)", (ids.DEFAULT_ACCOUNT_ID,))
        for workspace, handle in ((ids.DEFAULT_WORKSPACE_ID, "w"), (OTHER_WORKSPACE, "o")):
            tx.execute(
                "INSERT INTO workspaces (id, account_id, handle, name, plan, created, updated) VALUES (?, ?, ?, ?, 'pro', 0, 0)",
                (workspace, ids.DEFAULT_ACCOUNT_ID, handle, handle),
            )

    store.write(fill)
    return store


def add_flow_run(store: SyncStore, *, workspace: str = ids.DEFAULT_WORKSPACE_ID, parent: str | None = None) -> str:
    """The id of a new flow run, of a flow of its own; `parent` is its task run."""

    def add(tx: Tx) -> str:
        flow, run = ids.new_id(), ids.new_id()
        tx.execute(
            "INSERT INTO flows (id, workspace_id, name, created, updated) VALUES (?, ?, ?, 0, 0)",
            (flow, workspace, flow),
        )
        tx.execute(
            "INSERT INTO flow_runs (id, workspace_id, name, flow_id, parent_task_run_id, created, updated) "
            "VALUES (?, ?, 'brave-otter', ?, ?, 0, 0)",
            (run, workspace, flow, parent),
        )
        return run

    return store.write(add, workspace)


def add_task_run(store: SyncStore, flow_run_id: str | None, *, workspace: str = ids.DEFAULT_WORKSPACE_ID) -> str:
    """The id of a new task run."""

    def add(tx: Tx) -> str:
        task_run = ids.new_id()
        tx.execute(
            "INSERT INTO task_runs (id, workspace_id, name, flow_run_id, task_key, dynamic_key, created, updated) "
            "VALUES (?, ?, 't', ?, 'k', ?, 0, 0)",
            (task_run, workspace, flow_run_id, task_run),
        )
        return task_run

    return store.write(add, workspace)
