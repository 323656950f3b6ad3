"""Log lines over HTTP."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from pydantic import TypeAdapter

from managedd import ids
from managedd.api.app import Api
from managedd.api.auth import Listener
from managedd.api.operation import Operation
from managedd.model.log_limits import LINE_OVERHEAD_BYTES, TASK_RUN_BYTES, Dropped, LogLimits, SentGates
from managedd.store import executions, log_sizes, rows
from managedd.store.resources import FLOW_RUN, TASK_RUN
from managedd.wire.logs import Log
from tests.api.test_sockets import a_run

if TYPE_CHECKING:
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio

LOGS = TypeAdapter(list[Log])
NAME_BYTES = len("prefect.flow_runs")


def a_line(run: str | None, text: str = "hello", **changes: Any) -> dict[str, Any]:
    return {
        "name": "prefect.flow_runs",
        "level": 20,
        "message": text,
        "timestamp": "2026-11-22T04:00:28.283520Z",
        "flow_run_id": run,
        "task_run_id": None,
        **changes,
    }


async def read(api: ApiClient, **body: Any) -> list[Log]:
    response = await api.http.post(api.prefix + "/logs/filter", json=body)
    assert response.status == 200
    return LOGS.validate_json(await response.read())


async def test_lines_are_kept_and_found(api: ApiClient, other: ApiClient) -> None:
    run, task = ids.new_id(), ids.new_id()
    lines = [a_line(run, "one"), a_line(run, "two", level=40, task_run_id=task), a_line(None, "of no run")]
    assert await api.post("/logs/", lines) == (201, None)
    assert [line.message for line in await read(api)] == ["one", "two", "of no run"]
    (found,) = await read(api, logs={"flow_run_id": {"any_": [run]}, "level": {"ge_": 30}})
    assert (found.message, found.level, found.task_run_id, found.flow_run_id) == ("two", 40, task, run)
    assert found.timestamp.isoformat() == "2026-11-22T04:00:28.283520+00:00"
    newest = await read(api, logs={"flow_run_id": {"any_": [run]}}, sort="TIMESTAMP_DESC", limit=1, offset=0)
    assert [line.message for line in newest] == ["two"]
    assert await read(other) == []
    assert len({line.id for line in await read(api)}) == 3


async def test_clients_may_send_nulls_for_what_they_do_not_ask(api: ApiClient) -> None:
    assert await read(api, logs=None, limit=None, offset=None, sort="TIMESTAMP_ASC") == []


async def test_an_empty_batch_is_no_fault(api: ApiClient) -> None:
    assert await api.post("/logs/", []) == (201, None)


async def test_a_megabyte_line_is_kept_whole(api: ApiClient) -> None:
    run = ids.new_id()
    assert (await api.post("/logs/", [a_line(run, "x" * 1_000_000)]))[0] == 201
    assert [len(line.message) for line in await read(api, logs={"flow_run_id": {"any_": [run]}})] == [1_000_000]


@pytest.mark.parametrize(
    "change",
    [{"level": 2**70}, {"flow_run_id": "x"}, {"message": None}, {"timestamp": "soon"}, {"unknown": 1}, {"level": None}],
)
async def test_a_bad_line_refuses_the_batch(api: ApiClient, change: dict[str, Any]) -> None:
    status, body = await api.post("/logs/", [a_line(None), {**a_line(None), **change}])
    assert status == 422
    assert body["exception_detail"][0]["loc"][:2] == ["body", 1]
    assert await read(api) == []


async def test_a_run_writes_only_to_its_own_log_and_its_childrens(api: ApiClient) -> None:
    run, stranger = await a_run(api), await a_run(api)
    key = "managedd-run:secret"

    def prepare(tx: Any) -> str:
        made = executions.insert(tx, flow_run_id=run, work_pool_id=None, driver="fake")
        executions.note(tx, made.id, {"key_hash": hashlib.sha256(key.encode()).hexdigest()})
        task = rows.insert(tx, TASK_RUN, {"name": "t", "flow_run_id": run, "task_key": "k", "dynamic_key": "0"})
        flow = rows.need(tx, FLOW_RUN, id=run)["flow_id"]
        return rows.insert(tx, FLOW_RUN, {"name": "child", "flow_id": flow, "parent_task_run_id": task})

    child = await api.services.db.write(prepare, workspace=ids.DEFAULT_WORKSPACE_ID)
    application = Api(api.services, Listener.RUNS).application()
    async with TestClient(TestServer(application)) as http:
        within = replace(api, http=http)
        headers = {"Authorization": f"Bearer {key}"}
        assert (await within.post("/logs/", [a_line(run), a_line(child), a_line(None)], headers=headers))[0] == 201
        status, body = await within.post("/logs/", [a_line(run), a_line(stranger)], headers=headers)
        assert status == 403
        assert stranger in body["detail"]
        assert (await within.post("/logs/", [a_line(ids.new_id())], headers=headers))[0] == 403
        assert (await within.post("/logs/", [a_line(run)]))[0] == 401
    assert len(await read(api)) == 3


async def test_a_run_writes_no_line_of_a_strangers_task_run(api: ApiClient) -> None:
    """The line is kept without its id; so is the id of a task run that nobody has told of yet."""
    run, stranger, unknown = await a_run(api), await a_run(api), ids.new_id()
    key = "managedd-run:secret"

    def prepare(tx: Any) -> list[str]:
        made = executions.insert(tx, flow_run_id=run, work_pool_id=None, driver="fake")
        executions.note(tx, made.id, {"key_hash": hashlib.sha256(key.encode()).hexdigest()})
        task = {"name": "t", "task_key": "k", "dynamic_key": "0"}
        return [rows.insert(tx, TASK_RUN, {**task, "flow_run_id": owner}) for owner in (run, stranger)]

    own, theirs = await api.services.db.write(prepare, workspace=ids.DEFAULT_WORKSPACE_ID)
    lines = [a_line(run, task_run_id=task) for task in (own, theirs, unknown)] + [a_line(None, task_run_id=theirs)]
    application = Api(api.services, Listener.RUNS).application()
    async with TestClient(TestServer(application)) as http:
        headers = {"Authorization": f"Bearer {key}"}
        assert (await replace(api, http=http).post("/logs/", lines, headers=headers))[0] == 201
    assert [line.task_run_id for line in await read(api)] == [own, None, unknown, None]
    assert (await api.post("/logs/", [a_line(None, task_run_id=theirs)]))[0] == 201
    assert len(await read(api, logs={"task_run_id": {"any_": [theirs]}})) == 1


async def test_what_a_run_sends_by_itself_counts_against_the_size_of_its_log(api: ApiClient) -> None:
    run = await a_run(api)
    key = "managedd-run:secret"

    def prepare(tx: Any) -> str:
        made = executions.insert(tx, flow_run_id=run, work_pool_id=None, driver="fake")
        executions.note(tx, made.id, {"key_hash": hashlib.sha256(key.encode()).hexdigest()})
        return made.id

    execution = await api.services.db.write(prepare, workspace=ids.DEFAULT_WORKSPACE_ID)
    api.services.log_gates = SentGates(LogLimits(max_bytes=10 * (LINE_OVERHEAD_BYTES + NAME_BYTES + 4)))
    application = Api(api.services, Listener.RUNS).application()
    async with TestClient(TestServer(application)) as http:
        within = replace(api, http=http)
        for _ in range(4):
            lines = [a_line(run, "four") for _ in range(4)]
            assert (await within.post("/logs/", lines, headers={"Authorization": f"Bearer {key}"}))[0] == 201
    messages = [line.message for line in await read(api)]
    assert messages.count("four") == 10
    assert sum("runs.log_max_bytes" in message for message in messages) == 1
    assert await api.services.logs.read(lambda tx: log_sizes.untold(tx, execution)) == Dropped(6, 6 * (NAME_BYTES + 4))
    assert (await api.post("/logs/", [a_line(run, "an operator's")]))[0] == 201
    assert len(await read(api)) == 12


async def test_what_a_run_sends_by_itself_has_a_rate(api: ApiClient) -> None:
    run = await a_run(api)
    key = "managedd-run:secret"

    def prepare(tx: Any) -> str:
        made = executions.insert(tx, flow_run_id=run, work_pool_id=None, driver="fake")
        executions.note(tx, made.id, {"key_hash": hashlib.sha256(key.encode()).hexdigest()})
        return made.id

    execution = await api.services.db.write(prepare, workspace=ids.DEFAULT_WORKSPACE_ID)
    api.services.log_gates = SentGates(LogLimits(lines_per_second=1e-6, burst_seconds=10e6, max_bytes=10**6))
    application = Api(api.services, Listener.RUNS).application()
    async with TestClient(TestServer(application)) as http:
        within = replace(api, http=http)
        for _ in range(4):
            lines = [a_line(run, "four") for _ in range(4)]
            assert (await within.post("/logs/", lines, headers={"Authorization": f"Bearer {key}"}))[0] == 201
    messages = [line.message for line in await read(api)]
    assert messages.count("four") == 10
    assert sum("runs.log_lines_per_second" in message for message in messages) == 1
    assert await api.services.logs.read(lambda tx: log_sizes.untold(tx, execution)) == Dropped(6, 6 * (NAME_BYTES + 4))
    assert (await api.post("/logs/", [a_line(run, "an operator's")]))[0] == 201
    assert len(await read(api)) == 12


async def test_a_task_run_counts_with_the_first_line_that_a_run_sends_of_it(api: ApiClient) -> None:
    run = await a_run(api)
    key = "managedd-run:secret"

    def prepare(tx: Any) -> None:
        made = executions.insert(tx, flow_run_id=run, work_pool_id=None, driver="fake")
        executions.note(tx, made.id, {"key_hash": hashlib.sha256(key.encode()).hexdigest()})

    await api.services.db.write(prepare, workspace=ids.DEFAULT_WORKSPACE_ID)
    application = Api(api.services, Listener.RUNS).application()
    one, other = ids.new_id(), ids.new_id()
    async with TestClient(TestServer(application)) as http:
        within = replace(api, http=http)
        for tasks in ((one, one, None), (one, other)):
            lines = [a_line(run, "four", task_run_id=task) for task in tasks]
            assert (await within.post("/logs/", lines, headers={"Authorization": f"Bearer {key}"}))[0] == 201
    size = await api.services.logs.read(lambda tx: log_sizes.size(tx, run))
    assert size == 5 * (LINE_OVERHEAD_BYTES + NAME_BYTES + 4) + 2 * TASK_RUN_BYTES


async def test_the_name_of_a_logger_is_cut_and_counts(api: ApiClient) -> None:
    run = await a_run(api)
    key = "managedd-run:secret"

    def prepare(tx: Any) -> None:
        made = executions.insert(tx, flow_run_id=run, work_pool_id=None, driver="fake")
        executions.note(tx, made.id, {"key_hash": hashlib.sha256(key.encode()).hexdigest()})

    await api.services.db.write(prepare, workspace=ids.DEFAULT_WORKSPACE_ID)
    application = Api(api.services, Listener.RUNS).application()
    # In the one form that clients write, and in one that only the validator reads.
    lines = [a_line(run, "", name="n" * 1_000_000), a_line(run, "", name="n" * 1_001, level="20")]
    async with TestClient(TestServer(application)) as http:
        within = replace(api, http=http)
        for line in lines:
            assert (await within.post("/logs/", [line], headers={"Authorization": f"Bearer {key}"}))[0] == 201
    assert [line.name for line in await read(api)] == ["n" * 1_000] * 2
    assert await api.services.logs.read(lambda tx: log_sizes.size(tx, run)) == 2 * (LINE_OVERHEAD_BYTES + 1_000)


async def test_no_client_speaks_as_the_daemon(api: ApiClient) -> None:
    # In the one form that clients write, and in one that only the validator reads.
    for form in ({}, {"level": "20"}):
        assert (await api.post("/logs/", [a_line(None, name=name, **form) for name in ("managedd", "mine")]))[0] == 201
    assert [line.name for line in await read(api)] == ["managedd (run)", "mine"] * 2


async def test_a_large_body_does_not_keep_the_others_waiting(api: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is validated on another thread than the loop's."""
    threads: list[int] = []
    bind = Operation.bind

    def noting(*args: Any) -> dict[str, Any]:
        threads.append(threading.get_ident())
        return bind(*args)

    monkeypatch.setattr(Operation, "bind", noting)
    for size, elsewhere in ((1_000, False), (300_000, True)):
        assert (await api.post("/logs/", [a_line(None, "x" * size)]))[0] == 201
        assert (threads[-1] != threading.get_ident()) == elsewhere
    status, _ = await api.post("/logs/", [a_line(None, "x" * 300_000, level="high")])
    assert status == 422
