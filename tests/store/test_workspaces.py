"""Accounts and workspaces."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from managedd import ids
from managedd.errors import ErrorCode
from managedd.store import rows, workspaces
from managedd.store.resources import FLOW
from managedd.store.transaction import IntegrityFault
from tests.support.sync_store import OTHER_WORKSPACE, SyncStore, with_workspaces

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def store() -> Iterator[SyncStore]:
    with closing(SyncStore()) as store:
        yield store


def create(store: SyncStore, *, account: str, handle: str, account_id: str | None = None) -> str:
    workspace_id = ids.new_id()
    store.write(
        lambda tx: workspaces.create(
            tx,
            account_id=account_id or ids.new_id(),
            account=account,
            workspace_id=workspace_id,
            handle=handle,
            plan="free",
        )
    )
    return workspace_id


def test_the_default_one_is_made_once_and_follows_its_plan(store: SyncStore) -> None:
    store.write(lambda tx: workspaces.ensure_default(tx, plan="free"))
    store.write(lambda tx: workspaces.ensure_default(tx, plan="pro"))
    (found,) = store.read(workspaces.every)
    assert (found.id, found.account_id) == (ids.DEFAULT_WORKSPACE_ID, ids.DEFAULT_ACCOUNT_ID)
    assert (found.account, found.handle, found.name, found.plan) == ("default", "default", "default", "pro")


def test_one_account_may_have_several_with_handles_of_their_own(store: SyncStore) -> None:
    account = ids.new_id()
    create(store, account="b", handle="y", account_id=account)
    create(store, account="b", handle="x", account_id=account)
    create(store, account="a", handle="x")
    assert [(each.account, each.handle) for each in store.read(workspaces.every)] == [
        ("a", "x"),
        ("b", "x"),
        ("b", "y"),
    ]


@pytest.mark.parametrize("same_account", [True, False])
def test_a_handle_that_is_taken_leaves_nothing_behind(store: SyncStore, same_account: bool) -> None:
    """The same handle within an account, or an account's handle under another id."""
    account = ids.new_id()
    create(store, account="a", handle="x", account_id=account)
    with pytest.raises(IntegrityFault) as caught:
        create(store, account="a", handle="x", account_id=account if same_account else ids.new_id())
    assert caught.value.code is ErrorCode.CONFLICT
    assert len(store.read(workspaces.every)) == 1
    assert store.read(lambda tx: tx.scalar("SELECT count(*) FROM accounts")) == 1


def test_they_are_found_by_id_and_by_a_plan_that_is_no_more(store: SyncStore) -> None:
    made = create(store, account="a", handle="x")
    found = store.read(lambda tx: workspaces.get(tx, made))
    assert found is not None
    assert found.id == made
    assert store.read(lambda tx: workspaces.get(tx, ids.new_id())) is None
    assert store.read(lambda tx: workspaces.on_other_plans(tx, ["free", "pro"])) == []
    assert store.read(lambda tx: workspaces.on_other_plans(tx, ["pro"])) == [found]


def test_rows_of_another_workspace_are_not_there(store: SyncStore) -> None:
    """Whatever is asked generically sees one workspace."""
    with_workspaces(store)
    flow = store.write(lambda tx: rows.insert(tx, FLOW, {"name": "f"}))
    same_name = store.write(lambda tx: rows.insert(tx, FLOW, {"name": "f"}), OTHER_WORKSPACE)
    assert same_name != flow
    assert store.read(lambda tx: rows.by(tx, FLOW, id=flow), OTHER_WORKSPACE) is None
    assert store.read(lambda tx: rows.record(tx, FLOW, name="f", id=flow), OTHER_WORKSPACE) is None
    assert store.read(lambda tx: rows.count(tx, FLOW, []), OTHER_WORKSPACE) == 1
    found = store.read(lambda tx: rows.find(tx, FLOW, [], "NAME_ASC"), OTHER_WORKSPACE)
    assert [each["id"] for each in found] == [same_name]
    for change in (
        lambda tx: rows.patch(tx, FLOW, flow, {"name": "mine"}),
        lambda tx: rows.delete(tx, FLOW, flow),
        lambda tx: rows.get(tx, FLOW, flow),
        lambda tx: rows.need(tx, FLOW, id=flow),
    ):
        with pytest.raises(Exception, match="not found") as caught:
            store.write(change, OTHER_WORKSPACE)
        assert getattr(caught.value, "code", None) is ErrorCode.NOT_FOUND
    assert store.read(lambda tx: rows.get(tx, FLOW, flow))["name"] == "f"
