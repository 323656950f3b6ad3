"""Events over HTTP."""

from __future__ import annotations

import base64
import zlib
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson
import pytest
from aiohttp import ClientSession

from managedd import ids
from managedd.api.app import Api
from managedd.api.auth import Listener
from managedd.listeners import Door
from managedd.wire.events import EventCount, EventPage
from tests.api.test_sockets import an_event, connected, the_filter
from tests.support.api_keys import bearer, make_key

if TYPE_CHECKING:
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio


async def post(api: ApiClient, *events: dict[str, Any]) -> None:
    assert await api.post("/events", list(events)) == (204, None)


async def page(api: ApiClient, body: Any = None) -> EventPage:
    response = await api.http.post(api.prefix + "/events/filter", json=body if body is not None else {})
    assert response.status == 200
    return EventPage.model_validate_json(await response.read())


async def test_a_batch_is_recorded_once(api: ApiClient, other: ApiClient) -> None:
    sent = [an_event(age_seconds=n) for n in (3, 2, 1)]
    await post(api, *sent)
    await post(api, sent[0])
    found = await page(api)
    assert [event.id for event in found.events] == [event["id"] for event in reversed(sent)]
    assert (found.total, found.next_page) == (3, None)
    assert (await page(other)).total == 0


async def test_an_empty_batch_is_no_fault(api: ApiClient) -> None:
    await post(api)


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"id": "x"},
        {"resource": {}},
        {"related": [{"prefect.resource.id": "x"}]},
        {"event": "n" * 2000},
        {"occurred": "now"},
    ],
)
async def test_one_bad_event_refuses_the_batch(api: ApiClient, bad: dict[str, Any]) -> None:
    broken = {**an_event(), **bad} if bad else {}
    status, body = await api.post("/events", [an_event(), broken])
    assert status == 422
    assert body["exception_detail"][0]["loc"][:2] == ["body", 1]
    assert (await page(api)).total == 0


async def test_pages_are_followed_by_their_url(api: ApiClient, other: ApiClient) -> None:
    for client in (api, other):
        sent = [an_event(age_seconds=n) for n in range(120, 0, -1)]
        await post(client, *sent)
        seen, found = [], await page(client, {"filter": {"event": {"prefix": ["thing."]}}, "limit": 50})
        while True:
            seen += [event.id for event in found.events]
            assert found.total == 120
            if found.next_page is None:
                break
            url = urlsplit(found.next_page)
            assert url.path == f"{client.prefix}/events/filter/next"
            await post(client, an_event())
            response = await client.http.get(f"{url.path}?{url.query}")
            assert response.status == 200
            found = EventPage.model_validate_json(await response.read())
        assert seen == [event["id"] for event in reversed(sent)]


@pytest.mark.parametrize("order", ["ASC", "DESC"])
async def test_events_that_come_late_double_and_hide_none_of_the_pages(api: ApiClient, order: str) -> None:
    sent = [an_event(age_seconds=n) for n in range(120, 0, -1)]
    await post(api, *sent)
    seen, found = [], await page(api, {"filter": {"order": order}, "limit": 50})
    while True:
        seen += [event.id for event in found.events]
        if found.next_page is None:
            break
        await post(api, *(an_event(age_seconds=n) for n in (0, 60, 300)))
        url = urlsplit(found.next_page)
        response = await api.http.get(f"{url.path}?{url.query}")
        found = EventPage.model_validate_json(await response.read())
    oldest_first = [event["id"] for event in sent]
    assert seen == (oldest_first if order == "ASC" else oldest_first[::-1])
    assert (await page(api)).total == 120 + 2 * 3


@pytest.mark.parametrize("limit", [-1, 201])
async def test_a_page_has_at_most_two_hundred_events(api: ApiClient, limit: int) -> None:
    assert (await api.post("/events/filter", {"limit": limit}))[0] == 422


async def test_a_page_has_what_the_client_asks_for_by_default(api: ApiClient) -> None:
    await post(api, *(an_event(age_seconds=n) for n in range(120)))
    assert len((await page(api)).events) == 50
    first = await page(api, {"limit": 100})
    assert len(first.events) == 100
    url = urlsplit(first.next_page or "")
    rest = await api.http.get(f"{url.path}?{url.query}")
    assert len(EventPage.model_validate_json(await rest.read()).events) == 20


async def test_the_next_page_does_not_follow_what_anybody_says(closed: ApiClient) -> None:
    key = bearer(await make_key(closed.services.db))
    for event in (an_event(), an_event()):
        assert (await closed.post("/events", orjson.loads(orjson.dumps([event], default=str)), headers=key))[0] < 300
    headers = {"X-Forwarded-Proto": "https", **key}
    response = await closed.http.post(f"{closed.prefix}/events/filter", json={"limit": 1}, headers=headers)
    found = EventPage.model_validate_json(await response.read())
    assert urlsplit(found.next_page or "").scheme == "http"


async def test_an_event_that_is_too_large_is_refused_with_what_is_allowed(api: ApiClient) -> None:
    large = {**an_event(), "payload": {"text": "x" * 1_500_001}}
    body = BytesIO(orjson.dumps([an_event(), large], default=str))
    headers = {"Content-Type": "application/json"}
    response = await api.http.post(f"{api.prefix}/events", data=body, headers=headers)
    assert response.status == 413
    assert "1,500,000 are allowed" in (await response.json())["exception_message"]
    assert (await page(api)).total == 0


async def test_no_events_asked_for_is_no_endless_query(api: ApiClient) -> None:
    await post(api, an_event())
    found = await page(api, {"limit": 0})
    assert (found.events, found.total, found.next_page) == ([], 1, None)


@pytest.mark.parametrize(
    "token", ["", "x", "e30=", "bm90IGpzb24=", "eyJmaWx0ZXIiOnt9LCJjb3VudCI6MSwicGFnZV9zaXplIjo5OTksIm9mZnNldCI6MH0="]
)
async def test_a_token_that_was_never_given_is_refused(api: ApiClient, token: str) -> None:
    assert (await api.get("/events/filter/next", params={"page-token": token}))[0] == 403


ALLOWED: dict[str, dict[str, Any]] = {
    "a long pattern": {"resource": {"labels": {"x": "[" * 5_000}}},
    "a long pattern of many bytes": {"any_resource": {"labels": {"x": ["\U0001f600" * 5_000]}}},
    "many values": {"any_resource": {"labels": {"x": ["y"] * 500}}},
    "many labels": {"any_resource": {"labels": {f"l{n}": ["y"] for n in range(500)}}},
    "many prefixes": {"any_resource": [{"id_prefix": ["p"] * 5, "id": ["x"]} for _ in range(100)]},
    "many roles": {
        "related": [{"resources_in_roles": [["x", "y"]] * 4, "labels": {"x": "y"}, "role": ["r"]} for _ in range(100)]
    },
    "many names": {"event": {"prefix": ["p"] * 100, "exclude_prefix": ["q"] * 100}},
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a long pattern": ({"resource": {"labels": {"x": ["y" * 5_001]}}}, "at most 5,000 characters"),
    "one long pattern": ({"any_resource": {"labels": {"x": "y" * 60_000}}}, "at most 5,000 characters"),
    "many labels": (
        {"any_resource": {"labels": {"x": ["y"] * 500, **{f"k{n}": ["v"] * 500 for n in range(100)}}}},
        "at most 500 prefixes, label values",
    ),
    "many filters": ({"related": [{"labels": {"x": ["y"] * 6}} for _ in range(100)]}, "in one filter, not 600"),
    "many parts": (
        {"event": {"prefix": ["p"] * 100}, "resource": {"labels": {"x": ["y"] * 401}}},
        "in one filter, not 501",
    ),
}


@pytest.mark.parametrize("name", ALLOWED)
async def test_the_largest_filters_are_answered(api: ApiClient, name: str) -> None:
    await post(api, an_event())
    assert (await page(api, {"filter": ALLOWED[name]})).total == 0
    assert (await api.post("/events/count-by/event", {"filter": ALLOWED[name]}))[0] == 200
    async with connected(api, "/events/out") as client:
        await client.send(the_filter(**ALLOWED[name]))
        await post(api, an_event())
        await client.ping()


@pytest.mark.parametrize("name", REFUSED)
async def test_a_larger_filter_is_refused_with_what_is_allowed(api: ApiClient, name: str) -> None:
    wanted, allowed = REFUSED[name]
    status, body = await api.post("/events/filter", {"filter": wanted})
    assert status == 422
    assert allowed in str(body["exception_detail"])
    async with connected(api, "/events/out") as client:
        await client.send(the_filter(**wanted))
        code, reason = await client.closed()
        assert code == 1002
        assert "Invalid filter" in reason


async def test_the_next_page_of_many_ids_has_a_url_that_the_daemon_reads(api: ApiClient) -> None:
    await post(api, *(an_event() for _ in range(3)))
    wanted = {"any_resource": {"id": ["thing.1", *(f"prefect.flow-run.{ids.new_id()}" for _ in range(400))]}}
    found = await page(api, {"filter": wanted, "limit": 2})
    assert found.next_page is not None
    url = urlsplit(found.next_page)
    assert len(f"GET {url.path}?{url.query} HTTP/1.1") < 16 * 1024
    door = Door(Api(api.services, Listener.CLIENTS).application(), api.services.settings.server)
    await door.open()
    host, port = await door.listen("127.0.0.1", 0)
    async with ClientSession() as http, http.get(f"http://{host}:{port}{url.path}?{url.query}") as response:
        assert response.status == 200
        second = EventPage.model_validate_json(await response.read())
    await door.close()
    assert (len(second.events), second.total, second.next_page) == (1, 3, None)


async def test_a_filter_that_has_no_room_in_a_url_has_one_page(api: ApiClient) -> None:
    await post(api, *(an_event() for _ in range(3)))
    wanted = {"any_resource": {"id": ["thing.1", *(ids.new_id() for _ in range(9_000))]}}
    assert (await page(api, {"filter": wanted, "limit": 3})).total == 3
    status, body = await api.post("/events/filter", {"filter": wanted, "limit": 2})
    assert status == 422
    assert "14,336 are allowed" in body["exception_message"]
    same = {"any_resource": {"id": ["thing.1", *["x" * 200] * 9_000]}}
    body = BytesIO(orjson.dumps({"filter": same, "limit": 2}))
    headers = {"Content-Type": "application/json"}
    response = await api.http.post(f"{api.prefix}/events/filter", data=body, headers=headers)
    assert response.status == 422


async def test_a_token_that_unfolds_without_end_is_refused(api: ApiClient) -> None:
    endless = base64.urlsafe_b64encode(zlib.compress(b" " * 4_000_000)).decode()
    assert len(endless) < 8_000
    assert (await api.get("/events/filter/next", params={"page-token": endless}))[0] == 403


async def test_the_token_is_demanded(api: ApiClient) -> None:
    status, body = await api.get("/events/filter/next")
    assert status == 422
    assert body["exception_detail"][0]["loc"] == ["query", "page-token"]


async def counts(api: ApiClient, countable: str, body: dict[str, Any]) -> list[EventCount]:
    status, found = await api.post(f"/events/count-by/{countable}", body)
    assert status == 200
    return [EventCount.model_validate_json(orjson.dumps(count)) for count in found]


async def test_counts(api: ApiClient) -> None:
    hour_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    await post(api, an_event("a"), an_event("b", occurred=hour_ago), an_event("b"))
    assert [(count.value, count.count) for count in await counts(api, "event", {"filter": {}})] == [("b", 2), ("a", 1)]
    assert [count.count for count in await counts(api, "resource", {"filter": {}})] == [3]
    recent = {"occurred": {"since": (datetime.now(UTC) - timedelta(hours=5)).isoformat()}}
    by_time = await counts(api, "time", {"filter": recent, "time_unit": "minute", "time_interval": 30})
    assert sum(count.count for count in by_time) == 3
    assert len(by_time) in {10, 11, 12}
    assert [count.value for count in by_time] == [str(index) for index in range(len(by_time))]
    by_day = await counts(api, "day", {"filter": {}})
    assert sum(count.count for count in by_day) == 3
    assert len(by_day) == 181


@pytest.mark.parametrize(
    ("countable", "body"),
    [
        ("moon", {"filter": {}}),
        ("time", {"filter": {}, "time_interval": 0.001}),
        ("time", {"filter": {}, "time_unit": "second"}),
        ("time", {"filter": {}, "time_unit": "fortnight"}),
        ("time", {}),
    ],
)
async def test_counts_that_make_no_sense(api: ApiClient, countable: str, body: dict[str, Any]) -> None:
    assert (await api.post(f"/events/count-by/{countable}", body))[0] == 422


async def test_deep_and_odd_payloads_come_back_as_they_were(api: ApiClient) -> None:
    payload: dict[str, Any] = {"ü": "\U0001f600", "n": 2**53, "deep": {}}
    inner = payload["deep"]
    for _ in range(150):
        inner["x"] = {}
        inner = inner["x"]
    await post(api, sent := an_event(payload=payload, follows=ids.new_id()))
    (event,) = (await page(api)).events
    assert event.payload == payload
    assert event.follows == sent["follows"]
