"""Where a run goes: pools and queues by name."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from managedd import ids
from managedd.errors import ErrorCode, ManagedError
from managedd.store import rows
from managedd.store.placement import Place, ensure_queue, place
from managedd.store.resources import WORK_POOL, WORK_QUEUE
from tests.support.sync_store import OTHER_WORKSPACE, SyncStore, with_workspaces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from managedd.store.transaction import Tx


@pytest.fixture
def store() -> Iterator[SyncStore]:
    with closing(with_workspaces(SyncStore())) as store:
        yield store


def new_pool(tx: Tx, name: str = "p") -> tuple[str, str]:
    """Ids of a pool and of its default queue."""
    pool = rows.insert(tx, WORK_POOL, {"name": name, "type": "prefect:managed"})
    queue = rows.insert(tx, WORK_QUEUE, {"name": "default", "work_pool_id": pool, "priority": 1})
    rows.patch(tx, WORK_POOL, pool, {"default_queue_id": queue})
    return pool, queue


def queues(store: SyncStore, pool: str) -> list[tuple[str, int]]:
    found = store.read(
        lambda tx: tx.all("SELECT name, priority FROM work_queues WHERE work_pool_id = ? ORDER BY priority", (pool,))
    )
    return [(row["name"], row["priority"]) for row in found]


@pytest.mark.parametrize("queue_name", [None, "default"])
def test_a_pool_alone_means_its_default_queue(store: SyncStore, queue_name: str | None) -> None:
    pool, queue = store.write(new_pool)
    found = store.write(lambda tx: place(tx, "p", queue_name))
    assert found == Place(
        work_queue_id=queue, work_queue_name="default", work_pool_id=pool, work_pool_type="prefect:managed"
    )
    assert found.columns() == {"work_queue_id": queue, "work_queue_name": "default"}
    assert queues(store, pool) == [("default", 1)]


def test_a_missing_queue_is_made_once_as_the_least_urgent(store: SyncStore) -> None:
    pool, _ = store.write(new_pool)
    first = store.write(lambda tx: place(tx, "p", "night"))
    again = store.write(lambda tx: place(tx, "p", "night"))
    store.write(lambda tx: place(tx, "p", "weekend"))
    assert first == again
    assert first.work_queue_name == "night"
    assert queues(store, pool) == [("default", 1), ("night", 2), ("weekend", 3)]


def test_the_first_queue_of_a_pool_is_the_most_urgent(store: SyncStore) -> None:
    pool = store.write(lambda tx: rows.insert(tx, WORK_POOL, {"name": "bare", "type": "process"}))
    made = store.write(lambda tx: ensure_queue(tx, pool, "q"))
    assert queues(store, pool) == [("q", 1)]
    assert store.write(lambda tx: ensure_queue(tx, pool, "q")) == made


def test_the_same_name_in_two_pools_is_two_queues(store: SyncStore) -> None:
    store.write(lambda tx: (new_pool(tx, "p"), new_pool(tx, "other")))
    here, there = (store.write(lambda tx, name=name: place(tx, name, "q")) for name in ("p", "other"))
    assert here.work_queue_id != there.work_queue_id


def test_no_pool_is_no_place_and_keeps_the_name(store: SyncStore) -> None:
    assert store.write(lambda tx: place(tx, None, None)) == Place()
    assert store.write(lambda tx: place(tx, None, "q")).columns() == {"work_queue_id": None, "work_queue_name": "q"}


@pytest.mark.parametrize("workspace", [ids.DEFAULT_WORKSPACE_ID, OTHER_WORKSPACE])
def test_a_pool_that_is_not_there_or_not_ours_is_not_found(store: SyncStore, workspace: str) -> None:
    store.write(lambda tx: new_pool(tx, "mine"))
    name = "nowhere" if workspace == ids.DEFAULT_WORKSPACE_ID else "mine"
    with pytest.raises(ManagedError) as caught:
        store.write(lambda tx: place(tx, name, "q"), workspace)
    assert caught.value.code is ErrorCode.NOT_FOUND
    assert name in caught.value.message
    assert store.read(lambda tx: tx.scalar("SELECT count(*) FROM work_queues")) == 1
