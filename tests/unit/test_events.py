"""Events that the server makes, the search language, and spans of time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from managedd import ids
from managedd.clock import from_us, to_us
from managedd.model.event_counts import MAX_SPANS, PIVOT_US, TooManySpans, spans
from managedd.model.events import MESSAGE_MAX_CHARS, TIGHT_US, Named, RunSurroundings, shortened, state_event
from managedd.model.states import State, StateType
from managedd.store import text_search
from managedd.wire.events import Event as WireEvent

RUN, FLOW, DEPLOYMENT, QUEUE, POOL, PARENT = (ids.new_id() for _ in range(6))
NOW_US = to_us(datetime(2026, 11, 22, 4, 0, 28, 283520, tzinfo=UTC))


def state(type_: StateType = StateType.RUNNING, *, at_us: int = NOW_US, **more: Any) -> State:
    return State(type=type_, name=more.pop("name", type_.value.title()), id=ids.new_id(), timestamp_us=at_us, **more)


AROUND = RunSurroundings(
    run=Named(id=RUN, name="pumpkin-saiga", tags=("b", "a")),
    run_count=1,
    flow=Named(id=FLOW, name="hello", tags=("a",)),
    deployment=Named(id=DEPLOYMENT, name="prod"),
    work_queue=Named(id=QUEUE, name="default"),
    work_pool=Named(id=POOL, name="mm", type="prefect:managed"),
    task_run=Named(id=PARENT, name="child-0", tags=("c",)),
)


def test_a_state_event_has_prefects_shape() -> None:
    before = state(StateType.RUNNING, at_us=NOW_US - 1_000_000)
    after = state(StateType.CANCELLING, message="stop")
    event = state_event(AROUND, after, before)
    assert event.event == "prefect.flow-run.Cancelling"
    assert (event.id, event.follows, event.occurred_us) == (after.id, before.id, NOW_US)
    assert event.resource == {
        "prefect.resource.id": f"prefect.flow-run.{RUN}",
        "prefect.resource.name": "pumpkin-saiga",
        "prefect.run-count": "1",
        "prefect.state-message": "stop",
        "prefect.state-name": "Cancelling",
        "prefect.state-timestamp": "2026-11-22T04:00:28.283520+00:00",
        "prefect.state-type": "CANCELLING",
    }
    assert event.payload == {
        "intended": {"from": "RUNNING", "to": "CANCELLING"},
        "initial_state": {"type": "RUNNING", "name": "Running"},
        "validated_state": {"type": "CANCELLING", "name": "Cancelling", "message": "stop"},
    }
    assert [(r["prefect.resource.role"], r["prefect.resource.id"]) for r in event.related] == [
        ("flow", f"prefect.flow.{FLOW}"),
        ("deployment", f"prefect.deployment.{DEPLOYMENT}"),
        ("work-queue", f"prefect.work-queue.{QUEUE}"),
        ("work-pool", f"prefect.work-pool.{POOL}"),
        ("task-run", f"prefect.task-run.{PARENT}"),
        ("tag", "prefect.tag.a"),
        ("tag", "prefect.tag.b"),
        ("tag", "prefect.tag.c"),
    ]
    assert event.related[3]["prefect.work-pool.type"] == "prefect:managed"
    WireEvent.model_validate_json(
        orjson.dumps(
            {
                "id": event.id,
                "occurred": from_us(event.occurred_us),
                "event": event.event,
                "resource": event.resource,
                "related": list(event.related),
                "payload": event.payload,
                "follows": event.follows,
            }
        )
    )


def test_the_first_state_follows_nothing() -> None:
    event = state_event(AROUND, state(StateType.SCHEDULED, name="Late"), None)
    assert event.follows is None
    assert event.payload["initial_state"] is None
    assert event.payload["intended"] == {"from": None, "to": "SCHEDULED"}
    assert event.event == "prefect.flow-run.Late"


@pytest.mark.parametrize(("distance_us", "follows"), [(TIGHT_US - 1, True), (TIGHT_US, False), (1 - TIGHT_US, True)])
def test_only_a_near_state_is_followed(distance_us: int, follows: bool) -> None:
    before = state(StateType.PENDING, at_us=NOW_US - distance_us)
    assert (state_event(AROUND, state(), before).follows == before.id) is follows


@pytest.mark.parametrize(("reschedule", "told"), [(True, "true"), (False, "false")])
def test_a_paused_state_tells_whether_it_is_a_suspension(reschedule: bool, told: str) -> None:
    paused = state(StateType.PAUSED, name="Suspended", details={"pause_reschedule": reschedule})
    assert state_event(AROUND, paused, None).payload["validated_state"]["pause_reschedule"] == told


def test_who_created_the_run_is_told() -> None:
    by = {"type": "AUTOMATION", "id": RUN, "display_value": "nightly"}
    assert state_event(replace(AROUND, created_by=by), state(), None).related[-1] == {
        "prefect.resource.id": f"prefect.automation.{RUN}",
        "prefect.resource.role": "creator",
        "prefect.resource.name": "nightly",
    }
    by_hand = replace(AROUND, created_by={"type": "USER", "id": RUN})
    assert state_event(by_hand, state(), None).related == state_event(AROUND, state(), None).related


def test_long_messages_lose_their_middle() -> None:
    text = "b" * MESSAGE_MAX_CHARS + "m" * 1000 + "e" * MESSAGE_MAX_CHARS
    made = shortened(text)
    assert made.startswith("bbb")
    assert made.endswith("eee")
    assert "m" not in made.replace("more", "")
    assert f"{len(text) - MESSAGE_MAX_CHARS} characters left out" in made
    assert shortened("x" * MESSAGE_MAX_CHARS) == "x" * MESSAGE_MAX_CHARS
    assert shortened(None) == ""


@pytest.mark.parametrize(
    ("query", "any_of", "none_of", "all_of"),
    [
        ("error", ["error"], [], []),
        ("error  -debug", ["error"], ["debug"], []),
        ('"connection timeout"', ["connection timeout"], [], []),
        ("+a -b !c d", ["d"], ["b", "c"], ["a"]),
        ("- x", ["x"], [], []),
        ('"un closed', ["un closed"], [], []),
        ('a"b c"d', ["a", "b c", "d"], [], []),
        (r'"es\"c\\" \ ', ['es"c\\', "\\"], [], []),
        ("--x", [], ["-x"], []),
        ('"" a', ["a"], [], []),
        ('-"two words"', [], ["two words"], []),
        ('"trail\\', ["trail\\"], [], []),
        ("  ", [], [], []),
        ("+", [], [], []),
    ],
)
def test_search_language(query: str, any_of: list[str], none_of: list[str], all_of: list[str]) -> None:
    parsed = text_search.parse(query)
    assert ([*parsed.any_of], [*parsed.none_of], [*parsed.all_of]) == (any_of, none_of, all_of)
    assert (text_search.clause("x", query) is None) is (not any_of and not none_of and not all_of)


def test_spans_start_at_the_pivot_and_cover_the_time() -> None:
    hour = 3_600_000_000
    since, until = PIVOT_US + hour * 5 + 1, PIVOT_US + hour * 8
    cut = spans(since, until, now_us=until, unit="hour", interval=2.0)
    assert (cut.start_us, cut.step_us, cut.count) == (PIVOT_US + 4 * hour, 2 * hour, 2)
    assert cut.index(since) == 0
    assert cut.index(until - 1) == 1
    assert cut.bounds(1) == (PIVOT_US + 6 * hour, PIVOT_US + 8 * hour - 1)


def test_spans_of_the_future_are_left_out() -> None:
    day = 86_400_000_000
    now = PIVOT_US + 10 * day + 5
    cut = spans(PIVOT_US + 8 * day, now + 100 * day, now_us=now, unit="day", interval=1.0)
    assert cut.count == 3


def test_too_many_spans_are_refused() -> None:
    second = timedelta(seconds=1) // timedelta(microseconds=1)
    assert spans(PIVOT_US, PIVOT_US + MAX_SPANS * second, PIVOT_US * 2, "second", 1.0).count == MAX_SPANS
    with pytest.raises(TooManySpans):
        spans(PIVOT_US, PIVOT_US + (MAX_SPANS + 1) * second, PIVOT_US * 2, "second", 1.0)


@pytest.mark.parametrize("interval", [1e300, 1e18, 0.01])
def test_absurd_intervals_stay_within_what_a_datetime_can_say(interval: float) -> None:
    first, last = to_us(datetime(2, 1, 1, tzinfo=UTC)), to_us(datetime(9999, 1, 1, tzinfo=UTC))
    cut = spans(first if interval > 1 else last - 1000, last, last, "week", interval)
    assert cut.count >= 1
    for index in range(cut.count):
        assert all(from_us(us) for us in cut.bounds(index))
