"""Who may come in: the auth string, runs' keys, and workspaces that are not theirs."""

from __future__ import annotations

import base64
import itertools
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from managedd import ids
from managedd.api.app import Api
from managedd.api.auth import MAX_CREDENTIAL_LENGTH, Listener, credential
from managedd.api.surface import all_operations
from managedd.model.executions import Phase
from managedd.model.keys import hashed
from managedd.store import executions
from tests.api.test_flow_runs import new_run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from managedd.api.context import Services
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio

WRONG = {"exception_message": "Unauthorized", "detail": "Unauthorized"}
KEY = "managedd-run:" + "s" * 40


def basic(text: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


class TestCredential:
    @pytest.mark.parametrize(
        ("header", "found"),
        [
            ("Bearer k", "k"),
            ("bearer   k ", "k"),
            ("Basic YWRtaW46c2VjcmV0", "admin:secret"),
            ("BASIC YWRtaW46c2VjcmV0", "admin:secret"),
            ("Basic YWRtaW46c2VjcmV0!", None),
            ("Basic /w==", None),
            ("Bearer", None),
            ("Bearer ", None),
            ("", None),
            ("Digest k", None),
            ("Bearer " + "k" * MAX_CREDENTIAL_LENGTH, "k" * MAX_CREDENTIAL_LENGTH),
            ("Bearer " + "k" * (MAX_CREDENTIAL_LENGTH + 1), None),
        ],
    )
    def test_it_is_read_from_either_scheme(self, header: str, found: str | None) -> None:
        assert credential({"Authorization": header}) == found

    def test_without_a_header_there_is_none(self) -> None:
        assert credential({}) is None


@pytest.mark.parametrize("headers", [basic("admin:secret"), bearer("admin:secret")])
async def test_the_auth_string_opens_in_both_schemes(closed: ApiClient, headers: dict[str, str]) -> None:
    assert (await closed.post("/flows/filter", {}, headers=headers)) == (200, [])


@pytest.mark.parametrize(
    "headers",
    [
        {}, basic("admin:wrong"), bearer("admin:secre"), bearer("admin:secret2"), basic("admin"), bearer("ädmin:secret"),
        {"Authorization": "Basic ???"}, {"Authorization": "admin:secret"},
    ],
)  # fmt: skip
async def test_without_it_there_is_one_answer_to_everything(closed: ApiClient, headers: dict[str, str]) -> None:
    for path in ("/flows/filter", "/flow_runs/filter", "/work_pools/count"):
        assert await closed.post(path, {}, headers=headers) == (401, WRONG)
    # What nobody asked about first: the body is not even looked at.
    assert (await closed.post("/flows/", {"no": "flow"}, headers=headers)) == (401, WRONG)


async def test_health_is_for_everybody(closed: ApiClient) -> None:
    assert (await closed.get("/health"))[0] == 200
    assert (await closed.get("/ready"))[0] == 200


async def test_an_auth_string_enters_every_workspace_and_none_that_is_not_there(
    closed: ApiClient, other: ApiClient
) -> None:
    there = replace(closed, prefix=other.prefix)
    assert await there.post("/flows/filter", {}, headers=bearer("admin:secret")) == (200, [])
    assert (await there.post("/flows/filter", {}))[0] == 401
    account, workspace = other.prefix.split("/")[3::2]
    nowhere = (
        (account, ids.new_id()),
        (ids.new_id(), workspace),
        (account, ids.DEFAULT_WORKSPACE_ID),
        (ids.DEFAULT_ACCOUNT_ID, workspace),
    )
    for pair in nowhere:
        lost = replace(closed, prefix="/api/accounts/{}/workspaces/{}".format(*pair))
        status, body = await lost.post("/flows/filter", {}, headers=bearer("admin:secret"))
        assert (status, body["detail"]) == (404, f"Workspace {pair[1]!r} not found")


@asynccontextmanager
async def listening(services: Services, listener: Listener, prefix: str = "/api") -> AsyncIterator[ApiClient]:
    from tests.api.conftest import ApiClient

    async with TestClient(TestServer(Api(services, listener).application())) as http:
        yield ApiClient(http=http, services=services, prefix=prefix)


async def run_with_key(api: ApiClient, key: str = KEY) -> str:
    """The id of an execution whose run has that key."""
    run = await new_run(api)

    def body(tx: Any) -> str:
        made = executions.insert(tx, flow_run_id=run["id"], work_pool_id=None, driver="fake")
        executions.note(tx, made.id, {"key_hash": hashed(key)})
        return made.id

    return await api.services.db.write(body, workspace=ids.DEFAULT_WORKSPACE_ID)


async def move(api: ApiClient, execution: str, *phases: Phase) -> None:
    for before, after in itertools.pairwise(phases):
        moved = await api.services.db.write(
            lambda tx, b=before, a=after: executions.advance(tx, execution, [b], a) is not None
        )
        assert moved


async def test_the_runs_listener_answers_nothing_without_a_key(api: ApiClient) -> None:
    await run_with_key(api)
    async with listening(api.services, Listener.RUNS) as runs:
        for operation in all_operations():
            if operation.method == "WS":
                continue
            path = operation.path.replace("{", "").replace("}", "")
            for headers in ({}, bearer("managedd-run:wrong"), basic(KEY + "x")):
                assert await runs.call(operation.method, path, headers=headers) == (401, WRONG), operation.id


async def test_the_auth_string_is_no_key(closed: ApiClient) -> None:
    async with listening(closed.services, Listener.RUNS) as runs:
        assert await runs.post("/flows/filter", {}, headers=bearer("admin:secret")) == (401, WRONG)


async def test_a_key_is_no_auth_string(closed: ApiClient, api: ApiClient) -> None:
    async with listening(api.services, Listener.SOCKET) as operator:
        await run_with_key(operator)
    assert await closed.post("/flows/filter", {}, headers=bearer(KEY)) == (401, WRONG)


@pytest.mark.parametrize("headers", [bearer(KEY), basic(KEY)])
async def test_a_runs_key_lives_as_long_as_its_execution(api: ApiClient, headers: dict[str, str]) -> None:
    execution = await run_with_key(api)
    async with listening(api.services, Listener.RUNS) as runs:

        async def asked() -> int:
            return (await runs.post("/flow_runs/filter", {}, headers=headers))[0]

        path = (Phase.CLAIMED, Phase.CREATED, Phase.RUNNING, Phase.EXITED)
        assert await asked() == 200
        for before, after in itertools.pairwise(path):
            await move(api, execution, before, after)
            assert await asked() == 200
        await move(api, execution, Phase.EXITED, Phase.FINALIZED)
        assert await asked() == 401


async def test_a_lost_executions_key_has_ended(api: ApiClient) -> None:
    execution = await run_with_key(api)
    async with listening(api.services, Listener.RUNS) as runs:
        assert (await runs.post("/flow_runs/filter", {}, headers=bearer(KEY)))[0] == 200
        await move(api, execution, Phase.CLAIMED, Phase.EXITED)
        await move(api, execution, Phase.EXITED, Phase.LOST)
        assert await runs.post("/flow_runs/filter", {}, headers=bearer(KEY)) == (401, WRONG)


async def test_a_runs_key_enters_its_own_workspace_and_no_other(api: ApiClient, other: ApiClient) -> None:
    await run_with_key(api)
    async with listening(api.services, Listener.RUNS) as runs:
        assert (await runs.post("/flow_runs/filter", {}, headers=bearer(KEY)))[0] == 200
        own = f"/api/accounts/{ids.DEFAULT_ACCOUNT_ID}/workspaces/{ids.DEFAULT_WORKSPACE_ID}"
        assert (await replace(runs, prefix=own).post("/flow_runs/filter", {}, headers=bearer(KEY)))[0] == 200
        status, body = await replace(runs, prefix=other.prefix).post("/flow_runs/filter", {}, headers=bearer(KEY))
        assert status == 404
        # The same as for one that does not exist.
        missing = other.prefix[:-36] + (nobody := ids.new_id())
        answer = await replace(runs, prefix=missing).post("/flow_runs/filter", {}, headers=bearer(KEY))
        assert (answer[0], answer[1]["detail"].replace(nobody, other.prefix[-36:])) == (404, body["detail"])


async def test_the_operators_socket_asks_for_nothing(closed: ApiClient) -> None:
    async with listening(closed.services, Listener.SOCKET) as operator:
        assert await operator.post("/flows/filter", {}) == (200, [])


async def test_what_the_store_keeps_of_a_key_is_a_hash(api: ApiClient) -> None:
    await run_with_key(api)
    kept = await api.services.db.read(lambda tx: tx.scalar("SELECT key_hash FROM executions"))
    assert kept == hashed(KEY) != KEY
    assert len(kept) == 64
