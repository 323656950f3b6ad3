"""Whether runs' logs can still grow."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from managedd import ids
from managedd.model.executions import Phase
from managedd.store import executions, log_ends
from managedd.store.log_ends import Standing
from tests.support.sync_store import OTHER_WORKSPACE, SyncStore, add_flow_run, with_workspaces

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = ids.DEFAULT_WORKSPACE_ID


@pytest.fixture
def store() -> Iterator[SyncStore]:
    with closing(with_workspaces(SyncStore())) as store:
        yield store


def a_run(store: SyncStore, state: str | None, *phases: Phase, at: int = 5, parent: str | None = None) -> str:
    """A run in `state`, with an execution in each of `phases`."""
    run = add_flow_run(store, parent=parent)
    for phase in phases:
        store.write(lambda tx: executions.insert(tx, flow_run_id=run, work_pool_id=None, driver="fake"))
        moved = "UPDATE executions SET phase = ? WHERE flow_run_id = ? AND phase = 'CLAIMED'"
        store.write(lambda tx, phase=phase: tx.execute(moved, (phase.value, run)))  # type: ignore[misc]
    if state is not None:
        store.write(
            lambda tx: tx.execute(
                "UPDATE flow_runs SET state_type = ?, state_timestamp = ? WHERE id = ?", (state, at, run)
            )
        )
    return run


def standing(store: SyncStore, run: str) -> Standing:
    return store.read(lambda tx: log_ends.standings(tx, [(HERE, run)]))[HERE, run]


@pytest.mark.parametrize(
    ("state", "phases", "expected"),
    [
        (None, (), Standing(is_final=False, state_us=0, is_executed=False, is_open=False)),
        ("COMPLETED", (), Standing(is_final=True, state_us=5, is_executed=False, is_open=False)),
        ("CRASHED", (Phase.EXITED,), Standing(is_final=True, state_us=5, is_executed=True, is_open=True)),
        ("CRASHED", (Phase.LOST,), Standing(is_final=True, state_us=5, is_executed=True, is_open=False)),
        ("FAILED", (Phase.LOST, Phase.RUNNING), Standing(is_final=True, state_us=5, is_executed=True, is_open=True)),
        ("FAILED", (Phase.LOST, Phase.FINALIZED), Standing(is_final=True, state_us=5, is_executed=True, is_open=False)),
    ],
)
def test_a_run_by_its_state_and_its_executions(
    store: SyncStore, state: str | None, phases: tuple[Phase, ...], expected: Standing
) -> None:
    assert standing(store, a_run(store, state, *phases)) == expected


@pytest.mark.parametrize("state", ["SCHEDULED", "PENDING", "RUNNING", "CANCELLING", "PAUSED"])
def test_a_state_that_is_not_final(store: SyncStore, state: str) -> None:
    assert not standing(store, a_run(store, state)).is_final


def test_many_are_asked_for_at_once_and_each_in_its_workspace(store: SyncStore) -> None:
    one, two = a_run(store, "RUNNING"), a_run(store, "COMPLETED", Phase.FINALIZED)
    asked = [(HERE, one), (HERE, two), (OTHER_WORKSPACE, one), (HERE, ids.new_id())]
    found = store.read(lambda tx: log_ends.standings(tx, asked))
    assert set(found) == {(HERE, one), (HERE, two)}
    assert found[HERE, two].is_executed and not found[HERE, one].is_executed
    assert store.read(lambda tx: log_ends.standings(tx, [])) == {}


def test_every_row_is_found_by_an_index(store: SyncStore) -> None:
    steps = store.plan(log_ends._STANDINGS, ("[]",)).splitlines()
    scanned = [step for step in steps if step.startswith("SCAN") or "AUTOMATIC" in step]
    assert all("asked" in step for step in scanned), steps
