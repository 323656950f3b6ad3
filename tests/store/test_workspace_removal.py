"""A deleted workspace: every row of it goes, in steps that a crash may come between, and none of anybody else's."""

from __future__ import annotations

import re
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import pytest

from managedd import ids
from managedd.bus import Topic
from managedd.errors import ErrorCode, ManagedError
from managedd.model.executions import EndCause, Phase
from managedd.store import executions, keys, workspace_removal, workspaces
from managedd.store.workspace_removal import LINGER_US
from tests.store.test_query_plans import plan
from tests.support.sync_store import SyncStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from managedd.store.transaction import Tx

PER_TABLE: Final = 3
FIXED: Final = {
    ("keys", "role"): "admin",
    ("keys", "revoked"): None,
    ("executions", "phase"): "FINALIZED",
    ("flow_runs", "state_type"): "COMPLETED",
    ("task_runs", "state_type"): "COMPLETED",
}
"""What a rule of the schema demands."""


@pytest.fixture
def store() -> Iterator[SyncStore]:
    with closing(SyncStore()) as store:
        yield store


def owned_tables(tx: Tx) -> list[str]:
    """Every table whose rows belong to a workspace; whoever adds one is found here."""
    names = [
        row[0] for row in tx.all("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    ]
    return [
        name for name in names if name != "audit" and any(row["name"] == "workspace_id" for row in columns(tx, name))
    ]


def columns(tx: Tx, table: str) -> list[Any]:
    return tx.all("SELECT * FROM pragma_table_info(?)", (table,))


def make(tx: Tx, handle: str) -> str:
    return workspaces.make(tx, account="acme", handle=handle, plan="pro").id


def fill(tx: Tx, workspace_id: str) -> None:
    """There are rows of the workspace in every table, each referring to others of it."""
    made: dict[str, list[dict[str, Any]]] = {"workspaces": [{"id": workspace_id}] * PER_TABLE}
    waiting = owned_tables(tx)
    while waiting:
        for table in list(waiting):
            parents = {
                row["from"]: (row["table"], row["to"] or "id")
                for row in tx.all("SELECT * FROM pragma_foreign_key_list(?)", (table,))
            }
            if {parent for parent, _ in parents.values()} <= made.keys() | {table}:
                made[table] = [_row(tx, table, parents, made, at) for at in range(PER_TABLE)]
                waiting.remove(table)


def _row(
    tx: Tx, table: str, parents: dict[str, tuple[str, str]], made: dict[str, list[dict[str, Any]]], at: int
) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for column in columns(tx, table):
        name, kind = column["name"], column["type"]
        if name == "workspace_id":
            row[name] = made["workspaces"][0]["id"]
        elif name in parents:
            parent, key = parents[name]
            row[name] = made[parent][at][key]
        elif (table, name) in FIXED:
            row[name] = FIXED[table, name]
        elif column["pk"] and kind == "INTEGER":
            continue
        elif kind == "TEXT":
            row[name] = (
                f"{at}"
                if name == "month"
                else ids.new_id()
                if column["pk"] or name.endswith("id")
                else f'["{ids.new_id()}"]'
            )
        else:
            row[name] = {"INTEGER": at, "REAL": 1.0, "BLOB": b""}[kind]
    names, marks = ", ".join(f'"{name}"' for name in row), ", ".join("?" * len(row))
    tx.execute(f"INSERT OR REPLACE INTO {table} ({names}) VALUES ({marks})", tuple(row.values()))
    return row


def contents(tx: Tx, workspace_id: str) -> dict[str, list[tuple[Any, ...]]]:
    """What there is of the workspace, by table."""
    found = {
        table: sorted(tuple(row) for row in tx.all(f"SELECT * FROM {table} WHERE workspace_id = ?", (workspace_id,)))
        for table in owned_tables(tx)
        if table != "changes"
    }
    return {table: rows for table, rows in found.items() if rows}


def removed(store: SyncStore, workspace_id: str) -> int:
    """Steps until nothing was left to do."""
    steps = 1
    while store.write(lambda tx: workspace_removal.step(tx, workspace_id)):
        steps += 1
    return steps


def test_every_row_of_it_goes_and_none_of_another(store: SyncStore) -> None:
    mine, others = store.write(lambda tx: (make(tx, "mine"), make(tx, "others")))
    for workspace_id in (mine, others):
        store.write(lambda tx, workspace_id=workspace_id: fill(tx, workspace_id))  # type: ignore[misc]
    tables = set(store.read(owned_tables)) - {"changes"}
    before = store.read(lambda tx: contents(tx, others))
    assert set(before) == tables, "the test makes no rows for a table"
    assert set(store.read(lambda tx: contents(tx, mine))) == tables
    store.write(lambda tx: workspace_removal.begin(tx, mine, force=False))
    assert removed(store, mine) > 1
    assert store.read(lambda tx: contents(tx, mine)) == {}
    assert store.read(lambda tx: contents(tx, others)) == before
    assert store.read(lambda tx: tx.all("PRAGMA foreign_key_check")) == []


def test_no_step_of_it_looks_through_what_others_have(store: SyncStore) -> None:
    """Also not for what refers to a row that goes: it would hold up everybody's changes for as long as the others have rows."""
    mine = store.write(lambda tx: make(tx, "mine"))
    store.write(lambda tx: fill(tx, mine))
    found = plan(store, lambda tx: workspace_removal.begin(tx, mine, force=True))
    more = [True]
    while more.pop():
        found += "\n" + plan(store, lambda tx: more.append(workspace_removal.step(tx, mine)))
    assert store.read(lambda tx: contents(tx, mine)) == {}
    assert "SEARCH flow_run_inputs USING COVERING INDEX flow_run_inputs_workspace (workspace_id=?)" in found
    assert re.findall(r"^SCAN (?!\(subquery|json_each|CONSTANT ROW).*", found, re.MULTILINE) == []


def test_it_opens_nothing_from_the_first_moment_and_its_handle_is_free(store: SyncStore) -> None:
    mine = store.write(lambda tx: make(tx, "mine"))
    secret = store.write(
        lambda tx: keys.create(tx, workspace_id=mine, name="k", role=keys.Role.ADMIN, key_hash="h", hint="k")
    )
    assert store.read(lambda tx: keys.holder(tx, "h")) is not None
    store.topics.clear()
    store.write(lambda tx: workspace_removal.begin(tx, mine, force=False))
    assert {Topic.KEYS, Topic.SLOTS} <= set(store.topics)
    assert store.read(lambda tx: keys.holder(tx, "h")) is None
    assert store.read(lambda tx: keys.living_among(tx, [secret.id])) == set()
    assert store.read(lambda tx: workspaces.get(tx, mine)) is None
    assert store.read(lambda tx: workspaces.existing(tx, [mine])) == set()
    assert store.read(workspaces.every) == []
    with pytest.raises(ManagedError) as refused:
        store.write(lambda tx: workspace_removal.begin(tx, mine, force=True))
    assert refused.value.code is ErrorCode.NOT_FOUND
    assert store.write(lambda tx: make(tx, "mine")) != mine


def test_the_default_one_stays(store: SyncStore) -> None:
    store.write(lambda tx: workspaces.ensure_default(tx, plan="pro"))
    with pytest.raises(ManagedError, match="can't be deleted"):
        store.write(lambda tx: workspace_removal.begin(tx, ids.DEFAULT_WORKSPACE_ID, force=True))


def test_while_runs_are_under_way_it_is_refused_with_their_number_and_by_force_they_are_stopped_first(
    store: SyncStore,
) -> None:
    mine = store.write(lambda tx: make(tx, "mine"))
    store.write(lambda tx: fill(tx, mine))
    run = store.read(lambda tx: tx.scalar("SELECT id FROM flow_runs"))
    store.write(lambda tx: tx.execute("UPDATE flow_runs SET state_type = 'RUNNING' WHERE id = ?", (run,)).close())
    made = store.write(lambda tx: executions.insert(tx, flow_run_id=run, work_pool_id=None, driver="fake"), mine)
    with pytest.raises(ManagedError, match="1 run is under way in acme/mine") as refused:
        store.write(lambda tx: workspace_removal.begin(tx, mine, force=False))
    assert refused.value.code is ErrorCode.CONFLICT
    store.write(lambda tx: workspace_removal.begin(tx, mine, force=True))
    removed(store, mine)
    asked = store.read(lambda tx: executions.get(tx, made.id))
    assert asked is not None
    assert (asked.stop_reason, asked.phase) == (EndCause.CANCEL, Phase.CLAIMED)
    # What stops it finds its run, its pool and its queue; they go once it has ended.
    assert store.read(lambda tx: tx.all("SELECT id FROM flow_runs"))[0][0] == run
    assert store.read(lambda tx: tx.scalar("SELECT count(*) FROM work_pools")) == PER_TABLE
    assert store.read(lambda tx: tx.scalar("SELECT min(is_paused) FROM work_pools")) == 1
    store.write(lambda tx: executions.advance(tx, made.id, (Phase.CLAIMED,), Phase.EXITED))
    store.write(lambda tx: executions.advance(tx, made.id, (Phase.EXITED,), Phase.FINALIZED))
    removed(store, mine)
    assert store.read(lambda tx: contents(tx, mine)) == {}


def test_what_comes_late_goes_too_and_the_last_row_stays_for_an_hour(store: SyncStore) -> None:
    mine = store.write(lambda tx: make(tx, "mine"))
    store.write(lambda tx: workspace_removal.begin(tx, mine, force=False))
    removed(store, mine)
    store.write(lambda tx: fill(tx, mine))
    assert store.read(workspace_removal.begun) == [mine]
    removed(store, mine)
    assert store.read(lambda tx: contents(tx, mine)) == {}
    assert store.read(workspace_removal.begun) == [mine]
    store.write(lambda tx: tx.execute("UPDATE workspaces SET removed = removed - ?", (LINGER_US,)).close())
    removed(store, mine)
    assert store.read(workspace_removal.begun) == []
    assert store.read(lambda tx: tx.scalar("SELECT count(*) FROM accounts")) == 0
