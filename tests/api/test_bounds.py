"""What a client may send, thing by thing: whatever is beyond its bound is refused by name, and nothing of it is a fault of ours."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from aiohttp import WSMsgType
from yarl import URL

from managedd.api import json_bounds
from managedd.api.json_bounds import MAX_VALUES, holds_too_much
from managedd.store import page_bytes
from tests.api.test_sockets import until_open

if TYPE_CHECKING:
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
INT64 = 2**63 - 1
RUN = str(UUID(int=1))


def nested(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


def ids(count: int) -> list[str]:
    return [str(UUID(int=number)) for number in range(count)]


def event(**changes: Any) -> dict[str, Any]:
    return {
        "id": str(uuid4()),
        "occurred": "2026-01-01T00:00:00Z",
        "event": "x",
        "resource": {"prefect.resource.id": "r"},
        **changes,
    }


def line(**changes: Any) -> dict[str, Any]:
    return {"name": "n", "level": 20, "message": "m", "timestamp": "2026-01-01T00:00:00Z", **changes}


def compound(depth: int) -> dict[str, Any]:
    trigger: dict[str, Any] = {"type": "event", "posture": "Reactive", "expect": ["x"], "threshold": 1, "within": 0}
    for _ in range(depth):
        trigger = {"type": "compound", "require": "all", "within": 1, "triggers": [trigger]}
    return trigger


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing that is too much."""

    name: str
    path: str
    body: Any = None
    """JSON, or text that is sent as it is."""
    status: int = 422
    says: str
    method: str = "POST"


def flows(name: str, says: str, **body: Any) -> Case:
    return Case(name=name, path="/flows/filter", body=body, says=says)


def raw(name: str, path: str, body: str | bytes, says: str, status: int = 422) -> Case:
    return Case(name=name, path=path, body=body, says=says, status=status)


CASES = [
    # --- JSON
    raw("nested arrays", "/flows/filter", "[" * 100_000 + "]" * 100_000, "recursion limit exceeded"),
    raw("nested filters", "/flows/filter", f'{{"flows":{nested(250)}}}', "recursion limit exceeded"),
    raw("nested parameters", "/flow_runs/", f'{{"flow_id":"{RUN}","parameters":{nested(250)}}}', "recursion limit"),
    raw("nested state data", f"/flow_runs/{RUN}/set_state", f'{{"state":{{"type":"COMPLETED","data":{nested(250)}}}}}', "recursion limit"),
    raw("values", "/flows/filter", f'{{"unknown":[{"0," * (MAX_VALUES + 1)}0]}}', "at most 300,000 values"),
    raw("values in one another", "/flows/filter", f'{{"unknown":[{("[" * 150 + "]" * 150 + ",") * 3_000}0]}}', "at most 300,000 values"),
    raw("wrong values", "/events", f"[{'{},' * (MAX_VALUES + 1)}{{}}]", "at most 300,000 values"),
    raw("wrong events", "/events", f"[{'{},' * (MAX_VALUES // 2 - 1)}{{}}]", "Field required"),
    raw("wrong lines", "/logs/", f"[{'{},' * (MAX_VALUES // 2 - 1)}{{}}]", "Field required"),
    raw("wrong labels", "/flows/", f'{{"name":"x","labels":{{{",".join(f"{chr(34)}k{n}{chr(34)}:null" for n in range(10_000))}}}}}', "values are not as they should be"),
    raw("no UTF-8", "/flows/", b'{"name":"\xff\xfe"}', "invalid unicode"),
    raw("a lone surrogate", "/flows/", '{"name":"a\\ud800b"}', "Invalid JSON"),
    raw("a lone surrogate in parameters", "/flow_runs/", f'{{"flow_id":"{RUN}","parameters":{{"a":"\\udfff"}}}}', "Invalid JSON"),
    raw("a lone surrogate in a line", "/logs/", json.dumps([line(message="@")]).replace("@", "\\ud800"), "Invalid JSON"),
    raw("no number", "/flow_runs/filter", '{"flow_runs":{"start_time":{"before_":NaN}}}', "NaN"),
    # --- numbers
    raw("digits", "/flows/filter", f'{{"offset":{"9" * 10_000}}}', "number out of range"),
    raw("an infinite number", "/flows/filter", '{"offset":1e400}', "finite number"),
    raw("an integer in labels", "/flows/", f'{{"name":"x","labels":{{"a":1{"0" * 4000}}}}}', "64-bit"),
    flows("an offset", "64 bits", offset=2**64),
    flows("a limit", "less than or equal to 200", limit=201),
    flows("a huge limit", "less than or equal to 200", limit=2**64),
    flows("a negative limit", "greater than or equal to 0", limit=-1),
    Case(name="a page", path="/flow_runs/paginate", body={"page": INT64}, says="no such page"),
    Case(name="a page of events", path="/events/filter", body={"limit": 201}, says="less than or equal to 200"),
    Case(name="a level", path="/logs/", body=[line(level=2**70)], says="64 bits"),
    Case(name="slots", path="/v2/concurrency_limits/increment", body={"slots": INT64, "names": ["x"], "mode": "concurrency"}, says="1,000,000,000"),
    Case(name="a lease", path="/v2/concurrency_limits/increment-with-lease", body={"slots": 1, "names": ["x"], "mode": "concurrency", "lease_duration": 1e300}, says="86400"),
    Case(name="a limit of a tag", path="/concurrency_limits/", body={"tag": "x", "concurrency_limit": 2**70}, says="64 bits"),
    Case(name="a limit of a pool", path="/work_pools/", body={"name": "x", "type": "process", "concurrency_limit": 2**70}, says="64 bits"),
    Case(name="a threshold", path="/automations/", body={"name": "x", "trigger": {"type": "event", "posture": "Reactive", "expect": ["x"], "threshold": 2**70, "within": 1}, "actions": [{"type": "do-nothing"}]}, says="64 bits"),
    # --- times
    *(
        Case(name=f"the time {moment}", path="/flow_runs/filter", body={"flow_runs": {"start_time": {"before_": moment}}}, says=says)
        for moment, says in [
            ("10000-01-01T00:00:00Z", "valid datetime"),
            (1e300, "after 9999"),
            (-1e300, "before 0000"),
            ("9999-12-31T23:59:59-23:59", "years 1 to 9999"),
            ("0001-01-01T00:00:00+23:59", "years 1 to 9999"),
        ]
    ),
    Case(name="an interval of a count", path="/events/count-by/time", body={"filter": {}, "time_unit": "second", "time_interval": 0.0001}, says="0.01"),
    # --- lists and texts
    flows("ids", "at most 10,000 ids", flows={"id": {"any_": ids(10_001)}}),
    flows("tags of a filter", "at most 10,000 values", flows={"tags": {"all_": ["x"] * 10_001}}),
    flows("a pattern", "at most 5,000 characters", flows={"name": {"like_": "%a" * 2_501}}),
    Case(name="prefixes", path="/events/filter", body={"filter": {"event": {"prefix": ["a"] * 101}}}, says="at most 100 prefixes"),
    Case(name="names of events", path="/events/filter", body={"filter": {"event": {"name": ["a"] * 10_001}}}, says="at most 10,000 values"),
    Case(name="words", path="/logs/filter", body={"logs": {"text": {"query": "x" * 201}}}, says="at most 200 characters"),
    Case(name="a name", path="/flows/", body={"name": "x" * 1_001}, says="at most 1,000 characters"),
    Case(name="a run's name", path="/flow_runs/", body={"flow_id": RUN, "name": "x" * 1_001}, says="at most 1,000 characters"),
    Case(name="a variable's name", path="/variables/", body={"name": "x" * 256, "value": 1}, says="at most 255 characters"),
    Case(name="a variable", path="/variables/", body={"name": "x", "value": "x" * 5_001}, says="5,000"),
    Case(name="tags", path="/flows/", body={"name": "x", "tags": ["x"] * 1_001}, says="at most 1,000 tags"),
    Case(name="a tag", path="/flows/", body={"name": "x", "tags": ["x" * 1_001]}, says="at most 1,000 characters"),
    Case(name="labels", path="/flows/", body={"name": "x", "labels": {"x" * 70_000: 1}}, says="labels must be at most 65,536 bytes"),
    Case(name="parameters", path="/flow_runs/", body={"flow_id": RUN, "parameters": {"x": "x" * 600_000}}, says="parameters must be at most 524,288 bytes"),
    Case(name="a template", path="/work_pools/", body={"name": "x", "type": "process", "base_job_template": {"job_configuration": {}, "variables": {"x": "x" * MIB}}}, says="template must be at most 1,048,576 bytes"),
    # --- events
    Case(name="an event", path="/events", body=[event(payload={"x": "x" * 1_500_000})], status=413, says="1,500,000 are allowed"),
    Case(name="an event's name", path="/events", body=[event(event="x" * 1_025)], says="at most 1,024 characters"),
    Case(name="related resources", path="/events", body=[event(related=[{"prefect.resource.id": "a", "prefect.resource.role": "b"}] * 101)], says="at most 100 related"),
    Case(name="labels of a resource", path="/events", body=[event(resource={"prefect.resource.id": "r", **{f"k{n}": "v" for n in range(501)}})], says="500"),
    # --- rules
    Case(name="triggers in triggers", path="/automations/", body={"name": "x", "trigger": compound(100), "actions": [{"type": "do-nothing"}]}, says="recursion limit"),
    # --- the body itself
    raw("a body", "/flows/filter", b'{"x":"' + b"a" * (16 * MIB) + b'"}', "larger than 16777216 bytes", 413),
    # --- paths and queries
    Case(name="an id in a path", method="GET", path="/flows/" + "0" * 4_000, says="valid UUID"),
    Case(name="a null in a path", method="GET", path="/flows/name/%00", status=404, says="not found"),
    Case(name="a surrogate in a path", method="GET", path="/flows/name/%ed%a0%80", status=404, says="not found"),
    Case(name="no UTF-8 in a path", method="GET", path="/flows/name/%ff", status=404, says="not found"),
    Case(name="segments", method="GET", path="/flows" + "/a" * 2_000, status=404, says="Not Found"),
    Case(name="a page's token", method="GET", path="/events/filter/next?page-token=" + "A" * 7_000, status=403, says="not valid"),
    Case(name="a repeated parameter", method="GET", path="/flow_run_states/?" + "flow_run_id=a&" * 500, says="valid UUID"),
    Case(name="a version", method="GET", path=f"/managed/flow_runs/{RUN}/executions?tail={'9' * 400}", status=404, says="not found"),
]  # fmt: skip


async def refused(api: ApiClient, case: Case) -> str:
    body = case.body
    if body is not None and not isinstance(body, str | bytes):
        body = json.dumps(body)
    data = body.encode() if isinstance(body, str) else body
    async with api.http.request(
        case.method,
        URL(api.prefix + case.path, encoded=True),
        data=None if data is None else io.BytesIO(data),
        headers={"Content-Type": "application/json"},
    ) as response:
        told = await response.json()
        assert response.status == case.status, told
    return str(told["detail"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_what_is_too_much_is_refused_by_name(api: ApiClient, case: Case) -> None:
    told = await refused(api, case)
    assert case.says in told
    assert len(told) < 2_000
    assert (await api.get("/admin/version"))[0] == 200


@pytest.mark.parametrize("coding", ["gzip", "deflate", "gzip, gzip", "x-own"])
async def test_packed_bodies_are_refused_before_they_are_unpacked(api: ApiClient, coding: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": coding}
    async with api.http.post("/api/flows/filter", data=b"\x1f\x8b not unpacked", headers=headers) as response:
        assert response.status == 415
        assert "unpacked" in (await response.json())["detail"]


async def test_an_unpacked_body_may_say_so(api: ApiClient) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "identity"}
    async with api.http.post("/api/flows/filter", data=b"{}", headers=headers) as response:
        assert response.status == 200


async def test_what_is_within_its_bound_is_taken(api: ApiClient) -> None:
    """The largest of each, so that the bounds are where they are said to be."""
    taken: list[tuple[str, Any]] = [
        ("/flows/filter", {"flows": {"id": {"any_": ids(10_000)}, "name": {"like_": "%a" * 2_500}}, "offset": INT64}),
        ("/flows/filter", {"flows": {"tags": {"all_": ["x"] * 10_000}}, "limit": 200}),
        ("/flows/", {"name": "x" * 1_000, "tags": [f"{n}" for n in range(1_000)], "labels": {"x" * 65_000: 1}}),
        ("/flows/", {"name": "null \0 inside"}),
        ("/logs/", [line(message="a\0b")] * 20_000),
        ("/logs/filter", {"logs": {"text": {"query": "x " * 100}}}),
        ("/events", [event(payload={"x": "x" * 1_400_000})]),
        ("/artifacts/", {"key": "csv", "type": "markdown", "data": "a,b\n" * 2_000_000}),
    ]
    for path, body in taken:
        data = io.BytesIO(json.dumps(body).encode())
        async with api.http.post(f"/api{path}", data=data, headers={"Content-Type": "application/json"}) as response:
            assert response.status < 300, await response.text()


async def test_a_page_weighs_no_more_than_a_few_requests(api: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_bytes, "MAX_PAGE_BYTES", 300_000)
    for number in range(4):
        status, _ = await api.post("/artifacts/", {"key": f"k{number}", "type": "markdown", "data": "x" * 100_000})
        assert status == 201
    status, told = await api.post("/artifacts/filter", {})
    assert status == 413
    assert "rows have room. Ask for fewer with `limit`" in told["detail"]
    assert (await api.post("/artifacts/filter", {"limit": 2}))[0] == 200
    monkeypatch.setattr(page_bytes, "MAX_PAGE_BYTES", 10)
    # One alone is an answer, however large.
    assert (await api.post("/artifacts/filter", {"limit": 1}))[0] == 200


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0," * MAX_VALUES + "0", False),
        ("0," * (MAX_VALUES + 1) + "0", True),
        ('"' + "," * 3 * MAX_VALUES + '"', False),
        ('"' + '\\",' * 3 * MAX_VALUES + '"', False),
        ('"' + "\\\\" * MAX_VALUES + '"' + ",0" * (MAX_VALUES + 1), True),
        ('"a",' * (MAX_VALUES + 1), True),
        ('"a,b":"c,d",' * (MAX_VALUES // 2), False),
        ('"' * 5 * MAX_VALUES + "," * (MAX_VALUES + 1), True),
        ("[" * MAX_VALUES + "]" * (MAX_VALUES + 1), False),
        ("[" * (MAX_VALUES + 1) + "]" * MAX_VALUES, True),
        ('{"":' * (MAX_VALUES + 1), True),
        ('"' + "[{" * MAX_VALUES + '"', False),
    ],
    ids=[
        "most",
        "one more",
        "in a string",
        "behind escaped quotes",
        "behind escapes",
        "strings",
        "pairs",
        "quotes",
        "lists",
        "one list more",
        "objects",
        "brackets in a string",
    ],
)
async def test_values_are_counted_where_they_are_values(text: str, expected: bool) -> None:
    assert holds_too_much(text.encode()) is expected
    assert holds_too_much(text) is expected


# --- sockets -----------------------------------------------------------------------------------------------------------------


SOCKETS = ["/events/out", "/logs/out"]


@pytest.mark.parametrize("path", SOCKETS)
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "Expected JSON"),
        ('{"type":"filter","filter":' + nested(2_000) + "}", "Expected JSON"),
        ("[" + "0," * (MAX_VALUES + 1) + "0]", json_bounds.TOO_MANY),
        ('{"type":"filter","filter":{"unknown' + "x" * 100_000 + '":1}}', "Invalid filter"),
        ('{"type":"filter","filter":' + json.dumps({f"k{n}": 1 for n in range(1_000)}) + "}", "Invalid filter"),
        ('{"type":"' + "x" * 100_000 + '"}', "Expected 'filter' message"),
        ("null", "Expected a JSON object"),
        ('"\\ud800"', "Expected JSON"),
    ],
    ids=["nested", "nested filter", "values", "key", "keys", "type", "null", "surrogate"],
)
async def test_a_filter_message_that_is_too_much_closes_its_socket(
    api: ApiClient, path: str, text: str, reason: str
) -> None:
    async with api.http.ws_connect(f"/api{path}") as ws:
        await ws.send_str(text)
        message = await ws.receive(timeout=20)
        assert message.type is WSMsgType.CLOSE
        assert message.data in {1002, 1008}
        assert str(message.extra).startswith(reason)
    await until_open(api, 0)


@pytest.mark.parametrize("path", [*SOCKETS, "/events/in", f"/managed/flow_runs/{RUN}/logs/tail"])
async def test_a_frame_that_is_too_large_closes_its_socket(api: ApiClient, path: str) -> None:
    async with api.http.ws_connect(f"/api{path}") as ws:
        with suppress(ConnectionError):
            # The rest of it is not waited for.
            await ws.send_str("x" * (5 * MIB))
        message = await ws.receive(timeout=20)
        assert message.type in {WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING, WSMsgType.ERROR}
    await until_open(api, 0)


async def test_what_is_no_event_is_left_out_and_the_socket_goes_on(api: ApiClient) -> None:
    async with api.http.ws_connect("/api/events/in") as ws:
        await ws.send_str("[" + "{}," * (MAX_VALUES + 1) + "{}]")
        await ws.send_str(json.dumps(event(related=[{}] * 100_000)))
        await ws.send_str("{" * 10_000)
        await ws.send_str('{"event":"\\ud800"}')
        await ws.send_bytes(b"\xff\xfe")
        kept = event()
        await ws.send_str(json.dumps(kept))
        await ws.ping(b"stored?")
        await ws.close()
    await until_open(api, 0)
    _, page = await api.post(
        "/events/filter",
        {
            "filter": {
                "id": {"id": [kept["id"]]},
                "occurred": {"since": "2025-12-01T00:00:00Z", "until": "2026-02-01T00:00:00Z"},
            }
        },
    )
    assert page["total"] == 1
