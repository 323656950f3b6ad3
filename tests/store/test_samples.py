"""What containers used: a bounded row for each execution, gone with its run."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from managedd.model.samples import MAX_SAMPLES
from managedd.store import executions, samples
from tests.support.sync_store import OTHER_WORKSPACE, SyncStore, add_flow_run, with_workspaces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from managedd.model.executions import Execution


@pytest.fixture
def store() -> Iterator[SyncStore]:
    with closing(with_workspaces(SyncStore())) as store:
        yield store


def running(store: SyncStore) -> Execution:
    run = add_flow_run(store)
    return store.write(lambda tx: executions.insert(tx, flow_run_id=run, work_pool_id=None, driver="fake"))


def test_what_comes_later_is_added_and_the_whole_stays_bounded(store: SyncStore) -> None:
    execution = running(store)
    for batch in range(100):
        taken = [(batch * 20_000_000 + each * 5_000_000, batch * 4 + each, each) for each in range(4)]
        store.write(lambda tx, taken=taken: samples.add(tx, {execution.id: taken}))
        # A second time, as after a commit of which nobody knows: nothing is there twice.
        store.write(lambda tx, taken=taken: samples.add(tx, {execution.id: taken}))

    (shown,) = store.read(lambda tx: samples.of_run(tx, execution.flow_run_id))

    moments = [each["at"] for each in shown["samples"]]
    assert 0 < len(moments) <= MAX_SAMPLES
    assert moments == sorted(set(moments))
    assert shown["samples"][-1]["memory_bytes"] == 399


def test_they_go_with_the_run_and_none_come_after_it(store: SyncStore) -> None:
    execution = running(store)
    store.write(lambda tx: samples.add(tx, {execution.id: [(1, 2, 3)]}))
    assert store.read(lambda tx: samples.of_run(tx, execution.flow_run_id))[0]["samples"]

    store.write(lambda tx: tx.execute("DELETE FROM flow_runs WHERE id = ?", (execution.flow_run_id,)) and None)
    store.write(lambda tx: samples.add(tx, {execution.id: [(2, 2, 3)]}))

    assert store.read(lambda tx: tx.scalar("SELECT count(*) FROM execution_samples")) == 0


def test_another_workspace_sees_none(store: SyncStore) -> None:
    execution = running(store)
    store.write(lambda tx: samples.add(tx, {execution.id: [(1, 2, 3)]}))
    assert store.read(lambda tx: samples.of_run(tx, execution.flow_run_id), workspace=OTHER_WORKSPACE) == []
