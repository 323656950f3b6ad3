"""Log lines in the store, and who may write them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from managedd import ids
from managedd.bus import Topic
from managedd.clock import iso, to_us
from managedd.model.logs import LogCursor, LogRecord
from managedd.store import lineage, logs, retention, tails
from managedd.wire.filters.logs import LogFilter
from managedd.wire.logs import Log
from managedd.wire.sorting import LogSort
from tests.support.sync_store import OTHER_WORKSPACE, SyncStore, add_flow_run, add_task_run, with_workspaces

if TYPE_CHECKING:
    from collections.abc import Iterator

BASE_US = to_us(datetime(2026, 11, 22, 4, 0, tzinfo=UTC))
RUN, RUN_2, TASK = ids.new_id(), ids.new_id(), ids.new_id()


@pytest.fixture
def store() -> Iterator[SyncStore]:
    made = SyncStore("managedd.store.migrations.logs")
    yield made
    made.close()


def line(number: int, **changes: Any) -> LogRecord:
    values: dict[str, Any] = {
        "name": "prefect.flow_runs",
        "level": 20,
        "message": f"line {number}",
        "timestamp_us": BASE_US + number,
        "flow_run_id": RUN,
        **changes,
    }
    return LogRecord(**values)


def append(store: SyncStore, *records: LogRecord, workspace: str = ids.DEFAULT_WORKSPACE_ID) -> None:
    store.write(lambda tx: logs.append(tx, records), workspace)


def found(
    store: SyncStore, filter_: dict[str, Any] | None = None, sort: LogSort = LogSort.TIMESTAMP_ASC, **page: Any
) -> list[str]:
    model = None if filter_ is None else LogFilter.model_validate(filter_)
    rows = store.read(lambda tx: logs.find(tx, model, sort, page.get("limit"), page.get("offset", 0)))
    return [Log.model_validate_json(orjson.dumps(row)).message for row in rows]


def followed(store: SyncStore, filter_: dict[str, Any], cursor: int) -> list[str]:
    got, more, model = [], True, LogFilter.model_validate(filter_)
    while more:
        page = store.read(lambda tx, cursor=cursor: logs.page_after(tx, model, cursor))
        for frame in page.frames:
            message = orjson.loads(frame)
            assert message["type"] == "log"
            got.append(Log.model_validate(message["log"]).message)
        cursor, more = page.cursor, page.more
    return got


def test_lines_are_found_by_filter_sort_and_page(store: SyncStore) -> None:
    append(
        store,
        line(3),
        line(1),
        line(2, level=40, task_run_id=TASK),
        line(4, flow_run_id=RUN_2),
        line(5, flow_run_id=None),
    )
    assert store.topics == [Topic.LOGS]
    of_run = {"flow_run_id": {"any_": [RUN]}}
    assert found(store, of_run) == ["line 1", "line 2", "line 3"]
    assert found(store, of_run, LogSort.TIMESTAMP_DESC, limit=1, offset=1) == ["line 2"]
    assert found(store, {"level": {"ge_": 30}}) == ["line 2"]
    assert found(store, {"task_run_id": {"any_": [TASK]}}) == ["line 2"]
    assert found(store, {**of_run, "task_run_id": {"is_null_": True}}) == ["line 1", "line 3"]
    assert found(store, {"timestamp": {"after_": iso(BASE_US + 2), "before_": iso(BASE_US + 4)}}) == [
        "line 2",
        "line 3",
        "line 4",
    ]
    assert found(store) == [f"line {n}" for n in range(1, 6)]


def test_lines_of_one_moment_keep_their_order(store: SyncStore) -> None:
    append(store, *(line(0, message=text) for text in "abc"))
    assert found(store) == ["a", "b", "c"]
    assert found(store, None, LogSort.TIMESTAMP_DESC) == ["c", "b", "a"]


@pytest.mark.parametrize("sort", LogSort)
def test_lines_of_several_runs_come_in_one_order_page_by_page(store: SyncStore, sort: LogSort) -> None:
    third, silent = ids.new_id(), ids.new_id()
    lines = [
        line(n % 17, message=f"{n}", level=40 if n % 5 else 20, flow_run_id=(RUN, RUN_2, third)[n % 3])
        for n in range(60)
    ]
    append(store, *lines)
    append(store, line(3, message="foreign"), workspace=OTHER_WORKSPACE)
    of_two = {"flow_run_id": {"any_": [RUN, silent, RUN_2, RUN]}, "level": {"ge_": 30}}
    wanted = [one for one in enumerate(lines) if one[1].flow_run_id != third and one[1].level >= 30]
    wanted.sort(key=lambda one: (one[1].timestamp_us, one[0]), reverse=sort is LogSort.TIMESTAMP_DESC)
    got = [text for start in range(0, 60, 7) for text in found(store, of_two, sort, limit=7, offset=start)]
    assert got == [one.message for _, one in wanted]
    assert found(store, of_two, sort) == got
    many = {
        "flow_run_id": {"any_": [RUN, RUN_2, *(ids.new_id() for _ in range(logs.MERGED_RUNS))]},
        "level": {"ge_": 30},
    }
    assert found(store, many, sort) == got


@pytest.mark.parametrize(
    "given",
    [
        {"flow_run_id": {"any_": [RUN, RUN_2]}},
        {"flow_run_id": {"any_": [RUN, RUN_2]}, "level": {"ge_": 40}},
        {"flow_run_id": {"any_": [RUN]}, "level": {"ge_": 40}},
        {"level": {"ge_": 40}},
        {"level": {"ge_": 30, "le_": 40}, "timestamp": {"after_": iso(BASE_US)}},
    ],
)
@pytest.mark.parametrize("sort", LogSort)
def test_a_page_takes_no_more_work_where_more_was_printed(
    store: SyncStore, given: dict[str, Any], sort: LogSort
) -> None:
    wanted = LogFilter.model_validate(given)

    def work() -> int:
        return store.steps(lambda tx: logs.find(tx, wanted, sort, 20, 0))

    def printed(count: int, first: int) -> None:
        append(store, *(line(first + n, flow_run_id=(RUN, RUN_2, None)[n % 3]) for n in range(count)))

    printed(200, 0)
    append(store, *(line(200 + n, level=40 + n % 2, flow_run_id=(RUN, RUN_2)[n % 2]) for n in range(20)))
    before = work()
    printed(5_000, 220)
    assert work() < before * 1.5


@pytest.mark.parametrize(
    ("query", "texts"),
    [
        ("error", ["an Error of flow", "timeout error"]),
        ("error -timeout", ["an Error of flow"]),
        ('+error "of flow"', ["an Error of flow"]),
        ("100%", ["100% done"]),
        ("flow_runs", ["an Error of flow", "timeout error", "100% done", "1000 done"]),
    ],
)
def test_text_is_searched_in_message_and_name(store: SyncStore, query: str, texts: list[str]) -> None:
    append(
        store,
        *(
            line(n, message=text)
            for n, text in enumerate(["an Error of flow", "timeout error", "100% done", "1000 done"])
        ),
    )
    assert found(store, {"text": {"query": query}}) == texts


def test_null_characters_are_left_out(store: SyncStore) -> None:
    append(store, line(1, message="a\0b", name="n\0"))
    assert found(store) == ["ab"]


def test_workspaces_keep_their_own_lines(store: SyncStore) -> None:
    append(store, line(1))
    append(store, line(2), workspace=OTHER_WORKSPACE)
    assert found(store) == ["line 1"]
    assert followed(store, {}, 0) == ["line 1"]


def test_a_line_that_names_a_run_of_another_workspace_stays_its_writers_own(store: SyncStore) -> None:
    append(store, line(1, task_run_id=TASK))
    append(store, line(2, task_run_id=TASK), workspace=OTHER_WORKSPACE)
    for mine in (
        {},
        {"flow_run_id": {"any_": [RUN]}},
        {"flow_run_id": {"any_": [RUN, RUN_2]}},
        {"task_run_id": {"any_": [TASK]}},
    ):
        assert found(store, mine) == followed(store, mine, 0) == ["line 1"]
    assert [row["id"] for row in store.read(lambda tx: logs.lines_after(tx, RUN, (-1, 0), 9))] == [1]
    assert [row["id"] for row in store.read(lambda tx: logs.lines_after(tx, RUN, (-1, 0), 9), OTHER_WORKSPACE)] == [2]


def test_filters_by_ids_that_no_line_names_admit_what_they_say(store: SyncStore) -> None:
    append(store, line(1, task_run_id=TASK), line(2, flow_run_id=RUN_2), line(3, flow_run_id=None))
    unknown = ids.new_id()
    assert found(store, {"flow_run_id": {"any_": [unknown]}}) == []
    assert found(store, {"flow_run_id": {"any_": []}}) == []
    assert found(store, {"flow_run_id": {"any_": [unknown, RUN_2, RUN]}}) == ["line 1", "line 2"]
    assert found(store, {"task_run_id": {"any_": [unknown]}}) == []
    assert found(store, {"task_run_id": {"any_": [unknown, TASK]}}) == ["line 1"]
    assert found(store, {"task_run_id": {"is_null_": False}}) == ["line 1"]
    either = {"operator": "or_", "flow_run_id": {"any_": [unknown]}, "task_run_id": {"any_": [TASK]}}
    assert found(store, either) == ["line 1"]
    assert store.read(lambda tx: logs.find(tx, None, LogSort.TIMESTAMP_ASC, 9, 2))[0]["flow_run_id"] is None


def test_a_tail_begins_where_its_filter_says(store: SyncStore) -> None:
    base_us = store.read(lambda tx: tx.now) - 1_000_000
    texts = ((1, RUN), (2, RUN_2), (3, RUN))
    append(store, *(line(n, timestamp_us=base_us + n, flow_run_id=run) for n, run in texts))
    before = {"after_": iso(base_us + 2)}

    def start(**filter_: Any) -> int:
        return store.read(lambda tx: logs.before(tx, LogFilter.model_validate(filter_)))

    assert start() == 3
    assert start(timestamp=before) == 1
    assert start(timestamp=before, flow_run_id={"any_": [RUN]}) == 2
    assert start(timestamp=before, flow_run_id={"any_": [RUN, RUN_2]}) == 1
    assert start(timestamp={"after_": iso(base_us + 9)}) == 3
    of_run = {"flow_run_id": {"any_": [RUN]}, "timestamp": before}
    assert followed(store, of_run, start(**of_run)) == ["line 3"]


def test_a_tail_of_alternatives_begins_with_what_any_of_them_admits(store: SyncStore) -> None:
    base_us = store.read(lambda tx: tx.now) - 1_000_000
    append(store, line(1, timestamp_us=base_us, flow_run_id=RUN_2), line(2, timestamp_us=base_us + 1))
    either = {"flow_run_id": {"any_": [RUN]}, "timestamp": {"after_": iso(base_us)}, "operator": "or_"}
    start = store.read(lambda tx: logs.before(tx, LogFilter.model_validate(either)))
    assert followed(store, either, start) == ["line 1", "line 2"]


def test_a_page_of_long_lines_is_small(store: SyncStore) -> None:
    """What a socket holds whose client takes nothing: there may be hundreds of them."""
    append(store, *(line(n, message="x" * 5_000) for n in range(300)))
    page = store.read(lambda tx: logs.page_after(tx, LogFilter(), 0))
    assert page.more and sum(map(len, page.frames)) < 300_000
    assert followed(store, {}, 0) == ["x" * 5_000] * 300


def test_a_page_ends_where_it_is_told_to(store: SyncStore, monkeypatch: pytest.MonkeyPatch) -> None:
    append(store, line(1), *(line(n, flow_run_id=RUN_2) for n in range(2, 20)), line(20))
    for scanned in (1, 7, 20_000):
        monkeypatch.setattr(tails, "SCAN_ROWS", scanned)
        for until in range(1, 21):
            for filter_, count in (({}, until), ({"flow_run_id": {"any_": [RUN]}}, 1 + (until == 20))):
                model, cursor, more, got = LogFilter.model_validate(filter_), 0, True, 0
                while more:
                    page = store.read(lambda tx: logs.page_after(tx, model, cursor, until=until))  # noqa: B023
                    cursor, more, got = page.cursor, page.more, got + len(page.frames)
                    assert len(page.times) == len(page.frames)
                assert (cursor, got) == (until, count)


@settings(max_examples=40)
@given(
    printed=st.lists(st.tuples(st.sampled_from([RUN, RUN_2, None]), st.booleans()), max_size=30),
    scanned=st.integers(1, 12),
    begin=st.integers(0, 30),
)
def test_a_glimpse_tells_of_every_line_and_of_its_first(
    printed: list[tuple[str | None, bool]], scanned: int, begin: int
) -> None:
    store = SyncStore("managedd.store.migrations.logs")
    workspaces = (OTHER_WORKSPACE, ids.DEFAULT_WORKSPACE_ID)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tails, "SCAN_ROWS", scanned)
        for number, (run, is_here) in enumerate(printed):
            append(store, line(number, flow_run_id=run), workspace=workspaces[is_here])
        cursor, more = begin, True
        told: set[int] = set()
        while more:
            found = store.read(lambda tx: logs.glimpse(tx, cursor))  # noqa: B023
            lines: dict[tuple[str, str | None], int] = {}
            for number, (run, is_here) in enumerate(printed, start=1):
                if cursor < number <= found.cursor:
                    lines.setdefault((workspaces[is_here], run), number)
            assert {(one.workspace_id, one.key): one.position for one in found.seen} == lines
            assert found.cursor > cursor or not found.more
            told |= set(range(cursor + 1, found.cursor + 1))
            more, cursor = found.more, found.cursor
        assert told == set(range(begin + 1, len(printed) + 1))
    store.close()


def test_a_tail_begins_neither_at_what_is_dated_ahead_nor_hours_ago(store: SyncStore) -> None:
    now_us = store.read(lambda tx: tx.now)
    ahead, old, young = now_us + 10**15, now_us - 2 * logs.MAX_BACKFILL_US, now_us
    append(store, *(line(n, timestamp_us=at_us) for n, at_us in enumerate((ahead, old, young))))

    def start(**filter_: Any) -> int:
        wanted = LogFilter.model_validate({"timestamp": {"after_": iso(old - 1)}, **filter_})
        return store.read(lambda tx: logs.before(tx, wanted))

    assert start() == 2
    assert start(flow_run_id={"any_": [RUN]}) == 1


def test_a_tail_of_runs_steps_over_a_long_stretch_of_others_lines(
    store: SyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tails, "SCAN_ROWS", 10)
    append(store, line(1), *(line(n, flow_run_id=RUN_2) for n in range(200)), line(2), line(3, level=10))
    append(store, *(line(n, flow_run_id=RUN_2) for n in range(100)))

    def cursors(**filter_: Any) -> list[int]:
        model, cursor, more, at = LogFilter.model_validate(filter_), 1, True, []
        while more:
            page = store.read(lambda tx, cursor=cursor: logs.page_after(tx, model, cursor))  # type: ignore[misc]
            cursor, more = page.cursor, page.more
            at.append(cursor)
        return at

    mine = {"flow_run_id": {"any_": [RUN, ids.new_id()]}}
    assert cursors(**mine) == [201, 211, 303]
    assert followed(store, mine, 1) == ["line 2", "line 3"]
    # Where a line of another run would do as well, every line is looked at.
    assert len(cursors(**mine, level={"ge_": 50}, operator="or_")) > 20
    assert cursors(flow_run_id={"any_": [ids.new_id()]}) == [303]


def test_lines_that_another_workspace_wrote_under_the_runs_id_are_stepped_over_as_well(
    store: SyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tails, "SCAN_ROWS", 10)
    now_us = store.read(lambda tx: tx.now)
    append(store, *(line(n, timestamp_us=now_us) for n in range(100)), workspace=OTHER_WORKSPACE)
    append(store, line(1, timestamp_us=now_us))
    append(store, *(line(n, timestamp_us=now_us) for n in range(100)), workspace=OTHER_WORKSPACE)
    append(store, line(2, timestamp_us=now_us))
    mine = LogFilter.model_validate({"flow_run_id": {"any_": [RUN]}, "timestamp": {"after_": iso(now_us - 1)}})
    assert store.read(lambda tx: logs.before(tx, mine)) == 100
    assert store.read(lambda tx: logs.page_after(tx, mine, 0)).cursor == 100
    assert store.read(lambda tx: logs.page_after(tx, mine, 101)).cursor == 201


def test_ids_are_never_used_again(store: SyncStore) -> None:
    append(store, line(1), line(2))
    assert store.write(lambda tx: logs.delete_of_run(tx, RUN, 10)) == 2
    append(store, line(3))
    assert followed(store, {}, 2) == ["line 3"]


def test_cursors_are_kept_per_execution(store: SyncStore) -> None:
    assert store.read(lambda tx: logs.cursor(tx, "e")) == LogCursor()
    store.write(lambda tx: logs.set_cursor(tx, "e", LogCursor(5, 1)))
    store.write(lambda tx: logs.set_cursor(tx, "e", LogCursor(7, 0)))
    assert store.read(lambda tx: logs.cursor(tx, "e")) == LogCursor(7, 0)
    assert store.read(lambda tx: logs.cursor(tx, "other")) == LogCursor()
    store.write(lambda tx: logs.drop_cursor(tx, "e"))
    assert store.read(lambda tx: logs.cursor(tx, "e")) == LogCursor()


def test_deletion_goes_in_small_steps(store: SyncStore) -> None:
    append(
        store, *(line(n) for n in range(5)), line(6, flow_run_id=RUN_2), *(line(n, flow_run_id=None) for n in (7, 8))
    )
    assert [store.write(lambda tx: logs.delete_of_run(tx, RUN, 2)) for _ in range(4)] == [2, 2, 1, 0]
    assert store.write(lambda tx: logs.delete_unowned_before(tx, BASE_US + 8, 10)) == 1
    assert found(store) == ["line 6", "line 8"]


def keys(store: SyncStore, named: str) -> set[str]:
    return store.read(lambda tx: {row[0] for row in tx.all(f"SELECT id FROM {named}")})


def test_keys_go_with_the_last_line_that_has_them(store: SyncStore) -> None:
    shared, unowned = ids.new_id(), ids.new_id()
    append(
        store,
        *(line(n, task_run_id=TASK) for n in range(3)),
        line(3, task_run_id=shared),
        line(4, flow_run_id=RUN_2, task_run_id=shared),
        line(5, flow_run_id=None, task_run_id=unowned),
        line(6, flow_run_id=None, task_run_id=unowned),
    )
    assert store.write(lambda tx: logs.delete_of_run(tx, RUN, 2)) == 2
    assert keys(store, "log_task_runs") == {TASK, shared, unowned}
    assert store.write(lambda tx: logs.delete_of_run(tx, RUN, 3)) == 2
    assert keys(store, "log_runs") == {RUN_2}
    assert keys(store, "log_task_runs") == {shared, unowned}
    assert store.write(lambda tx: logs.delete_unowned_before(tx, BASE_US + 6, 9)) == 1
    assert keys(store, "log_task_runs") == {shared, unowned}
    assert store.write(lambda tx: logs.delete_unowned_before(tx, BASE_US + 7, 9)) == 1
    assert store.write(lambda tx: logs.delete_of_run(tx, RUN_2, 9)) == 1
    assert keys(store, "log_runs") == keys(store, "log_task_runs") == set()
    # Keys that are used again lead to no line of before.
    append(store, line(7, flow_run_id=RUN_2, task_run_id=TASK))
    assert found(store, {"task_run_id": {"any_": [shared]}}) == found(store, {"flow_run_id": {"any_": [RUN]}}) == []


def test_the_lines_can_be_looked_at_with_their_ids(store: SyncStore) -> None:
    append(store, line(1, task_run_id=TASK), line(2, flow_run_id=None))
    sql = "SELECT workspace_id, flow_run_id, task_run_id, message FROM log_lines ORDER BY id"
    assert [tuple(row) for row in store.read(lambda tx: tx.all(sql))] == [
        (ids.DEFAULT_WORKSPACE_ID, RUN, TASK, "line 1"),
        (ids.DEFAULT_WORKSPACE_ID, None, None, "line 2"),
    ]


def test_runs_that_have_lines_can_be_walked(store: SyncStore) -> None:
    append(store, line(1), line(2), line(3, flow_run_id=RUN_2), line(4, flow_run_id=None))
    assert store.read(lambda tx: retention.logged_runs_after(tx, "")) == sorted([RUN, RUN_2])
    first, second = sorted([RUN, RUN_2])
    assert store.read(lambda tx: retention.logged_runs_after(tx, first)) == [second]
    assert store.read(lambda tx: retention.logged_runs_after(tx, second)) == []


def test_a_page_of_one_run_is_read_from_its_index(store: SyncStore) -> None:
    plans: list[str] = []

    def page(tx: Any) -> None:
        spied = SpyTx(tx, plans)
        logs.find(spied, LogFilter.model_validate({"flow_run_id": {"any_": [RUN]}}), LogSort.TIMESTAMP_ASC, 200, 0)  # type: ignore[arg-type]

    store.read(page)
    assert "logs_flow_run (flow_run=? AND workspace=?)" in plans[0]
    assert "TEMP B-TREE" not in plans[0]


class SpyTx:
    """A transaction that notes how each query would be answered."""

    def __init__(self, tx: Any, plans: list[str]) -> None:
        self._tx = tx
        self._plans = plans
        self.workspace = tx.workspace

    def all(self, sql: str, params: Any = ()) -> Any:
        return self.execute(sql, params).fetchall()

    def execute(self, sql: str, params: Any = ()) -> Any:
        self._plans.append("\n".join(row[3] for row in self._tx.all(f"EXPLAIN QUERY PLAN {sql}", params)))
        return self._tx.execute(sql, params)


# --- lineage -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def state() -> Iterator[SyncStore]:
    made = with_workspaces(SyncStore())
    yield made
    made.close()


def test_descendants_of_any_depth(state: SyncStore) -> None:
    top = add_flow_run(state)
    child = add_flow_run(state, parent=add_task_run(state, top))
    grandchild = add_flow_run(state, parent=add_task_run(state, child))
    stranger = add_flow_run(state, parent=add_task_run(state, None))

    def below(run: str, of: str, workspace: str = ids.DEFAULT_WORKSPACE_ID) -> bool:
        return state.read(lambda tx: lineage.is_descendant(tx, run, of), workspace)

    assert below(top, top)
    assert below(child, top)
    assert below(grandchild, top)
    assert not below(top, child)
    assert not below(stranger, top)
    assert not below(grandchild, top, OTHER_WORKSPACE)
    assert not below(ids.new_id(), top)
    assert state.read(lambda tx: lineage.first_foreign(tx, [child, stranger, grandchild], top)) == stranger
    for own in ([], [top], [child, grandchild], [top, grandchild, grandchild]):
        assert state.read(lambda tx, own=own: lineage.first_foreign(tx, own, top)) is None  # type: ignore[misc]
    unknown = ids.new_id()
    assert state.read(lambda tx: lineage.first_foreign(tx, [child, unknown], top)) == unknown
    assert state.read(lambda tx: lineage.first_foreign(tx, [child], top), OTHER_WORKSPACE) == child
    many = [top, child, grandchild, *(ids.new_id() for _ in range(2_000))]
    assert state.read(lambda tx: lineage.first_foreign(tx, many, top)) in many[3:]


def test_a_circle_of_parents_ends(state: SyncStore) -> None:
    first = add_flow_run(state)
    second = add_flow_run(state, parent=add_task_run(state, first))
    loop = add_task_run(state, second)
    state.write(
        lambda tx: tx.execute("UPDATE flow_runs SET parent_task_run_id = ? WHERE id = ?", (loop, first)).rowcount
    )
    stranger = add_flow_run(state)
    assert state.read(lambda tx: lineage.first_foreign(tx, [first, second], stranger)) in {first, second}
    assert state.read(lambda tx: lineage.is_descendant(tx, first, second))
    assert not state.read(lambda tx: lineage.is_descendant(tx, first, stranger))


def test_what_a_run_belongs_to(state: SyncStore) -> None:
    parent = add_flow_run(state)
    task = add_task_run(state, parent)
    run = add_flow_run(state, parent=task)
    around = state.read(lambda tx: lineage.surroundings(tx, run))
    assert around is not None
    assert (around.run.id, around.run.name) == (run, "brave-otter")
    assert around.flow is not None
    assert around.task_run is not None
    assert around.task_run.id == task
    assert (around.deployment, around.work_queue, around.work_pool) == (None, None, None)
    assert state.read(lambda tx: lineage.surroundings(tx, ids.new_id())) is None
    assert state.read(lambda tx: lineage.surroundings(tx, run), OTHER_WORKSPACE) is None
