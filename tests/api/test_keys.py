"""Keys at the door: where they are taken, what they enter, when they end, and who guesses."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import pytest
from aiohttp.test_utils import TestClient, TestServer

from managedd import ids
from managedd.api import guard
from managedd.api.app import Api
from managedd.api.auth import Listener
from managedd.bus import Topic
from managedd.errors import ErrorCode, ManagedError
from managedd.model import keys
from managedd.model.access import Role
from managedd.store import keys as stored
from tests.api.test_flow_runs import new_run
from tests.api.test_sockets import connected
from tests.support.api_keys import bearer, make_key, make_run_key
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from managedd.store.database import Tx
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio


def basic(key: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(key.encode()).decode()}


async def asked(api: ApiClient, headers: dict[str, str]) -> int:
    return (await api.post("/flows/filter", {}, headers=headers))[0]


async def test_a_key_is_taken_in_all_three_ways(closed: ApiClient) -> None:
    key = await make_key(closed.services.db, Role.VIEWER)
    assert await asked(closed, bearer(key)) == 200
    assert await asked(closed, basic(key)) == 200
    async with connected(closed, "/events/out", token=key) as socket:
        await socket.ping()
    async with connected(closed, "/events/out", prefect=False, headers=bearer(key)) as socket:
        await socket.ping()


async def test_a_key_enters_its_workspace_and_is_told_where_that_is(closed: ApiClient, other: ApiClient) -> None:
    workspace = other.prefix[-36:]
    key = await make_key(closed.services.db, workspace=workspace)
    within = replace(closed, prefix=other.prefix)
    assert await asked(within, bearer(key)) == 200
    status, body = await closed.post("/flows/filter", {}, headers=bearer(key))
    assert (status, other.prefix in body["detail"]) == (404, True)
    # What belongs to no workspace is answered without one.
    assert (await closed.get("/version", headers=bearer(key)))[0] == 200
    _, mine = await closed.get("/me/workspaces", headers=bearer(key))
    assert [each["workspace_id"] for each in mine] == [workspace]


async def test_a_revoked_key_opens_nothing_and_what_it_has_opened_ends(closed: ApiClient) -> None:
    db = closed.services.db
    key, another = await make_key(db, name="one"), await make_key(db, name="two")
    async with (
        connected(closed, "/events/out", token=key) as socket,
        connected(closed, "/events/out", token=another) as lasting,
    ):
        await socket.ping()
        await db.write(lambda tx: stored.revoke(tx, ids.DEFAULT_WORKSPACE_ID, "one"))
        assert await socket.closed() == (1008, "the key has ended")
        await lasting.ping()
    assert (await asked(closed, bearer(key)), await asked(closed, bearer(another))) == (401, 200)


async def test_an_expired_key_opens_nothing(closed: ApiClient) -> None:
    now = closed.services.clock.now_us()
    key = await make_key(closed.services.db, expires_us=now + 400_000)
    assert await asked(closed, bearer(key)) == 200
    await anyio.sleep(0.5)
    assert await asked(closed, bearer(key)) == 401


async def test_what_a_key_has_opened_ends_when_it_expires(closed: ApiClient) -> None:
    db, clock = closed.services.db, closed.services.clock
    key, another = await make_key(db, name="one"), await make_key(db, name="two")
    async with (
        connected(closed, "/events/out", token=key) as socket,
        connected(closed, "/events/out", token=another) as lasting,
    ):
        await socket.ping()

        def expire_soon(tx: Tx) -> int:
            end_us: int = clock.now_us() + 300_000
            for name, expires_us in (("one", end_us), ("two", end_us + 3_600_000_000)):
                tx.execute("UPDATE keys SET expires = ? WHERE name = ?", (expires_us, name))
            # As if it had been looked up with these ends when the sockets were opened.
            tx.publish(Topic.KEYS)
            return end_us

        end_us = await db.write(expire_soon)
        assert await socket.closed() == (1008, "the key has ended")
        assert clock.now_us() >= end_us
        await lasting.ping()


async def test_where_nobody_needs_a_key_who_shows_one_is_its_holder(api: ApiClient) -> None:
    key = await make_key(api.services.db, Role.VIEWER)
    assert (await api.post("/flows/", {"name": "f"}, headers=bearer(key)))[0] == 403
    assert (await api.post("/flows/", {"name": "f"}))[0] == 201
    assert await asked(api, bearer(keys.make())) == 401
    # A credential that was never ours says nothing: a profile may hold one of another server.
    assert await asked(api, bearer("pnu_somebody")) == 200


async def test_a_runs_key_is_refused_on_the_clients_listener(api: ApiClient) -> None:
    key = await make_run_key(api.services.db, (await new_run(api))["id"])
    assert await asked(api, bearer(key)) == 401
    async with TestClient(TestServer(Api(api.services, Listener.RUNS).application())) as http:
        assert await asked(replace(api, http=http), bearer(key)) == 200


async def test_a_key_is_refused_on_the_runs_listener(api: ApiClient) -> None:
    key = await make_key(api.services.db)
    async with TestClient(TestServer(Api(api.services, Listener.RUNS).application())) as http:
        assert await asked(replace(api, http=http), bearer(key)) == 401


@pytest.mark.parametrize("listener", [Listener.CLIENTS, Listener.RUNS])
async def test_what_is_no_text_is_a_wrong_key(closed: ApiClient, listener: Listener) -> None:
    async with TestServer(Api(closed.services, listener).application()) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /api/version HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer mgk_\xff\xfe\r\n\r\n")
        with anyio.fail_after(5):
            assert b" 401 " in await reader.readline()
        writer.close()


async def test_the_last_use_is_written(closed: ApiClient) -> None:
    db = closed.services.db
    key = await make_key(db, name="used")
    await make_key(db, name="unused")
    before = closed.services.clock.now_us()
    assert await asked(closed, bearer(key)) == 200
    await closed.services.key_uses.write()
    found = {
        each.name: each.last_used for each in await db.read(lambda tx: stored.every(tx, ids.DEFAULT_WORKSPACE_ID, 10))
    }
    assert found["unused"] is None
    assert found["used"] is not None and found["used"] >= before


async def test_whoever_guesses_waits_and_who_is_known_does_not(closed: ApiClient) -> None:
    key = await make_key(closed.services.db)
    assert await asked(closed, bearer(key)) == 200
    for _ in range(guard.TRIES):
        assert await asked(closed, basic("admin:guess")) == 401
    response = await closed.http.post("/api/flows/filter", json={}, headers=basic("admin:secret"))
    assert (response.status, int(response.headers["Retry-After"]) > 0) == (429, True)
    async with connected(closed, "/events/out", auth=False) as socket:
        await socket.send({"type": "auth", "token": "admin:secret"})
        assert (await socket.closed())[0] == 1013
    assert await asked(closed, bearer(key)) == 200


class TestGuard:
    def guarded(self) -> tuple[guard.Guard, ManualClock]:
        clock = ManualClock()
        return guard.Guard(clock), clock

    def refuses(self, of: guard.Guard, address: str | None, hashed: str = "new") -> bool:
        try:
            of.check(address, hashed)
        except ManagedError as error:
            assert error.code is ErrorCode.TOO_MANY
            assert error.retry_after_seconds is not None and error.retry_after_seconds > 0
            return True
        return False

    def test_tries_come_back_with_time(self) -> None:
        of, clock = self.guarded()
        for _ in range(guard.TRIES):
            assert not self.refuses(of, "192.0.2.1")
            of.failed("192.0.2.1", "wrong")
        assert self.refuses(of, "192.0.2.1")
        assert not self.refuses(of, "192.0.2.2")
        clock.advance(guard.SECONDS_PER_TRY)
        assert not self.refuses(of, "192.0.2.1")
        of.failed("192.0.2.1", "wrong")
        assert self.refuses(of, "192.0.2.1")

    def test_whoever_goes_on_is_held_up_no_longer_and_a_revoked_key_is_not_known(self) -> None:
        of, clock = self.guarded()
        of.passed("revoked")
        for _ in range(50 * guard.TRIES):
            of.failed("192.0.2.1", "revoked")
        assert self.refuses(of, "192.0.2.1", "revoked")
        clock.advance(guard.SECONDS_PER_TRY)
        assert not self.refuses(of, "192.0.2.1")

    def test_a_network_of_ipv6_is_one_source(self) -> None:
        of, _ = self.guarded()
        for at in range(guard.TRIES):
            of.failed(f"2001:db8::{at + 1:x}", "wrong")
        assert self.refuses(of, "2001:db8::ffff")
        assert not self.refuses(of, "2001:db8:1::1")

    def test_what_is_remembered_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(guard, "ADDRESSES", 3)
        monkeypatch.setattr(guard, "CREDENTIALS", 3)
        of, _ = self.guarded()
        for at in range(10):
            of.failed(f"192.0.2.{at}", "wrong")
            of.passed(f"hash {at}")
        assert list(of._spent) == ["192.0.2.7", "192.0.2.8", "192.0.2.9"]
        assert list(of._right) == ["hash 7", "hash 8", "hash 9"]
