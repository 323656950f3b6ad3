"""Keys in the store: whose they are, and until when."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from managedd import ids
from managedd.errors import ErrorCode, ManagedError
from managedd.model.access import Role
from managedd.store import keys
from tests.support.clock import ManualClock
from tests.support.sync_store import OTHER_WORKSPACE, SyncStore, with_workspaces

if TYPE_CHECKING:
    from collections.abc import Iterator

HOUR_US = 3_600_000_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> Iterator[SyncStore]:
    with closing(SyncStore()) as store:
        store._clock = clock  # type: ignore[assignment]
        yield with_workspaces(store)


def made(
    store: SyncStore,
    name: str = "laptop",
    *,
    workspace: str = ids.DEFAULT_WORKSPACE_ID,
    role: Role = Role.VIEWER,
    expires_us: int | None = None,
) -> keys.Key:
    return store.write(
        lambda tx: keys.create(
            tx,
            workspace_id=workspace,
            name=name,
            role=role,
            key_hash=f"hash of {name} in {workspace} {ids.new_id()}",
            hint="mgk_abcdef",
            expires_us=expires_us,
        )
    )


def hash_of(store: SyncStore, key: keys.Key) -> str:
    return str(store.read(lambda tx: tx.scalar("SELECT key_hash FROM keys WHERE id = ?", (key.id,))))


def holder(store: SyncStore, key: keys.Key) -> keys.Holder | None:
    hashed = hash_of(store, key)
    return store.read(lambda tx: keys.holder(tx, hashed))


def test_a_key_is_its_workspaces_with_its_role(store: SyncStore) -> None:
    key = made(store, role=Role.DEVELOPER)
    found = holder(store, key)
    assert found is not None
    assert (found.key_id, found.name, found.role, found.workspace_id, found.account_id) == (
        key.id, "laptop", Role.DEVELOPER, ids.DEFAULT_WORKSPACE_ID, ids.DEFAULT_ACCOUNT_ID,
    )  # fmt: skip
    assert store.read(lambda tx: keys.holder(tx, "hash of another")) is None


def test_a_name_is_free_again_once_its_key_is_revoked(store: SyncStore) -> None:
    first = made(store)
    made(store, workspace=OTHER_WORKSPACE)
    with pytest.raises(ManagedError, match="laptop") as refused:
        made(store)
    assert refused.value.code is ErrorCode.CONFLICT
    gone = store.write(lambda tx: keys.revoke(tx, ids.DEFAULT_WORKSPACE_ID, "laptop"))
    assert (gone.id, gone.revoked is not None) == (first.id, True)
    second = made(store)
    assert holder(store, first) is None
    assert holder(store, second) is not None
    assert store.read(lambda tx: keys.get(tx, ids.DEFAULT_WORKSPACE_ID, "laptop")).id == second.id
    assert [key.id for key in store.read(lambda tx: keys.every(tx, ids.DEFAULT_WORKSPACE_ID, 10))] == [
        second.id,
        first.id,
    ]


def test_revoking_twice_changes_nothing_and_another_workspaces_is_not_there(
    store: SyncStore, clock: ManualClock
) -> None:
    key = made(store)
    when = store.write(lambda tx: keys.revoke(tx, ids.DEFAULT_WORKSPACE_ID, key.id)).revoked
    clock.advance(1)
    assert store.write(lambda tx: keys.revoke(tx, ids.DEFAULT_WORKSPACE_ID, key.id)).revoked == when
    for which in (key.id, "laptop", "nobody"):
        with pytest.raises(ManagedError) as refused:
            store.write(lambda tx, which=which: keys.revoke(tx, OTHER_WORKSPACE, which))  # type: ignore[misc]
        assert refused.value.code is ErrorCode.NOT_FOUND


def test_a_key_ends_at_its_moment(store: SyncStore, clock: ManualClock) -> None:
    now = store.read(lambda tx: tx.now)
    key = made(store, expires_us=now + HOUR_US)
    lasting = made(store, "lasting")
    assert holder(store, key) is not None
    assert store.read(lambda tx: keys.living_among(tx, [key.id, lasting.id, "unknown"])) == {key.id, lasting.id}
    clock.advance(3600)
    assert holder(store, key) is None
    assert store.read(lambda tx: keys.living_among(tx, [key.id, lasting.id, "unknown"])) == {lasting.id}


def test_whether_anybody_has_a_key(store: SyncStore) -> None:
    assert not store.read(keys.any_lives)
    key = made(store)
    assert store.read(keys.any_lives)
    store.write(lambda tx: keys.revoke(tx, ids.DEFAULT_WORKSPACE_ID, key.id))
    assert not store.read(keys.any_lives)


def test_the_last_use_never_goes_back(store: SyncStore) -> None:
    key = made(store)
    assert key.last_used is None
    for at in (5_000, 9_000, 7_000):
        store.write(lambda tx, at=at: keys.note_uses(tx, {key.id: at, "unknown": 1}))  # type: ignore[misc]
    assert store.read(lambda tx: keys.get(tx, ids.DEFAULT_WORKSPACE_ID, key.id)).last_used == 9_000
