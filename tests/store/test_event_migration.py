"""What events involve, as it was kept for all workspaces together, is kept for each, and found by it as before."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from managedd import ids
from managedd.store import events, migrate
from managedd.wire.filters.events import EventFilter
from tests.support.sync_store import OTHER_WORKSPACE, SyncStore

OWN_RESOURCES = 21
BOTH = (ids.DEFAULT_WORKSPACE_ID, OTHER_WORKSPACE)


@pytest.mark.parametrize("workspaces", [BOTH[:1], BOTH])
def test_what_an_event_involves_is_found_in_its_own_workspace(workspaces: tuple[str, ...]) -> None:
    migrations = migrate.load("managedd.store.migrations.state")
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as old:
        old.row_factory = sqlite3.Row
        old.execute("PRAGMA foreign_keys = ON")
        migrate.apply(old, migrations[: OWN_RESOURCES - 1], 0)
        old.execute("INSERT INTO accounts VALUES (?, 'a', 'a', 0)", (ids.DEFAULT_ACCOUNT_ID,))
        for handle, workspace in enumerate(workspaces):
            old.execute(
                "INSERT INTO workspaces (id, account_id, handle, name, plan, created, updated) VALUES (?, ?, ?, 'w', 'pro', 0, 0)",
                (workspace, ids.DEFAULT_ACCOUNT_ID, str(handle)),
            )
        known: dict[str, list[str]] = {workspace: [] for workspace in workspaces}
        for number in range(20):
            workspace, id_ = workspaces[number % len(workspaces)], ids.new_id()
            known[workspace].append(id_)
            position = old.execute(
                "INSERT INTO events (id, workspace_id, occurred, received, event, resource_id, resource, related, indexed) "
                "VALUES (?, ?, ?, ?, 'e', 'r.1', '{}', '[]', 1) RETURNING position",
                (id_, workspace, number, number),
            ).fetchone()[0]
            rows = [("r.1", position, ""), ("r.2", position, "tag"), ("r.2", position, "flow")]
            old.executemany("INSERT INTO event_related VALUES (?, ?, ?)", rows)
        migrate.apply(old, migrations, 0)
        store = SyncStore.over(old)
        span = {"occurred": {"since": "1970-01-01T00:00:00Z", "until": "1970-01-02T00:00:00Z"}, "order": "ASC"}
        for asked in ({"any_resource": {"id": ["r.1"]}}, {"related": {"resources_in_roles": [["r.2", "flow"]]}}):
            filter_ = EventFilter.model_validate({**span, **asked})
            for workspace in workspaces:
                found = store.read(lambda tx, filter_=filter_: events.find(tx, filter_, limit=50), workspace)  # type: ignore[misc]
                assert [each["id"] for each in found.events] == known[workspace]
        # What an event involved goes with it.
        assert store.write(lambda tx: events.delete_received_before(tx, 5, 50)) == 5
        assert store.read(lambda tx: tx.scalar("SELECT count(*) FROM event_related")) == 45
