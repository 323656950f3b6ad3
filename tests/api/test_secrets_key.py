"""The key of what is secret over the API: the host's own business, and never the key itself."""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING

import pytest

from managedd import failpoints
from managedd.errors import unavailable
from managedd.store import unlocking
from managedd.store.key_files import OWN, OWN_NAME
from managedd.wire.secrets import SecretsStatus
from tests.api.test_blocks import block_type, clear, document, schema

if TYPE_CHECKING:
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio


@pytest.fixture
async def unlocked(api: ApiClient) -> ApiClient:
    """The API of a daemon that has made its key itself."""
    services = api.services
    await unlocking.unlock(services.db, services.settings.store.data_dir, None)
    return api


async def test_the_key_is_shown_by_what_may_be_known_of_it(unlocked: ApiClient) -> None:
    of = await schema(unlocked, await block_type(unlocked))
    await document(unlocked, of, {"value": "x"})
    status, found = await unlocked.get("/managed/secrets")
    assert status == 200
    SecretsStatus.model_validate(found)
    assert (found["source"], found["envelopes"], found["left"], found["rotating"]) == (OWN, 1, 0, False)
    file = unlocked.services.settings.store.data_dir / OWN_NAME
    assert file.read_text().strip() not in str(found)


async def test_another_key_is_taken_and_the_old_one_forgotten(unlocked: ApiClient) -> None:
    of = await schema(unlocked, await block_type(unlocked))
    made = await document(unlocked, of, {"value": "hush"})
    _, before = await unlocked.get("/managed/secrets")
    status, found = await unlocked.post("/managed/secrets/rotate", {})
    assert status == 200 and found["key_id"] != before["key_id"] and (found["source"], found["left"]) == (OWN, 0)
    key = base64.b64encode(os.urandom(32)).decode()
    status, again = await unlocked.post("/managed/secrets/rotate", {"key": key, "source": "/etc/k"})
    assert status == 200 and key not in str(again)
    assert (again["source"], again["envelopes"], again["left"], again["rotating"]) == ("/etc/k", 1, 0, False)
    assert (await clear(unlocked, made["id"]))["data"] == {"value": "hush"}
    assert (await unlocked.post("/managed/secrets/reseal", {}))[1] == again


async def test_a_change_of_the_key_is_in_the_audit_log_whatever_comes_after_it(
    unlocked: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(point: str) -> None:
        raise unavailable(point)

    async def noted() -> list[str]:
        _, page = await unlocked.get("/managed/audit/all")
        return [entry["operation"] for entry in page["entries"] if "secrets" in entry["operation"]]

    await document(unlocked, await schema(unlocked, await block_type(unlocked)), {"value": "x"})
    monkeypatch.setattr(failpoints, "reach", breaks)
    status, _ = await unlocked.post("/managed/secrets/rotate", {})
    assert (status, await noted()) == (503, ["POST /managed/secrets/rotate"])
    monkeypatch.undo()
    status, found = await unlocked.post("/managed/secrets/rotate", {})
    assert (status, found["left"]) == (200, 0)
    assert len(await noted()) == 1, "the second request has only gone on with it"


async def test_what_is_no_key_is_refused_without_repeating_it(unlocked: ApiClient) -> None:
    for body in ({"key": "no-key-at-all", "source": "/etc/k"}, {"key": ["no-key-at-all"]}):
        status, found = await unlocked.post("/managed/secrets/rotate", body)
        assert status == 422 and "no-key-at-all" not in str(found)
    status, found = await unlocked.post("/managed/secrets/rotate", {"key": base64.b64encode(b"k" * 32).decode()})
    assert status == 200
    status, found = await unlocked.post("/managed/secrets/rotate", {})
    assert status == 409 and "--to" in str(found)


async def test_a_store_without_a_key_yet_says_so(api: ApiClient) -> None:
    status, found = await api.get("/managed/secrets")
    assert status == 409 and "when the daemon first starts" in str(found)


async def test_nobody_from_elsewhere_may(closed: ApiClient) -> None:
    for method, path in (("GET", ""), ("POST", "/rotate"), ("POST", "/reseal")):
        assert (await closed.call(method, f"/managed/secrets{path}", {}))[0] == 401
