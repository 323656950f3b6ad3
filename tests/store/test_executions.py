"""Executions: guarded moves, the wish to stop, and keys that end with them."""

from __future__ import annotations

from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from managedd import ids
from managedd.bus import Topic
from managedd.model.executions import ENDED, NEXT, EndCause, Execution, Phase
from managedd.store import executions
from managedd.store.transaction import IntegrityFault
from tests.support.sync_store import OTHER_WORKSPACE, SyncStore, add_flow_run, with_workspaces

if TYPE_CHECKING:
    from collections.abc import Iterator

TO: dict[Phase, tuple[Phase, ...]] = {
    Phase.CLAIMED: (Phase.CLAIMED,),
    Phase.CREATED: (Phase.CLAIMED, Phase.CREATED),
    Phase.RUNNING: (Phase.CLAIMED, Phase.CREATED, Phase.RUNNING),
    Phase.EXITED: (Phase.CLAIMED, Phase.EXITED),
    Phase.FINALIZED: (Phase.CLAIMED, Phase.EXITED, Phase.FINALIZED),
    Phase.LOST: (Phase.CLAIMED, Phase.EXITED, Phase.LOST),
}
"""Phase → a way there."""


@pytest.fixture
def store() -> Iterator[SyncStore]:
    with closing(with_workspaces(SyncStore())) as store:
        yield store


def insert(store: SyncStore, run: str, **values: Any) -> Execution:
    return store.write(
        lambda tx: executions.insert(tx, flow_run_id=run, **{"work_pool_id": None, "driver": "fake", **values})
    )


def in_phase(store: SyncStore, phase: Phase) -> Execution:
    made = insert(store, add_flow_run(store))
    for before, after in pairwise(TO[phase]):
        assert store.write(lambda tx, b=before, a=after: executions.advance(tx, made.id, [b], a)) is not None
    return made


def get(store: SyncStore, execution: Execution) -> Execution:
    found = store.read(lambda tx: executions.get(tx, execution.id))
    assert found is not None
    return found


def test_a_new_one_is_claimed_and_wakes_the_engine(store: SyncStore) -> None:
    run = add_flow_run(store)
    store.topics.clear()
    made = insert(store, run)
    assert (made.phase, made.attempt, made.flow_run_id, made.workspace_id) == (
        Phase.CLAIMED, 1, run, ids.DEFAULT_WORKSPACE_ID,
    )  # fmt: skip
    assert store.topics == [Topic.EXECUTIONS]
    assert get(store, made) == made
    assert store.read(lambda tx: executions.get(tx, "nobody")) is None


def test_a_run_has_one_at_a_time_and_counts_them(store: SyncStore) -> None:
    first = in_phase(store, Phase.RUNNING)
    with pytest.raises(IntegrityFault):
        insert(store, first.flow_run_id)
    assert store.read(lambda tx: executions.live_of_run(tx, first.flow_run_id)) == get(store, first)
    store.write(lambda tx: executions.advance(tx, first.id, [Phase.RUNNING], Phase.EXITED))
    assert store.read(lambda tx: executions.live_of_run(tx, first.flow_run_id)) is not None
    store.write(lambda tx: executions.advance(tx, first.id, [Phase.EXITED], Phase.LOST))
    assert store.read(lambda tx: executions.live_of_run(tx, first.flow_run_id)) is None
    second = insert(store, first.flow_run_id)
    assert second.attempt == 2
    found = store.read(lambda tx: executions.of_run(tx, first.flow_run_id))
    assert [each.id for each in found] == [first.id, second.id]


@pytest.mark.parametrize("to", Phase)
@pytest.mark.parametrize("from_", Phase)
def test_a_move_is_in_the_table_or_a_mistake(store: SyncStore, from_: Phase, to: Phase) -> None:
    execution = in_phase(store, from_)
    if to in NEXT[from_]:
        moved = store.write(lambda tx: executions.advance(tx, execution.id, [from_], to, {"exit_code": 3}))
        assert moved is not None
        assert (moved.phase, moved.exit_code) == (to, 3)
        return
    with pytest.raises(ValueError, match="no move from"):
        store.write(lambda tx: executions.advance(tx, execution.id, [from_], to))
    assert get(store, execution).phase is from_


def test_who_comes_too_late_moves_nothing_and_wakes_nobody(store: SyncStore) -> None:
    execution = in_phase(store, Phase.EXITED)
    store.topics.clear()
    believed = [Phase.CLAIMED, Phase.CREATED, Phase.RUNNING]
    moved = store.write(lambda tx: executions.advance(tx, execution.id, believed, Phase.EXITED, {"exit_code": 9}))
    assert moved is None
    assert get(store, execution).exit_code is None
    assert store.topics == []


def test_what_is_noted_is_read_back_as_it_was(store: SyncStore) -> None:
    execution = in_phase(store, Phase.CREATED)
    noted = {
        "handle": {"id": "c1", "n": [1, None]}, "oom_killed": True, "end_cause": EndCause.MEMORY, "peak_memory_bytes": 2**40,
        "cpu_limit": 1.5, "end_message": "m",
    }  # fmt: skip
    store.write(lambda tx: executions.note(tx, execution.id, noted))
    found = get(store, execution)
    assert {name: getattr(found, name) for name in noted} == noted
    assert found.phase is Phase.CREATED
    with pytest.raises(ValueError, match="advance"):
        store.write(lambda tx: executions.note(tx, execution.id, {"phase": "LOST"}))


@pytest.mark.parametrize("phase", Phase)
def test_the_first_wish_to_stop_stays_and_the_ended_have_none(store: SyncStore, phase: Phase) -> None:
    execution = in_phase(store, phase)
    store.topics.clear()

    def ask(reason: EndCause) -> bool:
        return store.write(lambda tx: executions.request_stop(tx, execution.id, reason))

    assert ask(EndCause.TIME) == (phase not in ENDED)
    assert len(store.topics) == (phase not in ENDED)
    assert not ask(EndCause.CANCEL)
    found = get(store, execution)
    assert found.phase is phase
    assert found.stop_reason == (None if phase in ENDED else EndCause.TIME)
    assert (found.stop_requested_at is None) == (phase in ENDED)


def test_what_nobody_wants_is_asked_to_stop(store: SyncStore) -> None:
    execution = in_phase(store, Phase.RUNNING)
    store.write(lambda tx: executions.abandon(tx, execution.flow_run_id))
    assert get(store, execution).stop_reason is EndCause.CANCEL
    store.write(lambda tx: executions.abandon(tx, "a run without any"))


def test_the_open_ones_are_those_of_every_workspace_oldest_first(store: SyncStore) -> None:
    open_ones = [in_phase(store, phase) for phase in Phase if phase not in ENDED]
    for phase in ENDED:
        in_phase(store, phase)
    foreign = add_flow_run(store, workspace=OTHER_WORKSPACE)
    open_ones.append(
        store.write(
            lambda tx: executions.insert(tx, flow_run_id=foreign, work_pool_id=None, driver="fake"), OTHER_WORKSPACE
        )
    )
    found = store.read(executions.open_ones)
    assert sorted(each.id for each in found) == sorted(each.id for each in open_ones)
    assert [each.claimed_at for each in found] == sorted(each.claimed_at for each in found)


@pytest.mark.parametrize("phase", Phase)
def test_a_key_opens_until_its_execution_has_ended(store: SyncStore, phase: Phase) -> None:
    execution = in_phase(store, phase)
    store.write(lambda tx: executions.note(tx, execution.id, {"key_hash": "h"}))
    owner = store.read(lambda tx: executions.by_key_hash(tx, "h"))
    if phase in ENDED:
        assert owner is None
    else:
        assert owner is not None
        assert (owner.execution_id, owner.flow_run_id, owner.workspace_id) == (
            execution.id, execution.flow_run_id, ids.DEFAULT_WORKSPACE_ID,
        )  # fmt: skip
    assert store.read(lambda tx: executions.by_key_hash(tx, "")) is None


def test_two_executions_never_share_a_key(store: SyncStore) -> None:
    ended, live = in_phase(store, Phase.FINALIZED), in_phase(store, Phase.CLAIMED)
    store.write(lambda tx: executions.note(tx, ended.id, {"key_hash": "h"}))
    with pytest.raises(IntegrityFault):
        store.write(lambda tx: executions.note(tx, live.id, {"key_hash": "h"}))
