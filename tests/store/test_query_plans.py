"""Hot queries are answered by indexes: no scan of a large table, and no sorting where a page of one is asked for."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from managedd import ids
from managedd.clock import iso
from managedd.model.logs import LogRecord
from managedd.model.states import OCCUPYING, TERMINAL, StateType
from managedd.store import (
    concurrency,
    deployments,
    event_sizes,
    events,
    execution_leases,
    executions,
    flow_runs,
    lineage,
    log_pages,
    logs,
    overdue,
    queue,
    retention,
    rows,
    run_history,
    samples,
    schedules,
)
from managedd.store.resources import (
    ARTIFACT,
    DEPLOYMENT,
    FLOW,
    FLOW_RUN,
    LIVE_TYPES,
    OCCUPYING_SQL,
    TASK_RUN,
    TERMINAL_SQL,
    WORK_POOL,
    WORK_QUEUE,
)
from managedd.wire.filters.artifacts import ArtifactFilter
from managedd.wire.filters.deployments import DeploymentFilter
from managedd.wire.filters.events import EventFilter
from managedd.wire.filters.flow_runs import FlowRunFilter
from managedd.wire.filters.flows import FlowFilter
from managedd.wire.filters.logs import LogFilter
from managedd.wire.filters.task_runs import TaskRunFilter
from managedd.wire.filters.work_queues import WorkQueueFilter
from managedd.wire.sorting import LogSort
from tests.support.sync_store import SyncStore, with_workspaces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from managedd.store.transaction import Tx

    Ask = Callable[[Tx], Any]

SOME, OTHER = ids.new_id(), ids.new_id()
NOW = 1_780_000_000_000_000
WINDOW = {"after_": iso(NOW - 10**12), "before_": iso(NOW)}
LARGE = frozenset(
    {"flow_runs", "flow_run_states", "task_runs", "task_run_states", "executions", "events", "event_related", "logs"}
    | {"log_runs", "log_task_runs", "r", "s", "t", "o", "e"}
)
"""Tables that grow with every run, and what the engine's queries call them."""


class Planned:
    """A transaction that notes how SQLite would answer each query, and asks it all the same."""

    def __init__(self, tx: Tx, plans: list[list[str]]) -> None:
        self._tx, self._plans = tx, plans
        self.workspace, self.now, self.publish = tx.workspace, tx.now, tx.publish

    def __getattr__(self, name: str) -> Callable[..., Any]:
        asked = getattr(self._tx, name)

        def ask(sql: str, params: Any = ()) -> Any:
            self._plans.append([row[3] for row in self._tx.all(f"EXPLAIN QUERY PLAN {sql}", params)])
            return asked(sql, params)

        return ask


@pytest.fixture(scope="module")
def state() -> Iterator[SyncStore]:
    with closing(with_workspaces(SyncStore())) as store:
        yield store


@pytest.fixture(scope="module")
def lines() -> Iterator[SyncStore]:
    with closing(SyncStore("managedd.store.migrations.logs")) as store:
        yield store


def plan(store: SyncStore, ask: Ask) -> str:
    """How the queries of `ask` are answered, one step a line."""
    plans: list[list[str]] = []
    store.write(lambda tx: ask(Planned(tx, plans)))  # type: ignore[arg-type]
    assert plans
    return "\n".join(step for steps in plans for step in steps)


def assert_no_scan(found: str) -> None:
    for step in found.splitlines():
        walked = re.match(r"SCAN (\w+)$|SEARCH (\w+) USING AUTOMATIC", step)
        assert walked is None or not LARGE & set(walked.groups()), found


def runs(given: dict[str, Any], sort: str = "EXPECTED_START_TIME_DESC") -> Ask:
    return lambda tx: rows.find(tx, FLOW_RUN, [(FLOW_RUN, FlowRunFilter.model_validate(given))], sort, 200)


def tasks(given: dict[str, Any], sort: str = "EXPECTED_START_TIME_DESC") -> Ask:
    return lambda tx: rows.find(tx, TASK_RUN, [(TASK_RUN, TaskRunFilter.model_validate(given))], sort, 200)


RUN_ORDERS = {
    "ID_DESC": "sqlite_autoindex_flow_runs_1",
    "START_TIME_ASC": "flow_runs_began",
    "START_TIME_DESC": "flow_runs_began",
    "EXPECTED_START_TIME_ASC": "flow_runs_expected",
    "EXPECTED_START_TIME_DESC": "flow_runs_expected",
    "NAME_ASC": "flow_runs_name",
    "NAME_DESC": "flow_runs_name",
    "END_TIME_DESC": "flow_runs_ended",
}


def chosen(found: str) -> str:
    """The part of a plan that chooses the page; what follows reads its rows."""
    lines = found.splitlines()
    assert lines[0] == "SEARCH flow_runs USING INTEGER PRIMARY KEY (rowid=?)" or "task_runs" in lines[0], found
    return "\n".join(line for line in lines[1:] if not line.startswith("SEARCH run_"))


@pytest.mark.parametrize("given", [{}, {"state": {"type": {"any_": ["FAILED"]}}}, {"tags": {"any_": ["x"]}}])
@pytest.mark.parametrize("sort", RUN_ORDERS)
def test_a_page_of_runs_is_read_in_its_order(state: SyncStore, sort: str, given: dict[str, Any]) -> None:
    found = chosen(plan(state, runs(given, sort)))
    assert RUN_ORDERS[sort] in found
    # The rows of the page are sorted once more, those that were not chosen never.
    assert found.count("TEMP B-TREE") == 1


@pytest.mark.parametrize(
    ("field", "sort", "index"),
    [
        (
            "expected_start_time",
            "EXPECTED_START_TIME_DESC",
            "flow_runs_expected (workspace_id=? AND expected_start_time>?",
        ),
        ("start_time", "START_TIME_DESC", "flow_runs_began (workspace_id=? AND <expr>>?"),
        ("end_time", "END_TIME_DESC", "flow_runs_ended (workspace_id=? AND end_time>?"),
    ],
)
def test_a_window_of_time_is_found_in_its_order(state: SyncStore, field: str, sort: str, index: str) -> None:
    found = chosen(plan(state, runs({field: WINDOW}, sort)))
    assert index in found
    assert found.count("TEMP B-TREE") == 1
    assert index in plan(state, runs({field: WINDOW}, "ID_DESC"))


@pytest.mark.parametrize("sort", RUN_ORDERS)
@pytest.mark.parametrize(
    ("given", "index"),
    [
        ({"id": {"any_": [SOME, OTHER]}}, "sqlite_autoindex_flow_runs_1 (id=?)"),
        ({"name": {"any_": ["brave-otter"]}}, "flow_runs_name (name=?)"),
        ({"deployment_id": {"any_": [SOME]}}, "flow_runs_deployment (deployment_id=?)"),
        ({"parent_task_run_id": {"any_": [SOME]}}, "flow_runs_parent (parent_task_run_id=?)"),
        ({"parent_flow_run_id": {"any_": [SOME]}}, "flow_runs_parent (parent_task_run_id=?)"),
        ({"state": {"type": {"any_": ["RUNNING"]}}}, "flow_runs_live (state_type=?)"),
        ({"state": {"type": {"any_": ["RUNNING", "PENDING"]}}}, "flow_runs_live (state_type=?)"),
        ({"state": {"type": {"any_": ["SCHEDULED"]}, "name": {"any_": ["Late"]}}}, "flow_runs_live (state_type=?)"),
    ],
)
def test_what_leads_to_few_runs_beats_every_order(
    state: SyncStore, given: dict[str, Any], index: str, sort: str
) -> None:
    assert index in plan(state, runs(given, sort))


def test_the_runs_of_one_deployment_or_flow_are_read_in_their_order(state: SyncStore) -> None:
    mine = [(DEPLOYMENT, DeploymentFilter.model_validate({"id": {"any_": [SOME]}}))]
    flow = [(FLOW, FlowFilter.model_validate({"id": {"any_": [SOME]}}))]
    for filters, index in ((mine, "flow_runs_deployment (deployment_id=?)"), (flow, "flow_runs_flow (flow_id=?)")):
        found = chosen(plan(state, lambda tx, f=filters: rows.find(tx, FLOW_RUN, f, "EXPECTED_START_TIME_DESC", 200)))
        assert index in found
        assert found.count("TEMP B-TREE") == 1


@pytest.mark.parametrize(
    ("given", "index"),
    [
        ({}, "USING COVERING INDEX"),
        (
            {"start_time": WINDOW, "state": {"type": {"any_": ["FAILED"]}}},
            "flow_runs_began (workspace_id=? AND <expr>>?",
        ),
        ({"state": {"type": {"any_": ["RUNNING"]}}}, "flow_runs_live (state_type=?)"),
        ({"deployment_id": {"any_": [SOME]}}, "flow_runs_deployment (deployment_id=?)"),
    ],
)
def test_a_count_reads_one_index_and_joins_nothing(state: SyncStore, given: dict[str, Any], index: str) -> None:
    filters = [(FLOW_RUN, FlowRunFilter.model_validate(given))]
    found = plan(state, lambda tx: rows.count(tx, FLOW_RUN, filters))
    assert index in found
    assert "run_state" not in found
    assert_no_scan(found)


@pytest.mark.parametrize(
    ("given", "index"),
    [
        ({}, "flow_runs_expected (workspace_id=? AND expected_start_time>? AND expected_start_time<?)"),
        ({"deployment_id": {"any_": [SOME]}}, "flow_runs_deployment (deployment_id=? AND expected_start_time>?"),
    ],
)
def test_runs_are_counted_by_time_in_a_window_of_it(state: SyncStore, given: dict[str, Any], index: str) -> None:
    filters = [(FLOW_RUN, FlowRunFilter.model_validate(given))]
    found = plan(
        state, lambda tx: run_history.counted(tx, filters, start_us=NOW, interval_us=3_600_000_000, intervals=24)
    )
    assert index in found
    assert "run_state" not in found
    assert_no_scan(found)


def test_runs_are_counted_by_their_start_in_a_window_of_it(state: SyncStore) -> None:
    filters = [(FLOW_RUN, FlowRunFilter.model_validate({"start_time": WINDOW}))]
    asked = {"start_us": NOW - 10**12, "interval_us": 3_600_000_000, "intervals": 24}
    found = plan(state, lambda tx: run_history.counted(tx, filters, by="start_time", **asked))
    assert "flow_runs_began (workspace_id=? AND <expr>>?" in found
    assert_no_scan(found)


def test_task_runs_of_a_flow_run_and_pages_of_them(state: SyncStore) -> None:
    of_run = [(FLOW_RUN, FlowRunFilter.model_validate({"id": {"any_": [SOME]}}))]
    key = "task_runs_key (flow_run_id=?)"
    assert key in plan(state, tasks({"flow_run_id": {"any_": [SOME]}}))
    assert key in plan(state, lambda tx: rows.find(tx, TASK_RUN, of_run, "EXPECTED_START_TIME_DESC", 200))
    assert key in plan(state, lambda tx: rows.count(tx, TASK_RUN, of_run))
    for sort, index in (("EXPECTED_START_TIME_DESC", "task_runs_expected"), ("END_TIME_DESC", "task_runs_ended")):
        found = chosen(plan(state, tasks({}, sort)))
        assert index in found
        assert found.count("TEMP B-TREE") == 1


ENGINE: dict[str, Ask] = {
    "heads": queue.heads,
    "candidates": lambda tx: queue.candidates(tx, SOME, 64),
    "next_due": queue.next_due,
    "unheld": lambda tx: queue.unheld(tx, 64, since_before_us=NOW),
    "slots": lambda tx: flow_runs.slots_taken(tx, SOME, but=OTHER),
    "slots of who has ended": lambda tx: flow_runs.slots_leaving(tx, SOME, but=OTHER),
    "leases": lambda tx: execution_leases.release_all(tx, SOME, OTHER),
    "hungry": lambda tx: schedules.hungry(tx, min_runs=3, max_runs=100, horizon_us=NOW, after="", limit=100),
    "run dry": lambda tx: schedules.first_to_run_dry(tx, max_runs=100, before_us=NOW),
    "late": lambda tx: overdue.late(tx, due_before_us=NOW, limit=100),
    "first due": overdue.first_due,
    "paused": lambda tx: overdue.paused_too_long(tx, limit=100),
    "pause end": overdue.first_pause_end,
    "runs with old logs": lambda tx: retention.long_ended(tx, [SOME, OTHER], NOW),
    "orphans": lambda tx: overdue.orphaned_subflows(tx, since_us=NOW, limit=100),
    "orphaned tasks": lambda tx: overdue.orphaned_task_runs(tx, since_us=NOW, limit=100),
    "stuck": lambda tx: overdue.stuck_cancelling(tx, since_before_us=NOW, limit=100),
    "retention": lambda tx: retention.ended_runs_before(tx, NOW),
    "open executions": executions.open_ones,
    "live execution": lambda tx: executions.live_of_run(tx, SOME),
    "key": lambda tx: executions.by_key_hash(tx, "x"),
    "task runs of others": lambda tx: lineage.foreign_task_runs(tx, [SOME, OTHER], SOME),
    "runs of others": lambda tx: lineage.foreign(tx, [SOME, OTHER], SOME),
    "known events": lambda tx: events.known(tx, [SOME, OTHER]),
    "what a run has told": lambda tx: event_sizes.told(tx, SOME),
    "pools": lambda tx: rows.find(tx, WORK_POOL, [], "NAME_ASC", 200),
    "queues": lambda tx: rows.find(tx, WORK_QUEUE, [], "NAME_ASC", 200),
    "latest runs": lambda tx: deployments.latest_runs(tx, [SOME, OTHER]),
    "deployments": lambda tx: rows.find(tx, DEPLOYMENT, [], "NAME_ASC", 200),
    "what a run used": lambda tx: samples.of_run(tx, SOME),
    "what runs use": lambda tx: samples.add(tx, {SOME: [(1, 2, 3)], OTHER: [(1, 2, 3)]}),
    "artifacts of a run": lambda tx: rows.find(
        tx, ARTIFACT, [(ARTIFACT, ArtifactFilter.model_validate({"flow_run_id": {"any_": [SOME]}}))], "CREATED_DESC", 9
    ),
}


@pytest.mark.parametrize("name", ENGINE)
def test_the_engines_own_questions_scan_no_large_table(state: SyncStore, name: str) -> None:
    found = plan(state, ENGINE[name])
    assert_no_scan(found)
    assert "BLOOM FILTER" not in found, found


def test_who_runs_for_a_deployment_is_counted_without_reading_runs_that_hold_slots(state: SyncStore) -> None:
    found = plan(state, lambda tx: flow_runs.slots_leaving(tx, SOME, but=OTHER))
    assert "executions_deployment (deployment_id=?)" in found
    assert "SEARCH h USING COVERING INDEX flow_runs_holding (deployment_id=? AND id=?" in found
    assert found.index("SEARCH h") < found.index("SEARCH l"), "the rows of the others only"


def test_leases_are_found_by_who_holds_them(state: SyncStore) -> None:
    found = plan(state, lambda tx: concurrency.is_held(tx, "tag:db", SOME))
    assert "SEARCH c USING INDEX concurrency_leases_holder (<expr>=?)" in found
    found = plan(state, lambda tx: execution_leases.release_all(tx, SOME, OTHER))
    assert "concurrency_leases_execution (execution_id=?)" in found
    assert "SEARCH c USING INDEX concurrency_leases_elsewhere (workspace_id=?)" in found


def test_what_is_of_a_workspace_or_a_queue_is_found_without_taking_the_way_of_what_leads_to_fewer(
    state: SyncStore,
) -> None:
    of_queue = WorkQueueFilter.model_validate({"id": {"any_": [SOME]}})
    found = plan(state, lambda tx: rows.find(tx, FLOW_RUN, [(WORK_QUEUE, of_queue)], "EXPECTED_START_TIME_DESC", 200))
    assert "SEARCH flow_runs USING INDEX flow_runs_of_queue (work_queue_id=?)" in found
    one = {
        "id": SOME,
        "created": iso(0),
        "name": "q",
        "work_pool_type": "managed",
        "is_paused": False,
        "polled_us": None,
    }
    found = plan(state, lambda tx: WORK_QUEUE.finish is not None and WORK_QUEUE.finish(tx, [dict(one)]))
    assert "SEARCH flow_runs USING INDEX flow_runs_occupying (work_queue_id=?)" in found
    sql = "SELECT 1 FROM {} WHERE {} = ? AND workspace_id = ?"
    for table, key in (
        ("deployment_schedules", "deployment_id"),
        ("flow_run_inputs", "flow_run_id"),
        ("workers", "work_pool_id"),
    ):
        assert f"({key}=?)" in state.plan(sql.format(table, key), (SOME, SOME))


def test_events_are_paged_in_their_order_and_followed_by_their_key(state: SyncStore) -> None:
    latest = EventFilter.model_validate({"occurred": {"since": iso(0), "until": iso(NOW)}})
    found = plan(state, lambda tx: events.find(tx, latest, limit=50))
    assert "events_occurred (workspace_id=? AND occurred>? AND occurred<?)" in found
    assert "TEMP B-TREE" not in found
    assert plan(state, lambda tx: events.find(tx, latest, limit=50, offset=50, known=(1, 7))) in found

    def follow(tx: Tx) -> Any:
        tx.execute(
            "INSERT INTO events (id, workspace_id, occurred, received, event, resource_id, resource) "
            "VALUES (?, ?, 0, 0, 'e', 'r', '{}')",
            (ids.new_id(), tx.workspace),
        )
        return events.page_after(tx, latest, 0)

    assert "SEARCH events USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)" in plan(state, follow)
    begin = plan(state, lambda tx: events.before(tx, NOW))
    assert "SEARCH events USING INDEX events_received (workspace_id=? AND received>?)" in begin
    assert "TEMP B-TREE" not in begin
    old = plan(state, lambda tx: events.delete_received_before(tx, NOW, 500))
    assert "SEARCH old USING INDEX events_received (workspace_id=? AND received<?)" in old


@pytest.mark.parametrize(
    ("given", "index"),
    [
        ({"flow_run_id": {"any_": [SOME]}}, "logs_flow_run (flow_run=? AND workspace=?)"),
        ({"flow_run_id": {"any_": [SOME]}, "level": {"ge_": 20}}, "logs_flow_run (flow_run=? AND workspace=?)"),
        ({"flow_run_id": {"any_": [SOME]}, "level": {"ge_": 30}}, "logs_severe_run (flow_run=? AND workspace=?)"),
        ({"level": {"ge_": 40}, "timestamp": WINDOW}, "logs_severe (workspace=? AND timestamp>?"),
        (
            {"flow_run_id": {"any_": [SOME]}, "timestamp": WINDOW},
            "logs_flow_run (flow_run=? AND workspace=? AND timestamp>?",
        ),
        ({"task_run_id": {"any_": [SOME]}}, "logs_task_run (task_run=? AND workspace=?)"),
        ({}, "logs_workspace (workspace=?)"),
        ({"timestamp": WINDOW}, "logs_workspace (workspace=? AND timestamp>?"),
    ],
)
@pytest.mark.parametrize("sort", LogSort)
def test_a_page_of_log_lines_is_read_in_its_order(
    lines: SyncStore, given: dict[str, Any], index: str, sort: LogSort
) -> None:
    found = plan(lines, lambda tx: logs.find(tx, LogFilter.model_validate(given), sort, 200, 0))
    assert index in found
    assert "TEMP B-TREE" not in found
    assert_no_scan(found)


def a_line(tx: Tx) -> None:
    record = LogRecord(name="n", level=20, message="m", timestamp_us=NOW, flow_run_id=SOME, task_run_id=OTHER)
    logs.append(tx, [record, record._replace(flow_run_id=None)])


BY_RUN, BY_KEY = "logs_flow_run (flow_run=?", "INTEGER PRIMARY KEY (rowid>? AND rowid<?)"
IN_ORDER = "logs_run_order (flow_run=? AND workspace=?"
OF_RUNS = LogFilter.model_validate({"flow_run_id": {"any_": [SOME, OTHER]}, "timestamp": {"after_": iso(NOW)}})
OF_LOGS: dict[str, tuple[Ask, str]] = {
    "lines of runs": (
        lambda tx: logs.find(tx, OF_RUNS, LogSort.TIMESTAMP_ASC, 200, 0),
        f"LEFT\nSEARCH logs USING COVERING INDEX {BY_RUN} AND workspace=? AND timestamp>?)",
    ),
    "lines after": (lambda tx: logs.lines_after(tx, SOME, (-1, 0), 200), f"{BY_RUN} AND workspace=?"),
    "a tail's begin": (
        lambda tx: logs.before(tx, OF_RUNS),
        "INDEX logs_flow_run (flow_run=? AND workspace=? AND timestamp>? AND timestamp<?)",
    ),
    "a workspace's tail's begin": (
        lambda tx: logs.before(tx, LogFilter.model_validate({"timestamp": {"after_": iso(NOW)}})),
        "COVERING INDEX logs_workspace (workspace=? AND timestamp>?",
    ),
    "a tail's page": (lambda tx: logs.page_after(tx, OF_RUNS, 0), BY_KEY),
    "the first line": (lambda tx: log_pages.before_last(tx, SOME, None), f"COVERING INDEX {IN_ORDER})"),
    "the last lines": (lambda tx: log_pages.before_last(tx, SOME, 20), f"COVERING INDEX {IN_ORDER})"),
    "before a time": (
        lambda tx: log_pages.before_time(tx, SOME, NOW + 1),
        f"COVERING INDEX {BY_RUN} AND workspace=? AND timestamp>?",
    ),
    "a run's page": (lambda tx: log_pages.page_after(tx, SOME, 0), f"{IN_ORDER} AND rowid>? AND rowid<?)"),
    "news": (lambda tx: log_pages.news_after(tx, [(ids.DEFAULT_WORKSPACE_ID, SOME)], 0), BY_KEY),
    "deletion of a run's": (lambda tx: logs.delete_of_run(tx, SOME, 500), f"COVERING INDEX {BY_RUN}"),
    "removal of a run's": (lambda tx: logs.remove_of_run(tx, SOME, 1, "removed"), f"COVERING INDEX {BY_RUN}"),
    "runs with lines": (lambda tx: retention.runs_with_lines(tx, [SOME, OTHER]), f"COVERING INDEX {BY_RUN}"),
    "deletion of unowned ones": (
        lambda tx: logs.delete_unowned_before(tx, NOW + 1, 500),
        f"COVERING INDEX {BY_RUN} AND workspace=? AND timestamp<?",
    ),
    "walk of the runs": (lambda tx: retention.logged_runs_after(tx, ""), "sqlite_autoindex_log_runs_1 (id>?"),
}


@pytest.mark.parametrize("name", OF_LOGS)
def test_no_question_to_a_log_scans_it(lines: SyncStore, name: str) -> None:
    ask, index = OF_LOGS[name]
    lines.write(a_line)
    found = plan(lines, ask)
    assert index in found
    assert IN_ORDER not in index or "TEMP B-TREE" not in found
    assert_no_scan(found)


def test_state_types_in_indexes_are_those_of_the_model() -> None:
    assert set(LIVE_TYPES) == {type_.value for type_ in StateType if type_ not in TERMINAL}
    assert set(re.findall(r"\w+", OCCUPYING_SQL)) == {type_.value for type_ in OCCUPYING}
    assert set(re.findall(r"\w+", TERMINAL_SQL)) == {type_.value for type_ in TERMINAL}


@pytest.mark.parametrize(
    ("index", "states", "of"),
    [
        ("flow_runs_occupying", f"state_type IN {OCCUPYING_SQL}", "work_queue_id"),
        ("flow_runs_holding", f"state_type IN {OCCUPYING_SQL}", "deployment_id"),
        ("flow_runs_queue", "state_type = 'SCHEDULED'", "work_queue_id"),
        ("flow_runs_scheduled", "state_type = 'SCHEDULED'", "deployment_id"),
    ],
)
def test_a_run_of_no_queue_and_no_deployment_is_in_no_index_of_theirs(
    state: SyncStore, index: str, states: str, of: str
) -> None:
    all_of_them = f"SELECT count(*) FROM flow_runs INDEXED BY {index} WHERE {states}"
    # SQLite answers from a partial index only what asks for no more than is in it.
    with pytest.raises(sqlite3.OperationalError, match="no query solution"):
        state.read(lambda tx: tx.scalar(all_of_them))
    assert state.read(lambda tx: tx.scalar(f"{all_of_them} AND {of} IS NOT NULL")) == 0
