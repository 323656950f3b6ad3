"""Events that runs send by their own keys: nothing of others, and no state of a flow run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from managedd import ids
from managedd.api.app import Api
from managedd.api.auth import Listener
from managedd.model.executions import Phase
from managedd.store import event_sizes, executions, rows
from managedd.store.resources import FLOW_RUN, TASK_RUN
from tests.api.test_sockets import a_run, an_event, connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio
KEY = "managedd-run:secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}


@dataclass
class Run:
    """A run with a key, a stranger with a task run, and a task run of no flow run, in one workspace."""

    api: ApiClient
    """By the run's own key."""
    id: str
    execution: str
    child: str
    stranger: str
    theirs: str
    nobodys: str


@pytest.fixture
async def within(api: ApiClient) -> AsyncIterator[Run]:
    run, stranger = await a_run(api), await a_run(api)

    def prepare(tx: Any) -> tuple[str, str, str, str]:
        made = executions.insert(tx, flow_run_id=run, work_pool_id=None, driver="fake")
        executions.note(tx, made.id, {"key_hash": hashlib.sha256(KEY.encode()).hexdigest()})
        task = {"name": "t", "task_key": "k", "dynamic_key": "0"}
        above, theirs, nobodys = (
            rows.insert(tx, TASK_RUN, {**task, "flow_run_id": owner}) for owner in (run, stranger, None)
        )
        flow = rows.need(tx, FLOW_RUN, id=run)["flow_id"]
        child = rows.insert(tx, FLOW_RUN, {"name": "child", "flow_id": flow, "parent_task_run_id": above})
        return made.id, child, theirs, nobodys

    execution, child, theirs, nobodys = await api.services.db.write(prepare, workspace=ids.DEFAULT_WORKSPACE_ID)
    application = Api(api.services, Listener.RUNS).application()
    async with TestClient(TestServer(application)) as http:
        yield Run(replace(api, http=http), run, execution, child, stranger, theirs, nobodys)


def task_event(task: str, run: str | None, type_: str = "FAILED", **changes: Any) -> dict[str, Any]:
    """As the client in a run tells of its task runs."""
    related = [{"prefect.resource.id": f"prefect.flow-run.{run}", "prefect.resource.role": "flow-run"}]
    state = {"type": type_, "name": type_.title(), "message": "", "state_details": {}, "data": None}
    return an_event(
        f"prefect.task-run.{type_.title()}",
        resource={"prefect.resource.id": f"prefect.task-run.{task}", "prefect.orchestration": "client"},
        related=[] if run is None else related,
        payload={
            "validated_state": state,
            "task_run": {"name": "t", "task_key": ids.new_id(), "dynamic_key": "0"},
        },
        **changes,
    )


def run_event(name: str, run: str, **labels: str) -> dict[str, Any]:
    return an_event(f"prefect.flow-run.{name}", resource={"prefect.resource.id": f"prefect.flow-run.{run}", **labels})


def legitimate(run: Run) -> list[dict[str, Any]]:
    """What the client and the user's code in a run send."""
    return [
        task_event(ids.new_id(), run.id, "RUNNING"),
        task_event(ids.new_id(), run.child, "COMPLETED"),
        task_event(ids.new_id(), None, "COMPLETED"),
        task_event(run.nobodys, None, "RUNNING"),
        run_event("heartbeat", run.id),
        run_event("heartbeat", run.child),
        run_event("pull-step.executed", run.id),
        an_event("orders.shipped", resource={"prefect.resource.id": f"prefect.flow-run.{run.stranger}"}),
        an_event("prefect.asset.materialization.succeeded", resource={"prefect.resource.id": "s3://bucket/key"}),
        an_event("prefect.runner.cancelled-flow-run", resource={"prefect.resource.id": "prefect.runner.r"}),
    ]


def forged(run: Run) -> list[dict[str, Any]]:
    """What is another's, or the server's to tell."""
    return [
        task_event(run.theirs, run.stranger),
        task_event(run.theirs, run.id),
        task_event(run.theirs.upper(), run.id),
        task_event(run.theirs, None),
        task_event(run.nobodys, run.id),
        task_event(run.nobodys, run.child),
        task_event(ids.new_id(), run.stranger),
        task_event(ids.new_id(), ids.new_id()),
        run_event("heartbeat", run.stranger),
        run_event("Cancelling", run.stranger, **{"prefect.state-type": "CANCELLING"}),
        run_event("Cancelling", run.id),
        run_event("my own name", run.id, **{"prefect.state-type": "RUNNING"}),
        an_event("managedd.flow-run.explained", resource={"prefect.resource.id": f"prefect.flow-run.{run.id}"}),
    ]


async def kept(run: Run, *sent: dict[str, Any]) -> list[str]:
    """Those of the sent events that are stored."""
    found = await run.api.services.db.read(lambda tx: {row[0] for row in tx.all("SELECT id FROM events")})
    return [event["id"] for event in sent if event["id"] in found]


async def test_over_http_what_is_forged_is_left_out(api: ApiClient, within: Run) -> None:
    good, bad = legitimate(within), forged(within)
    mixed = [event for pair in zip(good, bad, strict=False) for event in pair] + bad[len(good) :]
    assert (await within.api.post("/events", mixed, headers=HEADERS))[0] == 204
    assert await kept(within, *good) == [event["id"] for event in good]
    assert await kept(within, *bad) == []
    status, task = await api.get(f"/task_runs/{within.theirs}")
    assert (status, task["state"], task["flow_run_id"]) == (200, None, within.stranger)


async def test_a_request_of_nothing_but_forged_events_is_forbidden(within: Run) -> None:
    for event in forged(within):
        status, body = await within.api.post("/events", [event], headers=HEADERS)
        assert status == 403
        assert event["event"] in body["exception_message"]
    assert (await within.api.post("/events", [], headers=HEADERS))[0] == 204


async def test_over_a_websocket_what_is_forged_is_left_out_and_the_socket_stays(within: Run) -> None:
    good, bad = legitimate(within), forged(within)
    async with connected(within.api, "/events/in", token=KEY, headers=HEADERS) as client:
        for event in [*bad, *good, *bad]:
            await client.send(event)
        await client.ping()
        assert await kept(within, *good) == [event["id"] for event in good]
        assert await kept(within, *bad) == []
        await client.send(late := task_event(ids.new_id(), within.id))
        await client.ping()
        assert await kept(within, late) == [late["id"]]


async def test_other_clients_tell_of_any_run(api: ApiClient, within: Run) -> None:
    events = forged(within)
    assert (await api.post("/events", events))[0] == 204
    assert await kept(within, *events) == [event["id"] for event in events]


def limited(api: ApiClient, max_bytes: int) -> None:
    runs = api.services.settings.runs.model_copy(update={"events_max_bytes": max_bytes})
    api.services.settings = api.services.settings.model_copy(update={"runs": runs})


def large() -> dict[str, Any]:
    return an_event(payload={"x": "y" * 20_000})


async def said(api: ApiClient) -> list[str]:
    return await api.services.logs.read(lambda tx: [row[0] for row in tx.all("SELECT message FROM log_lines")])


async def test_a_run_has_room_for_so_many_bytes_of_events_and_its_log_says_once_that_it_is_full(
    api: ApiClient, within: Run
) -> None:
    limited(api, 64 * 1024)
    sent = [large() for _ in range(5)]
    for event in sent[:3]:
        # What is sent again takes no room.
        for _ in range(4):
            assert (await within.api.post("/events", [event], headers=HEADERS))[0] == 204
    assert await said(api) == []
    for event in sent[3:]:
        status, body = await within.api.post("/events", [event], headers=HEADERS)
        assert status == 413
        assert "runs.events_max_bytes" in body["exception_message"]
    small = task_event(ids.new_id(), within.id)
    assert (await within.api.post("/events", [large(), small], headers=HEADERS))[0] == 204
    assert await kept(within, *sent, small) == [event["id"] for event in [*sent[:3], small]]
    # Also where the limit was lowered meanwhile.
    limited(api, 64 * 1024 - 60_000)
    assert (await within.api.post("/events", sent[:3], headers=HEADERS))[0] == 204
    (line,) = await said(api)
    assert "runs.events_max_bytes" in line
    assert (await api.post("/events", [other := large()]))[0] == 204
    assert await kept(within, other) == [other["id"]]


async def test_a_socket_stays_open_when_its_run_has_no_room_for_events(api: ApiClient, within: Run) -> None:
    limited(api, 64 * 1024)
    async with connected(within.api, "/events/in", token=KEY, headers=HEADERS) as client:
        for _ in range(20):
            await client.send(large())
        await client.ping()
        await client.send(small := task_event(ids.new_id(), within.id))
        await client.ping()
    assert await kept(within, small) == [small["id"]]
    assert len(await said(api)) == 1
    stored = await api.services.db.read(
        lambda tx: tx.scalar("SELECT count(*) FROM events WHERE event = 'thing.happened'")
    )
    assert stored == 3


async def test_what_a_run_has_told_counts_in_all_of_its_attempts(api: ApiClient, within: Run) -> None:
    def add(tx: Any) -> list[bool]:
        first = event_sizes.grow(tx, within.execution, 1_000, 2)
        executions.advance(tx, within.execution, (Phase.CLAIMED,), Phase.EXITED)
        executions.advance(tx, within.execution, (Phase.EXITED,), Phase.FINALIZED)
        again = executions.insert(tx, flow_run_id=within.id, work_pool_id=None, driver="fake")
        return [first, *(event_sizes.grow(tx, again.id, 10, left_out) for left_out in (0, 1, 1))]

    firsts = await api.services.db.write(add, workspace=ids.DEFAULT_WORKSPACE_ID)
    assert firsts == [True, False, True, False]
    assert await api.services.db.read(lambda tx: event_sizes.told(tx, within.id)) == 1_030
    assert await api.services.db.read(lambda tx: event_sizes.told(tx, within.stranger)) == 0
