"""Websockets as Prefect's clients open them, and our own log tail."""

from __future__ import annotations

import gc
import hashlib
import weakref
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio
import orjson
import pytest
from aiohttp import ClientWebSocketResponse, WSMessage, WSMsgType, WSServerHandshakeError
from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr

from managedd import ids
from managedd.api import event_intake, sockets
from managedd.api.app import Api
from managedd.api.auth import Listener
from managedd.clock import iso
from managedd.model.executions import Phase
from managedd.model.flow_runs import ProposedState
from managedd.model.logs import LogRecord
from managedd.model.states import StateType
from managedd.orchestration import transition
from managedd.store import executions, logs, rows
from managedd.store.resources import FLOW, FLOW_RUN
from managedd.wire.events import ReceivedEvent
from managedd.wire.logs import Log
from tests.api.conftest import ApiClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from managedd.api.context import Services

pytestmark = pytest.mark.anyio

PATIENCE_SECONDS = 5.0


@dataclass
class Client:
    """One websocket as a client sees it."""

    ws: ClientWebSocketResponse

    async def send(self, message: Any) -> None:
        await self.ws.send_str(message if isinstance(message, str) else orjson.dumps(message, default=str).decode())

    async def receive(self) -> Any:
        """The next message as (type, parsed)."""
        with anyio.fail_after(PATIENCE_SECONDS):
            message = await self.ws.receive()
        if message.type is WSMsgType.TEXT:
            return orjson.loads(message.data)
        if message.type is WSMsgType.PONG:
            return ("pong", bytes(message.data))
        return (message.type.name, message.data, message.extra)

    async def ping(self, payload: bytes = b"p") -> None:
        """Everything before it was taken as stored by a client."""
        await self.ws.ping(payload)
        assert await self.receive() == ("pong", payload)

    async def closed(self) -> tuple[int, str]:
        """Code and reason of the server's close, which is the next thing that comes."""
        kind, code, reason = await self.receive()
        assert kind == "CLOSE"
        return code, reason or ""

    async def silent(self, seconds: float = 0.15) -> bool:
        """Whether nothing comes."""
        with anyio.move_on_after(seconds):
            await self.ws.receive()
            return False
        return True


@asynccontextmanager
async def connected(
    api: ApiClient, path: str, *, prefect: bool = True, token: Any = None, auth: bool | None = None, **options: Any
) -> AsyncIterator[Client]:
    """An open socket, past its auth message when it speaks Prefect's subprotocol."""
    protocols = ("prefect",) if prefect else ()
    async with api.http.ws_connect(
        api.prefix + path, protocols=protocols, autoping=False, autoclose=False, max_msg_size=0, **options
    ) as ws:
        assert ws.protocol == ("prefect" if prefect else None)
        client = Client(ws)
        if prefect if auth is None else auth:
            await client.ping()
            await client.send({"type": "auth", "token": token})
            assert await client.receive() == {"type": "auth_success"}
        yield client


def an_event(name: str = "thing.happened", *, age_seconds: float = 0, **changes: Any) -> dict[str, Any]:
    return {
        "id": ids.new_id(),
        "occurred": (datetime.now(UTC) - timedelta(seconds=age_seconds)).isoformat(),
        "event": name,
        "resource": {"prefect.resource.id": "thing.1"},
        "related": [],
        "payload": {},
        "follows": None,
        **changes,
    }


async def stored_ids(api: ApiClient) -> list[str]:
    """The events that clients sent: what the server tells by itself is about things of its own."""
    asked = "SELECT id, event FROM events ORDER BY position"
    own = ("prefect.flow.", "prefect.flow-run.", "prefect.work-", "prefect.deployment.", "managedd.")
    found = await api.services.db.read(lambda tx: [tuple(row) for row in tx.all(asked)])
    return [id_ for id_, event in found if not event.startswith(own)]


def the_filter(**changes: Any) -> dict[str, Any]:
    """As the client sends it."""
    now = datetime.now(UTC)
    return {
        "type": "filter",
        "filter": {
            "occurred": {
                "since": (now - timedelta(minutes=1)).isoformat(),
                "until": (now + timedelta(days=365)).isoformat(),
            },
            "event": None,
            "resource": None,
            "related": None,
            "any_resource": None,
            "id": {"id": []},
            "text": None,
            "order": "DESC",
            **changes,
        },
    }


async def a_run(api: ApiClient, type_: StateType | None = StateType.RUNNING) -> str:
    """The id of a flow run in that state."""
    workspace = api.prefix.split("/")[-1] if "workspaces" in api.prefix else ids.DEFAULT_WORKSPACE_ID

    def add(tx: Any) -> str:
        flow = rows.insert(tx, FLOW, {"name": ids.new_id()})
        run = rows.insert(tx, FLOW_RUN, {"name": "brave-otter", "flow_id": flow})
        if type_ is not None:
            transition.propose(tx, run, ProposedState(type=type_))
        return run

    return await api.services.db.write(add, workspace=workspace)


async def move(api: ApiClient, run: str, type_: StateType) -> None:
    await api.services.db.write(
        lambda tx: transition.propose(tx, run, ProposedState(type=type_)), workspace=ids.DEFAULT_WORKSPACE_ID
    )


async def write_lines(api: ApiClient, run: str | None, *texts: str, age_seconds: float = 0) -> None:
    at_us = api.services.clock.now_us() - int(age_seconds * 1e6)
    records = [LogRecord(name="n", level=20, message=text, timestamp_us=at_us, flow_run_id=run) for text in texts]
    await api.services.logs.write(lambda tx: logs.append(tx, records), workspace=ids.DEFAULT_WORKSPACE_ID)


# --- handshake -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/events/in", "/events/out", "/logs/out"])
async def test_the_first_ping_is_answered_before_the_auth_message(api: ApiClient, path: str) -> None:
    async with connected(api, path, auth=False) as client:
        await client.ping(b"first")
        await client.send({"type": "auth", "token": None})
        assert await client.receive() == {"type": "auth_success"}


@pytest.mark.parametrize(
    ("message", "code"),
    [({"type": "filter"}, 1008), ({"type": "event"}, 1008), ("no json", 1002), ("[]", 1002), (an_event(), 1008)],
)
async def test_prefects_subprotocol_demands_an_auth_message(api: ApiClient, message: Any, code: int) -> None:
    async with connected(api, "/events/in", auth=False) as client:
        await client.send(message)
        assert (await client.closed())[0] == code
    assert await stored_ids(api) == []


async def test_an_open_listener_takes_sockets_without_the_subprotocol(api: ApiClient) -> None:
    sent = an_event()
    async with connected(api, "/events/in", prefect=False) as client:
        await client.send(sent)
        await client.ping()
        assert await stored_ids(api) == [sent["id"]]


async def test_a_slow_handshake_ends(api: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("managedd.api.handshake.HANDSHAKE_SECONDS", 0.05)
    async with connected(api, "/events/out", auth=False) as client:
        assert (await client.closed())[0] == 1008


@pytest.fixture
async def guarded(services: Services) -> AsyncIterator[ApiClient]:
    """An API that demands the auth string `admin:pass`."""
    server = services.settings.server.model_copy(update={"auth_string": SecretStr("admin:pass")})
    services.settings = services.settings.model_copy(update={"server": server})
    async with TestClient(TestServer(Api(services, Listener.CLIENTS).application())) as http:
        yield ApiClient(http=http, services=services)


async def test_the_auth_messages_token_decides(guarded: ApiClient) -> None:
    async with connected(guarded, "/events/out", token="admin:pass"):
        pass
    for token, reason in (
        (None, "Auth required but no token provided"),
        ("", None),
        ("wrong", "Invalid token"),
        (7, None),
    ):
        async with connected(guarded, "/events/out", auth=False) as client:
            await client.send({"type": "auth", "token": token})
            code, said = await client.closed()
            assert code == 1008
            assert reason is None or said == reason


async def test_a_header_needs_no_message_and_no_subprotocol(guarded: ApiClient) -> None:
    sent = an_event()
    async with connected(
        guarded, "/events/in", prefect=False, headers={"Authorization": "bearer admin:pass"}
    ) as client:
        await client.send(sent)
        await client.ping()
    assert await stored_ids(guarded) == [sent["id"]]


async def test_a_header_and_a_message_without_token_will_do(guarded: ApiClient) -> None:
    async with connected(guarded, "/logs/out", headers={"Authorization": "Bearer admin:pass"}):
        pass


async def test_a_wrong_header_is_refused_before_the_upgrade(guarded: ApiClient) -> None:
    with pytest.raises(WSServerHandshakeError) as error:
        async with connected(guarded, "/events/in", headers={"Authorization": "Bearer wrong"}):
            pass
    assert error.value.status == 401


async def test_a_guarded_listener_wants_a_message_from_whoever_has_no_header(guarded: ApiClient) -> None:
    async with connected(guarded, "/events/in", prefect=False) as client:
        await client.send(an_event())
        assert (await client.closed())[0] == 1008
    assert await stored_ids(guarded) == []


async def test_a_runs_key_opens_only_its_own_workspace(api: ApiClient, other: ApiClient, services: Services) -> None:
    run = await a_run(api)
    key = "managedd-run:secret"

    def execution(tx: Any) -> None:
        made = executions.insert(tx, flow_run_id=run, work_pool_id=None, driver="fake")
        executions.note(tx, made.id, {"key_hash": hashlib.sha256(key.encode()).hexdigest()})

    await services.db.write(execution, workspace=ids.DEFAULT_WORKSPACE_ID)
    async with TestClient(TestServer(Api(services, Listener.RUNS).application())) as http:
        own, foreign = replace(api, http=http), replace(other, http=http)
        async with connected(own, "/events/in", token=key) as client:
            await client.send(an_event())
            await client.ping()
        async with connected(foreign, "/events/in", auth=False) as client:
            await client.send({"type": "auth", "token": key})
            assert (await client.closed())[0] == 1008
        async with connected(own, "/events/in", prefect=False) as client:
            await client.send(an_event())
            assert (await client.closed())[0] == 1008
    assert len(await stored_ids(api)) == 1


@pytest.mark.parametrize("path", ["/events/in", "/events/out"])
async def test_a_runs_socket_ends_with_its_key(api: ApiClient, services: Services, path: str) -> None:
    run = await a_run(api)
    key = "managedd-run:secret"

    def execution(tx: Any) -> str:
        made = executions.insert(tx, flow_run_id=run, work_pool_id=None, driver="fake")
        executions.note(tx, made.id, {"key_hash": hashlib.sha256(key.encode()).hexdigest()})
        return made.id

    id_ = await services.db.write(execution, workspace=ids.DEFAULT_WORKSPACE_ID)

    async def enter(to: Phase, *from_: Phase) -> None:
        moved = await services.db.write(lambda tx: executions.advance(tx, id_, from_, to))
        assert moved is not None

    async with TestClient(TestServer(Api(services, Listener.RUNS).application())) as http:
        async with connected(replace(api, http=http), path, token=key) as client:
            await enter(Phase.CREATED, Phase.CLAIMED)
            assert await client.silent()
            await client.send(the_filter(event={"name": ["nothing"]}) if path == "/events/out" else an_event())
            await client.ping()
            await enter(Phase.EXITED, Phase.CREATED)
            await enter(Phase.LOST, Phase.EXITED)
            assert await client.closed() == (1008, "the run's key has ended")
            assert len(await stored_ids(api)) == (path == "/events/in")
    async with connected(api, path) as client:
        await client.ping()


async def test_plain_requests_are_told_the_method(api: ApiClient) -> None:
    assert (await api.get("/events/in"))[0] == 405


# --- events in -----------------------------------------------------------------------------------------------------------


async def test_a_pong_means_stored(api: ApiClient) -> None:
    sent = [an_event() for _ in range(1_200)]
    async with connected(api, "/events/in") as client:
        for event in sent:
            await client.send(event)
        await client.ping()
        assert await stored_ids(api) == [event["id"] for event in sent]


async def test_a_pause_stores_without_a_ping(api: ApiClient) -> None:
    async with connected(api, "/events/in") as client:
        await client.send(an_event())
        await until_stored(api, 1)


async def test_a_steady_stream_is_stored_while_it_flows(api: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_intake, "LINGER_SECONDS", 0.1)
    async with connected(api, "/events/in") as client:
        with anyio.fail_after(PATIENCE_SECONDS):
            while not await stored_ids(api):
                await client.send(an_event())
                await anyio.sleep(0.01)


async def test_a_close_is_answered_once_all_is_stored(api: ApiClient) -> None:
    sent = [an_event() for _ in range(50)]
    async with connected(api, "/events/in") as client:
        for event in sent:
            await client.send(event)
        await client.ws.close()
        assert client.ws.close_code == 1000
        assert await stored_ids(api) == [event["id"] for event in sent]


async def test_a_cut_connection_loses_nothing_that_had_arrived(api: ApiClient) -> None:
    sent = [an_event() for _ in range(20)]
    async with connected(api, "/events/in") as client:
        for event in sent:
            await client.send(event)
        await anyio.sleep(0.02)
        connection = client.ws._response.connection
        assert connection is not None
        assert connection.transport is not None
        connection.transport.close()
        await until_stored(api, len(sent))
    await until_open(api, 0)


async def until_open(api: ApiClient, count: int) -> None:
    """So many sockets are open."""
    with anyio.fail_after(PATIENCE_SECONDS):
        while len(api.services.sockets) != count:  # noqa: ASYNC110 - what a client sees from outside has no event
            await anyio.sleep(0.01)


async def until_stored(api: ApiClient, count: int) -> None:
    """So many events are stored."""
    with anyio.fail_after(PATIENCE_SECONDS):
        while len(await stored_ids(api)) < count:  # noqa: ASYNC110 - as above
            await anyio.sleep(0.01)


async def test_events_that_are_sent_again_are_kept_once(api: ApiClient) -> None:
    sent = [an_event() for _ in range(3)]
    for _ in range(2):
        async with connected(api, "/events/in") as client:
            for event in sent:
                await client.send(event)
            await client.ping()
    assert await stored_ids(api) == [event["id"] for event in sent]


@pytest.mark.parametrize(
    "bad", ["", "no json", "{}", "[]", {"event": "x"}, an_event(resource={}), an_event("n" * 2000), an_event(id="x")]
)
async def test_a_bad_event_costs_no_good_one(api: ApiClient, bad: Any) -> None:
    before, after = an_event(), an_event()
    async with connected(api, "/events/in") as client:
        for message in (before, bad, after):
            await client.send(message)
        await client.ping()
        assert await stored_ids(api) == [before["id"], after["id"]]


async def test_a_frame_beyond_the_bound_ends_the_socket_but_not_what_came_before(api: ApiClient) -> None:
    before = an_event()
    async with connected(api, "/events/in") as client:
        await client.send(before)
        # The server stops reading in the middle of the frame, so what its sender sees of the close is the network's business.
        with suppress(ConnectionError):
            await client.send("x" * (api.services.settings.server.max_frame_bytes + 1))
        await until_open(api, 0)
    assert await stored_ids(api) == [before["id"]]


async def test_a_store_that_fails_answers_no_ping(api: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from managedd.errors import unavailable
    from managedd.orchestration import events

    def refuse(tx: Any, batch: Any) -> None:
        raise unavailable("the disk is full")

    async with connected(api, "/events/in") as client:
        monkeypatch.setattr(events, "receive", refuse)
        await client.send(an_event())
        await client.ws.ping()
        assert await client.closed() == (1012, "the disk is full")


async def test_events_of_task_runs_make_task_runs(api: ApiClient) -> None:
    run, task = await a_run(api), ids.new_id()
    told = an_event(
        "prefect.task-run.Completed",
        resource={"prefect.resource.id": f"prefect.task-run.{task}", "prefect.orchestration": "client"},
        related=[{"prefect.resource.id": f"prefect.flow-run.{run}", "prefect.resource.role": "flow-run"}],
        payload={
            "validated_state": {
                "type": "COMPLETED",
                "name": "Completed",
                "message": "",
                "state_details": {},
                "data": None,
            },
            "task_run": {
                "name": "add-1",
                "task_key": "add-67",
                "dynamic_key": "d",
                "run_count": 1,
                "total_run_time": 0.5,
            },
        },
    )
    async with connected(api, "/events/in") as client:
        await client.send(told)
        await client.ping()
        status, body = await api.get(f"/task_runs/{task}")
    assert status == 200
    assert (body["state"]["id"], body["state_type"], body["total_run_time"]) == (told["id"], "COMPLETED", 0.5)
    assert body["state"]["state_details"]["flow_run_id"] == run


# --- events out ----------------------------------------------------------------------------------------------------------


async def post(api: ApiClient, *events: dict[str, Any]) -> None:
    assert (await api.post("/events", list(events)))[0] == 204


async def next_event(client: Client) -> str:
    message = await client.receive()
    assert message["type"] == "event"
    return ReceivedEvent.model_validate(message["event"]).id


async def test_recent_events_come_first_and_then_new_ones_each_once(api: ApiClient) -> None:
    old, recent = an_event(age_seconds=90), [an_event() for _ in range(3)]
    await post(api, old, *recent)
    async with connected(api, "/events/out") as client:
        await client.send(the_filter())
        assert [await next_event(client) for _ in recent] == [event["id"] for event in recent]
        new = [an_event() for _ in range(3)]
        for event in new:
            await post(api, event, recent[0])
        assert [await next_event(client) for _ in new] == [event["id"] for event in new]
        assert await client.silent()


async def test_backfill_reaches_no_further_than_its_bound(api: ApiClient) -> None:
    await post(api, an_event(age_seconds=16 * 60), young := an_event(age_seconds=14 * 60))
    occurred = {"since": "2020-01-01T00:00:00Z", "until": "2100-01-01T00:00:00Z"}
    async with connected(api, "/events/out") as client:
        await client.send(the_filter(occurred=occurred))
        assert await next_event(client) == young["id"]
        assert await client.silent()


async def test_backfill_can_be_declined(api: ApiClient) -> None:
    await post(api, an_event())
    async with connected(api, "/events/out") as client:
        await client.send({**the_filter(), "backfill": False})
        assert await client.silent()
        await post(api, new := an_event())
        assert await next_event(client) == new["id"]


async def test_the_servers_own_events_reach_the_observers_in_runs(api: ApiClient, other: ApiClient) -> None:
    run = await a_run(api)
    cancelling = the_filter(
        event={"prefix": None, "exclude_prefix": None, "name": ["prefect.flow-run.Cancelling"], "exclude_name": None}
    )
    watching = the_filter(any_resource={"id": [f"prefect.flow-run.{run}"], "id_prefix": None, "labels": None})
    async with (
        connected(api, "/events/out") as observer,
        connected(api, "/events/out") as watcher,
        connected(other, "/events/out") as stranger,
    ):
        await observer.send(cancelling)
        await watcher.send(watching)
        await stranger.send(the_filter())
        assert (await watcher.receive())["event"]["event"] == "prefect.flow-run.Running"
        await a_run(api)
        await move(api, run, StateType.CANCELLING)
        for client in (observer, watcher):
            told = (await client.receive())["event"]
            assert told["event"] == "prefect.flow-run.Cancelling"
            assert told["resource"]["prefect.resource.id"] == f"prefect.flow-run.{run}"
            assert told["payload"]["intended"] == {"from": "RUNNING", "to": "CANCELLING"}
            assert told["received"]
        assert await stranger.silent()
        assert await watcher.silent()


@pytest.mark.parametrize(
    "message",
    [
        {"type": "subscribe"},
        {"type": "filter"},
        {"type": "filter", "filter": {"event": 5}},
        {"type": "filter", "filter": {"x": 1}},
    ],
)
@pytest.mark.parametrize("path", ["/events/out", "/logs/out"])
async def test_a_bad_filter_closes_with_its_reason(api: ApiClient, path: str, message: Any) -> None:
    async with connected(api, path) as client:
        await client.send(message)
        code, reason = await client.closed()
        assert code == 1002
        assert "filter" in reason


async def test_pings_are_answered_while_nothing_happens(api: ApiClient) -> None:
    async with connected(api, "/events/out") as client:
        await client.send(the_filter())
        await client.ping(b"a")
        await client.send("whatever a client says now means nothing")
        await client.ping(b"b")


async def test_a_client_that_takes_nothing_is_dropped_and_holds_up_nobody(
    api: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "SEND_SECONDS", 0.3)
    async with connected(api, "/events/out", prefect=False) as stuck, connected(api, "/events/out") as quick:
        await stuck.send(the_filter())
        await quick.send(the_filter())
        await until_open(api, 2)
        big = [an_event(payload={"text": "x" * 100_000}) for _ in range(200)]
        for start in range(0, len(big), 5):
            batch = big[start : start + 5]
            await post(api, *batch)
            assert [await next_event(quick) for _ in batch] == [event["id"] for event in batch]
        await until_open(api, 1)
        await quick.ping()


class Held:
    """Something large in a frame."""


class LostWs:
    """A client's connection that is lost while something is on its way, and that keeps why, as aiohttp's do."""

    ws_protocol = None

    def __init__(self) -> None:
        self.lost = anyio.Event()
        self.sending = anyio.Event()
        self.held: list[weakref.ref[Held]] = []
        self.kept: Exception | None = None

    async def receive(self) -> WSMessage:
        await self.lost.wait()
        return WSMessage(WSMsgType.CLOSED, None, None)

    async def send_frame(self, _data: bytes, _kind: WSMsgType) -> None:
        message = Held()
        self.held.append(weakref.ref(message))
        self.sending.set()
        await self.lost.wait()
        self.kept = ConnectionError("Connection lost")
        raise self.kept


async def test_what_was_on_its_way_to_a_client_that_went_is_let_go_at_once() -> None:
    ws = LostWs()
    socket = sockets.Socket(ws, None)  # type: ignore[arg-type]

    async def follow() -> None:
        page = Held()
        ws.held.append(weakref.ref(page))
        await socket.send(b"a line")

    gc.disable()
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sockets.while_listening, socket, follow)
            await ws.sending.wait()
            ws.lost.set()
        assert ws.kept is not None
        assert [held() for held in ws.held] == [None, None]
    finally:
        gc.enable()


# --- logs out ------------------------------------------------------------------------------------------------------------


def log_filter(run: str, *, after_seconds: float | None = 60) -> dict[str, Any]:
    now = datetime.now(UTC)
    timestamp = {"before_": (now + timedelta(days=365)).isoformat(), "after_": None}
    if after_seconds is not None:
        timestamp["after_"] = (now - timedelta(seconds=after_seconds)).isoformat()
    return {
        "type": "filter",
        "filter": {
            "operator": "and_",
            "level": None,
            "timestamp": timestamp,
            "flow_run_id": {"any_": [run]},
            "task_run_id": None,
            "text": None,
        },
    }


async def next_line(client: Client) -> str:
    message = await client.receive()
    assert message["type"] == "log"
    return Log.model_validate(message["log"]).message


async def test_a_runs_lines_come_each_once_from_the_first(api: ApiClient) -> None:
    run, other_run = ids.new_id(), ids.new_id()
    await write_lines(api, run, "too old", age_seconds=90)
    await write_lines(api, run, "one", "two")
    async with connected(api, "/logs/out") as client:
        await client.send(log_filter(run))
        assert [await next_line(client), await next_line(client)] == ["one", "two"]
        await write_lines(api, other_run, "another's")
        await write_lines(api, run, "three")
        assert await next_line(client) == "three"
        assert await client.silent()


async def test_without_a_beginning_only_what_comes_is_sent(api: ApiClient) -> None:
    run = ids.new_id()
    await write_lines(api, run, "before")
    async with connected(api, "/logs/out") as client:
        await client.send(log_filter(run, after_seconds=None))
        assert await client.silent()
        await write_lines(api, run, "after")
        assert await next_line(client) == "after"


async def test_thousands_of_lines_come_in_order(api: ApiClient) -> None:
    run = ids.new_id()
    texts = [f"line {n}" for n in range(3_000)]
    async with connected(api, "/logs/out") as client:
        await client.send(log_filter(run))
        for start in range(0, len(texts), 250):
            await write_lines(api, run, *texts[start : start + 250])
        assert [await next_line(client) for _ in texts] == texts


# --- the daemon stops ----------------------------------------------------------------------------------------------------


async def test_stopping_stores_what_had_arrived_and_closes_with_1012(api: ApiClient) -> None:
    sent = [an_event() for _ in range(5)]
    async with (
        connected(api, "/events/in") as giver,
        connected(api, "/events/out") as taker,
        connected(api, "/logs/out", auth=False) as stranger,
    ):
        await taker.send(the_filter())
        await taker.ping()
        for event in sent:
            await giver.send(event)
        await anyio.sleep(0.02)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(api.services.sockets.close_all)
            assert (await giver.closed())[0] == 1012
            assert (await stranger.closed())[0] == 1012
            message = await taker.receive()
            while isinstance(message, dict):
                message = await taker.receive()
            assert message[:2] == ("CLOSE", 1012)
            for client in (giver, taker, stranger):
                await client.ws.close()
        assert await stored_ids(api) == [event["id"] for event in sent]
        assert len(api.services.sockets) == 0
    async with connected(api, "/events/in", auth=False) as late:
        assert (await late.closed())[0] == 1012


async def test_a_client_that_answers_no_close_holds_up_no_stop(api: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "CLOSE_SECONDS", 0.1)
    async with connected(api, "/events/out") as client:
        await client.send(the_filter())
        await client.ping()
        with anyio.fail_after(2):
            await api.services.sockets.close_all()
        assert len(api.services.sockets) == 0


async def test_event_times_survive_the_way(api: ApiClient) -> None:
    sent = an_event(occurred="2026-11-22T05:00:28.283520+01:00")
    async with connected(api, "/events/in") as client:
        await client.send(sent)
        await client.ping()
    occurred_us = await api.services.db.read(lambda tx: tx.scalar("SELECT occurred FROM events"))
    assert iso(occurred_us) == "2026-11-22T04:00:28.283520Z"
