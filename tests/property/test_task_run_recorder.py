"""Whatever order events come in, however often and in whatever batches: the same task runs come out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from managedd import ids
from managedd.clock import iso
from managedd.model.events import Event
from managedd.model.states import StateType
from managedd.orchestration import events
from managedd.orchestration.task_run_recorder import change_of, fold
from managedd.store import rows
from managedd.store.resources import TASK_RUN
from tests.support.sync_store import OTHER_WORKSPACE, SyncStore, add_flow_run, with_workspaces

BASE_US = 1_780_000_000_000_000
FLOW_RUN = "11111111-1111-4111-8111-111111111111"
TASK_RUNS = [f"22222222-2222-4222-8222-22222222222{digit}" for digit in range(2)]


def task_event(
    task_run: str,
    step: int,
    type_: str = "RUNNING",
    *,
    at_us: int | None = None,
    flow_run: str | None = FLOW_RUN,
    event_id: str | None = None,
    dynamic_key: str | None = None,
    **columns: Any,
) -> Event:
    """The event of one step of a task run, as an engine tells it."""
    related = []
    if flow_run is not None:
        related.append({"prefect.resource.id": f"prefect.flow-run.{flow_run}", "prefect.resource.role": "flow-run"})
    return Event(
        id=event_id or f"33333333-3333-4333-8333-{step:06d}{task_run[-6:]}",
        occurred_us=BASE_US + step if at_us is None else at_us,
        event=f"prefect.task-run.{type_.title()}",
        resource={"prefect.resource.id": f"prefect.task-run.{task_run}", "prefect.orchestration": "client"},
        related=related,
        payload={
            "intended": {"from": None, "to": type_},
            "initial_state": None,
            "validated_state": {"type": type_, "name": type_.title(), "message": "", "state_details": {}, "data": None},
            "task_run": {
                "name": f"add-{step}",
                "task_key": "add-67d77c27",
                "dynamic_key": dynamic_key or task_run,
                "empirical_policy": {"max_retries": 0, "retry_delay_seconds": 0.0, "retries": 0, "retry_delay": 0},
                "tags": [],
                "labels": {},
                "task_inputs": {"a": []},
                "run_count": step,
                "total_run_time": step / 2,
                **columns,
            },
        },
    )


def new_store() -> SyncStore:
    store = with_workspaces(SyncStore())
    store.write(
        lambda tx: (
            tx.execute(
                "INSERT INTO flows (id, workspace_id, name, created, updated) VALUES ('f', ?, 'f', 0, 0)",
                (tx.workspace,),
            ).rowcount
        )
    )
    store.write(
        lambda tx: (
            tx.execute(
                "INSERT INTO flow_runs (id, workspace_id, name, flow_id, created, updated) VALUES (?, ?, 'r', 'f', 0, 0)",
                (FLOW_RUN, tx.workspace),
            ).rowcount
        )
    )
    return store


def contents(store: SyncStore) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Every task run and state of the workspace, without the times of writing."""

    def read(tx: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        runs = [
            dict(row) for row in tx.all("SELECT * FROM task_runs WHERE workspace_id = ? ORDER BY id", (tx.workspace,))
        ]
        for run in runs:
            del run["created"], run["updated"]
        return runs, [
            dict(row)
            for row in tx.all("SELECT * FROM task_run_states WHERE workspace_id = ? ORDER BY id", (tx.workspace,))
        ]

    return store.read(read)


steps = st.builds(
    lambda task_run, step, type_, columns: task_event(task_run, step, type_, **columns),
    st.sampled_from(TASK_RUNS),
    st.integers(1, 6),
    st.sampled_from([type_.value for type_ in StateType]),
    st.fixed_dictionaries(
        {},
        optional={
            "start_time": st.one_of(st.none(), st.integers(0, 9).map(lambda n: iso(BASE_US + n))),
            "end_time": st.one_of(st.none(), st.integers(0, 9).map(lambda n: iso(BASE_US + n))),
            "cache_key": st.sampled_from([None, "x", "y"]),
            "expected_start_time": st.just(iso(BASE_US)),
        },
    ),
)
histories = st.lists(steps, min_size=1, max_size=8, unique_by=lambda event: event.id)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(history=histories, data=st.data())
def test_order_batches_and_repetition_make_no_difference(history: list[Event], data: st.DataObject) -> None:
    in_order, shuffled = new_store(), new_store()
    try:
        for event in sorted(history, key=lambda event: event.order):
            in_order.write(lambda tx, event=event: events.receive(tx, [event]))
        again = data.draw(st.permutations([*history, *data.draw(st.lists(st.sampled_from(history), max_size=4))]))
        cuts = sorted(data.draw(st.lists(st.integers(0, len(again)), max_size=3)))
        for start, end in zip([0, *cuts], [*cuts, len(again)], strict=True):
            shuffled.write(lambda tx, start=start, end=end: events.receive(tx, again[start:end]))
        assert contents(shuffled) == contents(in_order)
        assert_rows_are_the_fold(in_order, history)
    finally:
        in_order.close()
        shuffled.close()


def assert_rows_are_the_fold(store: SyncStore, history: list[Event]) -> None:
    """An independent reading: the row's state is the last event's, its run count that of the last that told one."""
    for task_run in TASK_RUNS:
        own = [event for event in history if event.resource_id.endswith(task_run)]
        found = store.read(lambda tx, task_run=task_run: rows.record(tx, TASK_RUN, id=task_run))
        if not own:
            assert found is None
            continue
        assert found is not None
        last = max(own, key=lambda event: event.order)
        assert found["state_id"] == last.id
        assert found["state_timestamp"] == last.occurred_us
        assert found["state_type"] == last.payload["validated_state"]["type"]
        for column in ("run_count", "cache_key"):
            told = [event.payload["task_run"] for event in sorted(own, key=lambda event: event.order)]
            values = [task[column] for task in told if column in task]
            assert found[column] == (values[-1] if values else None)


@pytest.fixture
def store() -> Any:
    made = new_store()
    yield made
    made.close()


def test_a_task_run_that_was_named_anew_is_the_same_row(store: SyncStore) -> None:
    first, second = TASK_RUNS
    store.write(lambda tx: events.receive(tx, [task_event(first, 1, dynamic_key="0")]))
    store.write(lambda tx: events.receive(tx, [task_event(second, 2, "COMPLETED", dynamic_key="0")]))
    runs, states = contents(store)
    assert [(run["id"], run["state_type"]) for run in runs] == [(first, "COMPLETED")]
    assert {state["task_run_id"] for state in states} == {first}
    assert len(states) == 2


def test_an_id_whose_key_changed_keeps_its_row(store: SyncStore) -> None:
    store.write(lambda tx: events.receive(tx, [task_event(TASK_RUNS[0], 1, dynamic_key="0")]))
    store.write(lambda tx: events.receive(tx, [task_event(TASK_RUNS[0], 2, "COMPLETED", dynamic_key="1")]))
    runs, _ = contents(store)
    assert [(run["dynamic_key"], run["state_type"]) for run in runs] == [("1", "COMPLETED")]


def test_a_task_run_without_a_flow_run_is_kept(store: SyncStore) -> None:
    store.write(lambda tx: events.receive(tx, [task_event(TASK_RUNS[0], 1, flow_run=None)]))
    runs, _ = contents(store)
    assert runs[0]["flow_run_id"] is None


def test_a_vanished_flow_run_costs_only_its_own_task_runs(store: SyncStore) -> None:
    gone = task_event(TASK_RUNS[0], 1, flow_run=ids.new_id())
    here = task_event(TASK_RUNS[1], 1)
    assert len(store.write(lambda tx: events.receive(tx, [gone, here]))) == 2
    runs, _ = contents(store)
    assert [run["id"] for run in runs] == [TASK_RUNS[1]]


def test_another_workspace_can_touch_neither_row_nor_flow_run(store: SyncStore) -> None:
    store.write(lambda tx: events.receive(tx, [task_event(TASK_RUNS[0], 1)]))
    before = contents(store)
    theirs = [
        task_event(TASK_RUNS[0], 5, "FAILED", event_id=ids.new_id()),
        task_event(TASK_RUNS[0], 6, "FAILED", flow_run=None, event_id=ids.new_id()),
    ]
    assert len(store.write(lambda tx: events.receive(tx, theirs), OTHER_WORKSPACE)) == 2
    assert contents(store) == before
    # What it has under that id is its own, and of none of these flow runs.
    own = store.read(lambda tx: tx.all("SELECT flow_run_id FROM task_runs WHERE workspace_id = ?", (OTHER_WORKSPACE,)))
    assert [row["flow_run_id"] for row in own] == [None]
    own_run = add_flow_run(store, workspace=OTHER_WORKSPACE)
    hijack = task_event(TASK_RUNS[0], 7, "FAILED", flow_run=own_run, event_id=ids.new_id())
    store.write(lambda tx: events.receive(tx, [hijack]), OTHER_WORKSPACE)
    assert contents(store) == before


def test_a_state_that_came_over_http_is_not_overwritten_by_an_older_event(store: SyncStore) -> None:
    store.write(lambda tx: events.receive(tx, [task_event(TASK_RUNS[0], 2, "RUNNING")]))
    store.write(
        lambda tx: (
            tx.execute(
                "UPDATE task_runs SET state_id = 'z', state_type = 'COMPLETED', state_timestamp = ? WHERE id = ?",
                (BASE_US + 100, TASK_RUNS[0]),
            ).rowcount
        )
    )
    store.write(lambda tx: events.receive(tx, [task_event(TASK_RUNS[0], 1, "PENDING", cache_key="old")]))
    runs, states = contents(store)
    assert (runs[0]["state_type"], runs[0]["cache_key"]) == ("COMPLETED", None)
    assert len(states) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"event": "prefect.flow-run.Running"},
        {"resource": {"prefect.resource.id": f"prefect.task-run.{TASK_RUNS[0]}"}},
        {"resource": {"prefect.resource.id": "prefect.task-run.none", "prefect.orchestration": "client"}},
        {"related": [{"prefect.resource.id": "prefect.flow-run.x", "prefect.resource.role": "flow-run"}]},
        {"payload": {}},
        {"payload": {"validated_state": {"type": "ODD"}, "task_run": {"task_key": "a", "dynamic_key": "b"}}},
        {"payload": {"validated_state": {"type": "RUNNING"}, "task_run": {"task_key": "a"}}},
        {"payload": {"validated_state": None, "task_run": []}},
    ],
)
def test_other_events_tell_nothing_of_task_runs(store: SyncStore, change: dict[str, Any]) -> None:
    sound = task_event(TASK_RUNS[0], 1)
    assert change_of(sound) is not None
    fields = {name: getattr(sound, name) for name in ("id", "occurred_us", "event", "resource", "related", "payload")}
    event = Event(**{**fields, **change})
    assert change_of(event) is None
    assert store.write(lambda tx: events.receive(tx, [event])) == [event]
    assert contents(store) == ([], [])


def test_folding_nothing_gives_nothing() -> None:
    assert fold([]) is None
