"""Events in the store: kept once, found by filter, followed by position."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from managedd import ids
from managedd.api import interests
from managedd.bus import Topic
from managedd.clock import from_us, to_us
from managedd.model.event_counts import spans
from managedd.model.events import Event
from managedd.store import events, tails, text_search
from managedd.store.event_filters import compile_event_filter
from managedd.wire.events import EventCount, ReceivedEvent
from managedd.wire.filters.events import EventFilter
from tests.support.sync_store import OTHER_WORKSPACE, SyncStore, with_workspaces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from managedd.store.database import Tx

T = TypeVar("T")

BASE = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)
BASE_US = to_us(BASE)
WHOLE = {"since": (BASE - timedelta(days=1)).isoformat(), "until": (BASE + timedelta(days=1)).isoformat()}


@pytest.fixture
def store() -> Iterator[SyncStore]:
    made = with_workspaces(SyncStore())
    yield made
    made.close()


def event(number: int = 0, **changes: Any) -> Event:
    values: dict[str, Any] = {
        "id": f"00000000-0000-4000-8000-{number:012d}",
        "occurred_us": BASE_US + number * 1_000_000,
        "event": "thing.happened",
        "resource": {"prefect.resource.id": "thing.1"},
        **changes,
    }
    return Event(**values)


def related(thing: str, role: str, **labels: str) -> dict[str, str]:
    return {"prefect.resource.id": thing, "prefect.resource.role": role, **labels}


def wanted(**parts: Any) -> EventFilter:
    return EventFilter.model_validate({"occurred": WHOLE, **parts})


def query(store: SyncStore, fn: Callable[[Tx], T], workspace: str = ids.DEFAULT_WORKSPACE_ID) -> T:
    """What `fn` finds once every event is in the indexes."""
    while store.read(events.indexed_to) < store.read(events.head):
        store.write(lambda tx: events.catch_up(tx, 3))
    return store.read(fn, workspace)


def found(store: SyncStore, filter_: EventFilter, **options: Any) -> list[str]:
    page = query(store, lambda tx: events.find(tx, filter_, limit=options.pop("limit", 50), **options))
    return [row["id"] for row in page.events]


def followed(
    store: SyncStore, filter_: EventFilter, cursor: int = 0, workspace: str = ids.DEFAULT_WORKSPACE_ID
) -> list[str]:
    got = []
    more = True
    while more:
        page = store.read(lambda tx, cursor=cursor: events.page_after(tx, filter_, cursor), workspace)
        got += [orjson.loads(frame)["event"]["id"] for frame in page.frames]
        cursor, more = page.cursor, page.more
    return got


def test_an_event_is_kept_once(store: SyncStore) -> None:
    assert store.write(lambda tx: events.insert(tx, [event(1), event(2), event(1)])) == [event(1), event(2)]
    assert store.topics == [Topic.EVENTS]
    assert store.write(lambda tx: events.insert(tx, [event(2, event="other"), event(3)])) == [event(3)]
    store.topics.clear()
    assert store.write(lambda tx: events.insert(tx, [event(1)])) == []
    assert store.topics == []
    assert found(store, wanted()) == [event(n).id for n in (3, 2, 1)]
    assert found(store, wanted(event={"name": ["other"]})) == []


def test_events_are_indexed_in_their_order_and_once(store: SyncStore) -> None:
    store.write(lambda tx: events.insert(tx, [event(n, related=(related("r", "tag"),)) for n in range(5)]))
    assert store.read(lambda tx: events.count(tx, wanted())) == 0
    assert [store.write(lambda tx: events.catch_up(tx, 3)) for _ in range(3)] == [3, 2, 0]
    assert store.read(lambda tx: events.count(tx, wanted(any_resource={"id": ["r"]}))) == 5
    assert store.read(events.indexed_to) == store.read(events.head) == 5


def test_workspaces_keep_their_own_events(store: SyncStore) -> None:
    store.write(lambda tx: events.insert(tx, [event(1)]))
    assert store.write(lambda tx: events.insert(tx, [event(1)]), OTHER_WORKSPACE) == [event(1)]
    assert query(store, lambda tx: events.count(tx, wanted()), OTHER_WORKSPACE) == 1
    store.write(lambda tx: events.insert(tx, [event(2)]), OTHER_WORKSPACE)
    assert found(store, wanted()) == [event(1).id]
    assert followed(store, wanted()) == [event(1).id]
    whose = store.read(lambda tx: [row[0] for row in tx.all("SELECT workspace_id FROM events WHERE position > 1")])
    assert whose == [OTHER_WORKSPACE] * 2


def test_what_is_read_is_what_came_in(store: SyncStore) -> None:
    sent = event(
        1,
        resource={"prefect.resource.id": "thing.1", "näme": 'with "quotes"'},
        related=({"prefect.resource.id": "r", "prefect.resource.role": "tag"},),
        payload={"deep": [1, {"x": None}]},
        follows=event(0).id,
    )
    store.write(lambda tx: events.insert(tx, [sent]))
    page = query(store, lambda tx: events.find(tx, wanted(), limit=1))
    read = ReceivedEvent.model_validate_json(orjson.dumps(page.events[0]))
    assert (read.id, read.event, read.resource, read.payload, read.follows) == (
        sent.id,
        sent.event,
        sent.resource,
        sent.payload,
        sent.follows,
    )
    assert read.related == list(sent.related)
    assert to_us(read.occurred) == sent.occurred_us
    (loaded,) = store.read(lambda tx: events.of_resource(tx, "thing.1"))
    assert (loaded.resource, list(loaded.related), loaded.payload) == (sent.resource, list(sent.related), sent.payload)


def test_pages_order_and_totals(store: SyncStore) -> None:
    store.write(lambda tx: events.insert(tx, [event(n) for n in range(7)]))
    newest_first = [event(n).id for n in range(6, -1, -1)]
    assert found(store, wanted(), limit=3, offset=2) == newest_first[2:5]
    assert found(store, wanted(order="ASC"), limit=2) == newest_first[::-1][:2]
    page = query(store, lambda tx: events.find(tx, wanted(), limit=0))
    assert (page.events, page.total) == ([], 7)
    assert query(store, lambda tx: events.find(tx, wanted(), limit=1, known=(99, 7))).total == 99


def test_distinct_takes_the_newest_of_each_resource(store: SyncStore) -> None:
    things = [event(n, resource={"prefect.resource.id": f"thing.{n % 2}"}) for n in range(5)]
    store.write(lambda tx: events.insert(tx, things))
    filter_ = wanted(resource={"distinct": True})
    page = query(store, lambda tx: events.find(tx, filter_, limit=50))
    assert ([row["id"] for row in page.events], page.total) == ([event(4).id, event(3).id], 2)


# --- filters against an independent reading ------------------------------------------------------------------------------

THINGS = ["flow.a", "flow.b", "pool.a", "x_%[y]"]
ROLES = ["flow", "tag"]
NAMES = ["flow.Running", "flow.Done", "Flow.Done", "pool.ready"]
PATTERNS = ["flow.*", "*.a", "flow.?", "!flow.*", "x_%[y]", "*", "FLOW.*", "nothing"]

labels = st.dictionaries(st.sampled_from(["color", 'od"d']), st.sampled_from(["red", "blue", "flow.a"]), max_size=2)
events_drawn = st.lists(
    st.builds(
        lambda name, thing, own, others, payload: {
            "event": name,
            "resource": {"prefect.resource.id": thing, **own},
            "related": tuple({**more, **related(other, role)} for other, role, more in others),
            "payload": {"text": payload},
        },
        st.sampled_from(NAMES),
        st.sampled_from(THINGS),
        labels,
        st.lists(st.tuples(st.sampled_from(THINGS), st.sampled_from(ROLES), labels), max_size=3),
        st.sampled_from(["", "an error", "Error timeout", "50%_"]),
    ),
    max_size=6,
)
specification = st.dictionaries(
    st.sampled_from(["prefect.resource.id", "prefect.resource.role", "color", 'od"d']),
    st.one_of(
        st.sampled_from([*PATTERNS, "flow", "red", "!red"]), st.lists(st.sampled_from([*PATTERNS, "red"]), max_size=2)
    ),
    min_size=1,
    max_size=2,
)


def optional(**parts: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=parts)


def some(values: list[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), max_size=2)


primary_filter = optional(id=some(THINGS), id_prefix=some(["flow", "pool.", "x_"]), labels=specification)
related_filter = optional(
    id=some(THINGS),
    role=some(ROLES),
    resources_in_roles=st.lists(st.tuples(st.sampled_from(THINGS), st.sampled_from(ROLES)), max_size=2),
    labels=specification,
)
any_filter = optional(id=some(THINGS), id_prefix=some(["flow", "x_"]), labels=specification)
filters_drawn = optional(
    event=optional(
        prefix=some(["flow.", "pool"]), exclude_prefix=some(["flow.D"]), name=some(NAMES), exclude_name=some(NAMES)
    ),
    resource=primary_filter,
    related=st.one_of(related_filter, st.lists(related_filter, max_size=2)),
    any_resource=st.one_of(any_filter, st.lists(any_filter, max_size=2)),
    id=st.lists(st.integers(0, 7), max_size=3).map(lambda numbers: {"id": [event(n).id for n in numbers]}),
    text=st.sampled_from(["error", "+error -timeout", '"50%_"', "blue RUNNING", "!pool"]).map(lambda q: {"query": q}),
)


def fits(pattern: str, value: str | None) -> bool:
    if value is None:
        return False
    matched = fnmatchcase(value, pattern.removeprefix("!").replace("[", "[[]"))
    return matched is not pattern.startswith("!")


def has_labels(spec: dict[str, Any], resource: dict[str, str], *, role_is_exact: bool) -> bool:
    for label, expected in spec.items():
        values = [expected] if isinstance(expected, str) else expected
        if not values and label == "prefect.resource.id":
            continue
        if label == "prefect.resource.role" and role_is_exact:
            if resource.get(label) not in values:
                return False
        elif not any(fits(value, resource.get(label)) for value in values):
            return False
    return True


def one_has(part: dict[str, Any], thing: dict[str, str]) -> bool:
    name, role = thing["prefect.resource.id"], thing.get("prefect.resource.role", "")
    return (
        (not part.get("id") or name in part["id"])
        and (not part.get("id_prefix") or name.startswith(tuple(part["id_prefix"])))
        and (not part.get("role") or role in part["role"])
        and (not part.get("resources_in_roles") or (name, role) in part["resources_in_roles"])
        and has_labels(part.get("labels", {}), thing, role_is_exact=False)
    )


def admits(spec: dict[str, Any], number: int, fields: dict[str, Any]) -> bool:
    name, thing = fields["event"], dict(fields["resource"])
    names = spec.get("event", {})
    if names.get("prefix") and not name.startswith(tuple(names["prefix"])):
        return False
    if names.get("exclude_prefix") and name.startswith(tuple(names["exclude_prefix"])):
        return False
    if (names.get("name") and name not in names["name"]) or name in names.get("exclude_name", []):
        return False
    if not one_has(spec.get("resource", {}), thing):
        return False
    parts = spec.get("related", [])
    for part in parts if isinstance(parts, list) else [parts]:
        if any(part.values()) and not any(one_has(part, dict(other)) for other in fields["related"]):
            return False
    parts = spec.get("any_resource", [])
    for part in parts if isinstance(parts, list) else [parts]:
        if any(part.values()) and not any(one_has(part, dict(o)) for o in [thing, *fields["related"]]):
            return False
    if spec.get("id", {}).get("id") and event(number).id not in spec["id"]["id"]:
        return False
    return "text" not in spec or searched(spec["text"]["query"], fields)


def searched(query: str, fields: dict[str, Any]) -> bool:
    parsed = text_search.parse(query)
    whole = " ".join(
        [
            fields["event"],
            *(orjson.dumps(part).decode() for part in (fields["resource"], fields["related"], fields["payload"])),
        ]
    ).lower()
    return (
        (not parsed.any_of or any(term.lower() in whole for term in parsed.any_of))
        and all(term.lower() in whole for term in parsed.all_of)
        and not any(term.lower() in whole for term in parsed.none_of)
    )


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(drawn=events_drawn, spec=filters_drawn)
def test_a_filter_admits_what_it_says_in_queries_and_in_tails(
    drawn: list[dict[str, Any]], spec: dict[str, Any]
) -> None:
    store = with_workspaces(SyncStore())
    try:
        store.write(lambda tx: events.insert(tx, [event(n, **fields) for n, fields in enumerate(drawn)]))
        expected = [event(n).id for n, fields in enumerate(drawn) if admits(spec, n, fields)]
        filter_ = wanted(**spec, order="ASC")
        assert found(store, filter_) == expected
        assert query(store, lambda tx: events.count(tx, filter_)) == len(expected)
        assert followed(store, filter_) == expected
        # Who is not woken by an event has missed nothing.
        named = dict(store.read(lambda tx: [tuple(row) for row in tx.all("SELECT position, id FROM events")]))
        asked = interests.of_events(ids.DEFAULT_WORKSPACE_ID, filter_)
        seen = store.read(lambda tx: events.glimpse(tx, 0)).seen
        assert set(expected) <= {named[one.position] for one in seen if asked.may_admit(one)}
    finally:
        store.close()


def test_both_ends_of_the_time_are_included(store: SyncStore) -> None:
    store.write(lambda tx: events.insert(tx, [event(n) for n in range(5)]))
    occurred = {"since": from_us(BASE_US + 1_000_000).isoformat(), "until": from_us(BASE_US + 3_000_000).isoformat()}
    assert found(store, EventFilter.model_validate({"occurred": occurred, "order": "ASC"})) == [
        event(n).id for n in (1, 2, 3)
    ]


# --- tails ---------------------------------------------------------------------------------------------------------------


LONG = "a" * 1_000_000


@pytest.mark.parametrize(
    ("pattern", "is_found"),
    [
        (LONG[:4_000], False),
        (LONG[:4_000] + "*", True),
        ("!" + LONG[:4_000] + "*", False),
        ("*" + LONG[:4_000] + "b", False),
        ("!*" + LONG[:4_000] + "b", True),
        ("a*a*a*a*b*", False),
        ("a?*", True),
        ("*", True),
        ("!!*", True),
        ("!", True),
    ],
)
def test_patterns_of_labels_see_the_beginning_of_a_long_one(store: SyncStore, pattern: str, is_found: bool) -> None:
    thing = {"prefect.resource.id": "thing", "color": LONG}
    made = Event(id=ids.new_id(), occurred_us=BASE_US, event="a", resource=thing)
    store.write(lambda tx: events.insert(tx, [made]))
    began = time.thread_time()
    assert (found(store, wanted(resource={"labels": {"color": pattern}})) == [made.id]) is is_found
    # Without a bound, ten seconds in one call that nothing ends.
    assert time.thread_time() - began < 5


def test_a_tail_begins_before_what_came_when_the_clock_was_ahead(store: SyncStore) -> None:
    made = [
        Event(id=ids.new_id(), occurred_us=BASE_US + n, event="a", resource={"prefect.resource.id": "x"})
        for n in range(3)
    ]
    store.write(lambda tx: events.insert(tx, made))
    ahead_us = store.read(lambda tx: tx.now) + 3_600_000_000
    store.write(lambda tx: tx.execute("UPDATE events SET received = ? WHERE position <= 2", (ahead_us,)))
    assert query(store, lambda tx: events.before(tx, BASE_US)) == 0
    assert query(store, lambda tx: events.before(tx, BASE_US + 1)) == 1


def test_a_tail_begins_behind_what_is_too_old(store: SyncStore) -> None:
    assert query(store, lambda tx: events.before(tx, 0)) == 0
    store.write(lambda tx: events.insert(tx, [event(n) for n in range(5)]))
    assert query(store, lambda tx: events.before(tx, event(3).occurred_us)) == 3
    assert query(store, lambda tx: events.before(tx, event(9).occurred_us)) == 5
    assert query(store, lambda tx: events.before(tx, 0), OTHER_WORKSPACE) == 5
    assert followed(store, wanted(), cursor=3) == [event(3).id, event(4).id]


def test_a_page_is_bounded_and_the_cursor_passes_what_is_not_admitted(
    store: SyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tails, "SCAN_ROWS", 4)
    store.write(lambda tx: events.insert(tx, [event(n, event="even" if n % 2 == 0 else "odd") for n in range(10)]))
    first = store.read(lambda tx: events.page_after(tx, wanted(event={"name": ["even"]}), 0))
    assert (len(first.frames), first.cursor, first.more) == (2, 4, True)
    nothing = wanted(event={"name": ["nothing"]})
    assert followed(store, nothing) == []
    last = store.read(lambda tx: events.page_after(tx, nothing, 8))
    assert (last.cursor, last.more) == (10, False)
    assert store.read(lambda tx: events.page_after(tx, nothing, 10)).frames == []


def test_a_page_ends_with_its_bytes(store: SyncStore) -> None:
    big = {"text": "x" * (tails.PAGE_BYTES // 2)}
    store.write(lambda tx: events.insert(tx, [event(n, payload=big) for n in range(5)]))
    page = store.read(lambda tx: events.page_after(tx, wanted(), 0))
    assert (len(page.frames), page.more) == (2, True)
    assert followed(store, wanted()) == [event(n).id for n in range(5)]


def test_a_full_page_says_where_it_ended(store: SyncStore) -> None:
    count = tails.PAGE_ROWS + 3
    store.write(lambda tx: events.insert(tx, [event(n) for n in range(count)]))
    page = store.read(lambda tx: events.page_after(tx, wanted(), 0))
    assert (len(page.frames), page.cursor, page.more) == (tails.PAGE_ROWS, tails.PAGE_ROWS, True)
    assert followed(store, wanted()) == [event(n).id for n in range(count)]


def test_positions_are_never_used_again(store: SyncStore) -> None:
    store.write(lambda tx: events.insert(tx, [event(1)]))
    assert store.write(lambda tx: events.delete_received_before(tx, tx.now + 1, 10)) == 0
    query(store, events.head)
    assert store.write(lambda tx: events.delete_received_before(tx, tx.now + 1, 10)) == 1
    cursor = store.read(lambda tx: events.page_after(tx, wanted(), 1)).cursor
    assert cursor == 1
    store.write(lambda tx: events.insert(tx, [event(2)]))
    assert followed(store, wanted(), cursor) == [event(2).id]


def test_query_plans(store: SyncStore) -> None:
    sql, params = compile_event_filter(wanted(any_resource={"id": ["a"]}, event={"name": ["b"]}), None)
    tail = store.plan(
        f"SELECT position FROM events NOT INDEXED WHERE position > 1 AND position <= 9 AND workspace_id = 'w' AND ({sql}) "
        "ORDER BY position LIMIT 500",
        params,
    )
    assert "SEARCH events USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)" in tail
    assert "TEMP B-TREE" not in tail
    sql, params = compile_event_filter(wanted(any_resource={"id": ["a"]}), "w")
    plan = store.plan(
        f"SELECT position FROM events WHERE events.workspace_id = 'w' AND indexed = 1 AND {sql} ORDER BY occurred LIMIT 50",
        params,
    )
    assert "SEARCH involved USING PRIMARY KEY (workspace=? AND resource_id=?" in plan
    assert "SCAN events" not in plan


@pytest.mark.parametrize(
    "parts",
    [
        {"any_resource": {"id": ["{}.1"]}},
        {"any_resource": {"id_prefix": ["{}."]}},
        {"any_resource": [{"id": ["{}.1"]}, {"id": ["{}.2"]}]},
        {"any_resource": {"id": ["{}.1"], "labels": {"prefect.resource.id": "{}.1"}}},
        {"related": {"id": ["{}.2"]}},
        {"related": {"role": ["of-{}"]}},
        {"related": {"resources_in_roles": [["{}.2", "of-{}"]]}},
        {"resource": {"id": ["{}.1"]}},
    ],
    ids=str,
)
def test_how_often_others_tell_of_a_resource_makes_no_work(store: SyncStore, parts: dict[str, Any]) -> None:
    """Counted in steps, because clocks tell more of the machine."""
    theirs = [
        event(n, resource={"prefect.resource.id": "their.1"}, related=(related("their.2", "of-their"),))
        for n in range(300)
    ]
    mine = [event(n, related=(related("thing.2", "tag"),)) for n in range(10)]
    store.write(lambda tx: events.insert(tx, theirs), OTHER_WORKSPACE)
    store.write(lambda tx: events.insert(tx, mine))
    query(store, events.head)

    def asked(name: str) -> EventFilter:
        return wanted(**orjson.loads(orjson.dumps(parts).decode().replace("{}", name)))

    foreign, missing = asked("their"), asked("other")
    for ask in (lambda tx, of: events.find(tx, of, limit=50), events.count_by_name):
        steps = [store.steps(lambda tx, of=of, ask=ask: ask(tx, of)) for of in (foreign, missing)]  # type: ignore[misc]
        assert steps[0] == steps[1]
    assert store.read(lambda tx: events.count(tx, foreign), OTHER_WORKSPACE) == 300


# --- counts and retention ------------------------------------------------------------------------------------------------


def checked(counts: list[dict[str, Any]]) -> list[tuple[str, str, int]]:
    for count in counts:
        EventCount.model_validate_json(orjson.dumps(count))
    return [(count["value"], count["label"], count["count"]) for count in counts]


def test_counts_by_name_and_resource(store: SyncStore) -> None:
    renamed = {"prefect.resource.id": "thing.2", "prefect.resource.name": "new"}
    old = {"prefect.resource.id": "thing.2", "prefect.resource.name": "old"}
    store.write(
        lambda tx: events.insert(
            tx,
            [
                event(1, resource=renamed, occurred_us=BASE_US + 9),
                event(2, resource=old, occurred_us=BASE_US),
                event(3, event="x"),
            ],
        )
    )
    assert checked(query(store, lambda tx: events.count_by_name(tx, wanted()))) == [
        ("thing.happened", "thing.happened", 2),
        ("x", "x", 1),
    ]
    by_resource = query(store, lambda tx: events.count_by_resource(tx, wanted()))
    assert checked(by_resource) == [("thing.2", "new", 2), ("thing.1", "thing.1", 1)]
    assert by_resource[0]["start_time"] < by_resource[0]["end_time"]


def test_counts_by_time_fill_the_gaps(store: SyncStore) -> None:
    store.write(lambda tx: events.insert(tx, [event(n) for n in (0, 1, 1, 3605, 3605 * 3)]))
    cut = spans(BASE_US, BASE_US + 4 * 3_600_000_000, BASE_US * 2, "hour", 1.0)
    counts = query(store, lambda tx: events.count_by_time(tx, wanted(), cut))
    assert [(count["value"], count["count"]) for count in counts] == [("0", 2), ("1", 1), ("2", 0), ("3", 1)]
    assert checked(counts)[0][1].startswith("2026-11-22T04:00:00")


def test_retention_takes_the_oldest_first_and_what_they_involved(store: SyncStore) -> None:
    store.write(lambda tx: events.insert(tx, [event(n, related=(related("r", "tag"),)) for n in range(5)]))
    query(store, events.head)
    assert store.write(lambda tx: events.delete_received_before(tx, 0, 10)) == 0
    assert store.write(lambda tx: events.delete_received_before(tx, tx.now + 1, 2)) == 2
    assert found(store, wanted(order="ASC")) == [event(n).id for n in (2, 3, 4)]
    assert store.read(lambda tx: tx.scalar("SELECT count(*) FROM event_related")) == 6


def test_what_came_in_after_the_indexes_were_brought_up_to_date_is_not_passed_over(store: SyncStore) -> None:
    now_us = store.read(lambda tx: tx.now)
    query(store, events.head)
    store.write(lambda tx: events.insert(tx, [replace(event(2), occurred_us=now_us)]))
    cursor = store.read(lambda tx: events.before(tx, now_us))
    assert cursor < store.read(events.head)


def test_one_event_dated_ahead_does_not_make_tails_begin_at_it(store: SyncStore) -> None:
    ahead = replace(event(0), occurred_us=store.read(lambda tx: tx.now) + 10**15)
    store.write(lambda tx: events.insert(tx, [ahead]))
    store.write(lambda tx: tx.execute("UPDATE events SET received = received - 3600000000"))
    now_us = store.read(lambda tx: tx.now)
    recent = [replace(event(n), occurred_us=now_us) for n in (1, 2)]
    store.write(lambda tx: events.insert(tx, recent))
    assert query(store, lambda tx: events.before(tx, now_us - 60_000_000)) == 1
    assert query(store, lambda tx: events.before(tx, now_us + 60_000_000)) == 3


def test_how_much_others_tell_makes_no_work_for_where_a_tail_begins(store: SyncStore) -> None:
    """Counted in steps, because clocks tell more of the machine."""
    now_us = store.read(lambda tx: tx.now)

    def steps(others: range) -> int:
        theirs = [replace(event(n), occurred_us=now_us) for n in others]
        store.write(lambda tx: events.insert(tx, theirs), OTHER_WORKSPACE)
        query(store, events.head)
        return store.steps(lambda tx: events.before(tx, now_us - 60_000_000))

    few = steps(range(3))
    assert steps(range(3, 300)) == few
