"""Whether runs' logs can still grow."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from managedd import ids
from managedd.model.executions import ENDED, Phase
from managedd.store import executions, log_ends
from managedd.store.log_ends import Standing
from tests.support.sync_store import OTHER_WORKSPACE, SyncStore, add_flow_run, add_task_run, with_workspaces

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = ids.DEFAULT_WORKSPACE_ID
_MOVE = "UPDATE executions SET phase = ? WHERE flow_run_id = ? AND phase = 'CLAIMED'"


@pytest.fixture
def store() -> Iterator[SyncStore]:
    with closing(with_workspaces(SyncStore())) as store:
        yield store


def a_run(store: SyncStore, state: str | None, *phases: Phase, at: int = 5, parent: str | None = None) -> str:
    """A run in `state`, with an execution in each of `phases`."""
    run = add_flow_run(store, parent=parent)
    for phase in phases:
        store.write(lambda tx: executions.insert(tx, flow_run_id=run, work_pool_id=None, driver="fake"))
        store.write(lambda tx, phase=phase: tx.execute(_MOVE, (phase.value, run)))  # type: ignore[misc]
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


def below(store: SyncStore, parent: str, state: str, *phases: Phase, deployment: bool = False) -> str:
    """A run below `parent`: in its process, or sent to a pool."""
    run = a_run(store, state, *phases, parent=add_task_run(store, parent))
    if deployment:
        sent = "UPDATE flow_runs SET infrastructure_pid = 'managedd:x' WHERE id = ?"
        store.write(lambda tx: tx.execute(sent, (run,)))
    return run


@pytest.mark.parametrize("phase", Phase)
def test_a_subflow_has_its_lines_printed_by_the_process_that_it_is_in(store: SyncStore, phase: Phase) -> None:
    outer = a_run(store, "COMPLETED" if phase in ENDED else "RUNNING", phase)
    subflow = below(store, below(store, outer, "COMPLETED"), "COMPLETED")
    found = standing(store, subflow)
    assert (found.is_executed, found.is_open) == (True, phase not in ENDED)


def test_a_run_with_a_place_of_its_own_waits_for_nobody_above_it(store: SyncStore) -> None:
    outer = a_run(store, "RUNNING", Phase.RUNNING)
    sent = below(store, outer, "COMPLETED", Phase.FINALIZED, deployment=True)
    for run in (sent, below(store, sent, "COMPLETED")):
        found = standing(store, run)
        assert (found.is_executed, found.is_open) == (True, False)
    assert not standing(store, below(store, outer, "CANCELLED", deployment=True)).is_open


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
    assert all(step in {"SCAN given VIRTUAL TABLE INDEX 1:", "SCAN printing"} for step in scanned), steps
