"""The engine room: an engine that goes away and comes back, with another gateway."""

from __future__ import annotations

import contextlib
import socket
from datetime import UTC
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import structlog
from aiohttp import ClientSession, web

from managedd import engine_room as module
from managedd.api.context import Services
from managedd.bus import Topic
from managedd.config import Settings
from managedd.drivers.fake import FakeDriver, FakeRun
from managedd.engine_room import EngineRoom, make_driver
from managedd.errors import ErrorCode, ManagedError
from managedd.listeners import Door
from managedd.model.drivers import Enclosure
from managedd.model.executions import Phase
from managedd.model.states import StateType
from managedd.store import meta

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from managedd.model.addresses import Way
    from tests.engine.world import World

pytestmark = pytest.mark.anyio


class Gateways(FakeDriver):
    """An engine whose network has a gateway of its own, which may change."""

    gateway: str | None = "127.0.0.1"
    opened = 0

    async def open(self) -> Any:
        info = await super().open()
        self.opened += 1
        return info

    async def bind_host(self) -> str | None:
        self._answer("bind_host", "")
        return self.gateway

    async def api_host(self) -> str | None:
        return self.gateway


async def _pong(request: web.Request) -> web.Response:
    return web.Response(text="pong")


def _application() -> web.Application:
    application = web.Application()
    application.router.add_get("/api/ping", _pong)
    return application


@contextlib.asynccontextmanager
async def a_room(
    world: World, driver: FakeDriver, host: dict[str, Any] | None = None, **runs: Any
) -> AsyncIterator[EngineRoom]:
    settings = Settings.model_validate(
        {"runs": {"listen_port": 0, **runs}, "host": host or {}, "store": {"data_dir": world.folder}}
    )
    services = Services(settings=settings, db=world.db, logs=world.logs, bus=world.bus, clock=world.clock, zone=UTC)
    door = Door(_application(), settings.server)
    await door.open()
    try:
        yield EngineRoom(settings, services, driver, door)
    finally:
        await door.close()


async def ping(url: str) -> bool:
    with contextlib.suppress(OSError):
        async with ClientSession() as session, session.get(f"{url}/ping") as answer:
            return await answer.text() == "pong"
    return False


async def test_the_listener_follows_the_gateway_and_keeps_its_port(world: World) -> None:
    driver = Gateways(world.engine)
    async with a_room(world, driver) as room:
        assert not room.answers()
        with pytest.raises(ManagedError) as error:
            await room.api_url()
        assert error.value.code is ErrorCode.UNAVAILABLE
        assert await room.look() and room.answers()
        first = await room.api_url()
        assert first.startswith("http://127.0.0.1:") and await ping(first)

        world.engine.down = True
        assert not await room.look() and not room.answers()
        assert "does not answer" in room.describe()["problem"]
        # Runs that live on still reach us.
        assert await ping(first)

        world.engine.down = False
        driver.gateway = "127.0.0.2"
        assert await room.look() and room.answers()
        second = await room.api_url()
        assert second == first.replace("127.0.0.1", "127.0.0.2")
        assert await ping(second) and not await ping(first)
        assert driver.opened == 1 and room.describe()["problem"] is None


async def test_on_a_full_disk_nothing_is_started_until_there_is_room(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.05)
    free = [999]
    monkeypatch.setattr(module.shutil, "disk_usage", lambda place: SimpleNamespace(free=free[0]))
    async with (
        a_room(world, Gateways(world.engine), {"min_free_disk_bytes": 1000}) as room,
        anyio.create_task_group() as tasks,
    ):
        await room.look()
        tasks.start_soon(room.keep)

        async def is_full() -> bool:
            return not room.answers()

        await world.until(is_full)
        problem = room.describe()["problem"]
        assert f"the disk of {world.folder} has" in problem and "host.min_free_disk_bytes" in problem
        with world.bus.subscribe(Topic.SLOTS) as woken:
            free[0] = 1000
            assert await woken.wait(5), "what waits goes now"
        assert room.answers() and room.describe()["problem"] is None
        tasks.cancel_scope.cancel()


async def test_the_port_outlives_the_daemon(world: World) -> None:
    urls = []
    for _ in range(2):
        async with a_room(world, Gateways(world.engine)) as room:
            await room.open()
            urls.append(await room.api_url())
    assert urls[0] == urls[1]


async def test_a_port_that_is_taken_is_given_up_for_a_free_one(world: World) -> None:
    async with a_room(world, Gateways(world.engine)) as first:
        await first.open()
        async with a_room(world, Gateways(world.engine)) as second:
            await second.open()
            assert await ping(await first.api_url()) and await ping(await second.api_url())
            assert await first.api_url() != await second.api_url()
            kept = await world.db.read(lambda tx: meta.get(tx, "runs_port"))
            assert (await second.api_url()).endswith(f":{kept}/api")


async def test_a_port_that_is_set_anew_goes_over_the_kept_one(world: World) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        other = free.getsockname()[1]
    async with a_room(world, Gateways(world.engine)) as room:
        await room.open()
        first = await room.api_url()
    for _ in range(2):
        async with a_room(world, Gateways(world.engine), listen_port=other) as room:
            await room.open()
            assert await room.api_url() == f"http://127.0.0.1:{other}/api" != first


async def test_an_ipv6_address_stands_in_brackets(world: World) -> None:
    driver = Gateways(world.engine)
    driver.gateway = "::1"
    async with a_room(world, driver) as room:
        await room.open()
        assert (await room.api_url()).startswith("http://[::1]:") and await ping(await room.api_url())


class Walls(Gateways):
    """An engine around whose runs a wall stands, or not, or must."""

    enclosure: Enclosure | None = Enclosure(holds=False, reason="nobody may", mend="let the daemon")
    refusal: str | None = None
    asked: list[list[Way]]

    async def enclose(self, ways: Sequence[Way]) -> Enclosure | None:
        self.asked = [*getattr(self, "asked", []), [*ways]]
        if self.refusal is not None:
            raise ManagedError(ErrorCode.DRIVER, self.refusal)
        return self.enclosure


async def test_that_runs_reach_this_host_is_said_once_and_when_it_changes(world: World) -> None:
    driver = Walls(world.engine)
    async with a_room(world, driver) as room:
        with structlog.testing.capture_logs() as said:
            for _ in range(3):
                assert await room.look()
            assert room.describe()["enclosure"] == {"holds": False, "reason": "nobody may", "mend": "let the daemon"}
            driver.enclosure = Enclosure(holds=True, reason="nftables")
            for _ in range(2):
                assert await room.look()
        assert room.door.address is not None
        assert driver.asked == [[room.door.address]] * 5
    told = [entry for entry in said if entry["event"].startswith("runs.")]
    assert [(entry["event"], entry["log_level"]) for entry in told] == [
        ("runs.reach_host", "warning"),
        ("runs.kept_from_host", "info"),
    ]


async def test_nothing_is_started_while_what_the_settings_demand_is_not_held(world: World) -> None:
    driver = Walls(world.engine)
    driver.refusal = "docker.egress_allow can't be held"
    async with a_room(world, driver) as room:
        assert not await room.look() and not room.answers()
        assert room.describe()["problem"] == "docker.egress_allow can't be held"
        driver.refusal = None
        assert await room.look() and room.answers()


async def test_a_listener_on_all_addresses_is_reached_at_any(world: World) -> None:
    driver = Walls(world.engine)
    async with a_room(world, driver, listen_host="0.0.0.0") as room:
        await room.open()
        assert room.door.address is not None
        assert driver.asked[-1] == [(None, room.door.address[1])]


async def test_an_engine_elsewhere_needs_an_address(world: World) -> None:
    driver = Gateways(world.engine)
    driver.gateway = None
    async with a_room(world, driver) as room:
        assert not await room.look()
        assert "runs.listen_host" in room.describe()["problem"]
    # An address for runs alone is not enough: something has to listen.
    async with a_room(world, driver, api_url="http://managedd.example:4201/api") as room:
        assert not await room.look() and not room.answers()
        problem = room.describe()["problem"]
        assert "runs.listen_host" in problem and "runs.api_url" not in problem
    async with a_room(world, driver, api_url="http://managedd.example:4201/api", listen_host="127.0.0.1") as room:
        assert await room.look()
        assert room.door.address is not None and room.door.address[0] == "127.0.0.1"
        assert await room.api_url() == "http://managedd.example:4201/api"


async def test_runs_of_this_host_reach_us_where_we_listen(world: World) -> None:
    driver = Gateways(world.engine)
    for listen_host, host in {"127.0.0.3": "127.0.0.3", "0.0.0.0": "127.0.0.1"}.items():
        async with a_room(world, driver, listen_host=listen_host) as room:
            await room.open()
            assert (await room.api_url()).startswith(f"http://{host}:") and await ping(await room.api_url())


async def test_runs_of_an_earlier_start_find_us_on_their_address(world: World) -> None:
    there: str | None = None

    async def host() -> str | None:
        return there

    driver = Gateways(world.engine)
    settings = Settings.model_validate({"runs": {"listen_port": 0}})
    async with a_room(world, driver) as room:
        second = Door(_application(), settings.server)
        await second.open()
        try:
            room._second_door, room._second_host = second, host
            await room.open()
            url = await room.api_url()
            assert second.address is None
            there = "127.0.0.2"
            assert await room.look() and await room.look()
            assert await ping(url) and await ping(url.replace("127.0.0.1", "127.0.0.2"))
        finally:
            await second.close()


@pytest.mark.parametrize(
    ("given", "workspaces", "refused"),
    [
        ({}, 1, None),
        ({}, 2, "2 workspaces"),
        ({"process": {"trusted": True}}, 2, None),
        ({"runs": {"listen_host": "0.0.0.0"}}, 1, "runs.listen_host"),
        ({"runs": {"listen_host": "127.0.0.2"}}, 1, None),
        ({"server": {"host": "0.0.0.0", "auth_string": "a:b"}}, 1, "server.host"),
        ({"server": {"host": "0.0.0.0", "auth_string": "a:b"}, "process": {"trusted": True}}, 1, None),
    ],
)
def test_processes_are_refused_where_they_would_have_to_be_kept_apart(
    tmp_path: Path, given: dict[str, Any], workspaces: int, refused: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.os, "geteuid", lambda: 1000)
    store = {"data_dir": str(tmp_path)}
    settings = Settings.model_validate({**given, "store": store})
    # With `auto` the daemon starts, and waits for an engine.
    driver = make_driver(settings, "me", workspaces=workspaces, last=None)
    assert (refused in str(driver._refusal)) if refused else driver._refusal is None
    if refused not in {"server.host", "runs.listen_host"}:
        forced = Settings.model_validate(
            {**given, "store": store, "runs": {**given.get("runs", {}), "driver": "process"}}
        )
        if refused is None:
            assert make_driver(forced, "me", workspaces=workspaces, last=None).name == "process"
        else:
            with pytest.raises(ManagedError, match=r"process\.trusted = true") as raised:
                make_driver(forced, "me", workspaces=workspaces, last=None)
            assert raised.value.code is ErrorCode.CONFIG


@pytest.mark.parametrize(
    ("given", "user", "refused"),
    [
        ({}, 0, True),
        ({}, 1000, False),
        ({"server": {"auth_string": "a:b"}}, 0, False),
        ({"process": {"trusted": True}}, 0, False),
    ],
)
async def test_not_every_user_of_the_host_becomes_root_by_a_run(
    tmp_path: Path, given: dict[str, Any], user: int, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.os, "geteuid", lambda: user)
    given = {**given, "store": {"data_dir": str(tmp_path)}, "docker": {"host": f"unix://{tmp_path}/none.sock"}}
    chosen = Settings.model_validate(given)
    forced = Settings.model_validate({**given, "runs": {"driver": "process"}})
    driver = make_driver(chosen, "me", workspaces=1, last=None)
    if refused:
        # With `auto` the engine is waited for, and why is told.
        with pytest.raises(ManagedError, match=r"root.*server\.auth_string.*process\.trusted = true") as waits:
            await driver.open()
        assert (waits.value.code, driver.name) == (ErrorCode.DRIVER, "docker")
        with pytest.raises(ManagedError, match=r"runs\.driver = 'process'.*root") as raised:
            make_driver(forced, "me", workspaces=1, last=None)
        assert raised.value.code is ErrorCode.CONFIG
    else:
        assert driver._refusal is None
        assert make_driver(forced, "me", workspaces=1, last=None).name == "process"


async def test_who_had_containers_gets_no_processes_by_an_engine_that_is_down(tmp_path: Path) -> None:
    given = {
        "server": {"auth_string": "a:b"},
        "store": {"data_dir": str(tmp_path)},
        "docker": {"host": f"unix://{tmp_path}/none.sock"},
    }
    driver = make_driver(Settings.model_validate(given), "me", workspaces=1, last="docker")
    with pytest.raises(ManagedError, match=r'last runs were in containers.*runs\.driver = "process"') as raised:
        await driver.open()
    assert (raised.value.code, driver.name) == (ErrorCode.DRIVER, "docker")
    # Only if somebody says so, or had them the last time.
    chosen = Settings.model_validate({**given, "runs": {"driver": "process"}, "process": {"trusted": True}})
    assert make_driver(chosen, "me", workspaces=1, last="docker").name == "process"
    trusted = Settings.model_validate({**given, "process": {"trusted": True}})
    earlier = make_driver(trusted, "me", workspaces=1, last="process")
    try:
        assert (await earlier.open()).name == "process"
    finally:
        await earlier.close()


async def test_an_engine_that_hangs_is_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASK_SECONDS", 0.1)

    class Hangs(Gateways):
        async def bind_host(self) -> str | None:
            await anyio.sleep_forever()

    async with a_room(world, Hangs(world.engine)) as room:
        with anyio.fail_after(3):
            assert not await room.look()
        assert not room.answers()


async def test_runs_wait_for_the_engine_and_go_when_it_is_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.05)
    world.engine._plan = FakeRun(run_for_seconds=None)
    driver = Gateways(world.engine)
    async with a_room(world, driver) as room, world.daemon(driver=driver, may_claim=room.answers) as daemon:
        await room.open()
        daemon.dispatch()
        daemon.loops.start_soon(room.keep)
        first = await world.run()
        await world.until_phase(first, Phase.RUNNING)

        world.engine.down = True

        async def known() -> bool:
            return not room.answers()

        await world.until(known)
        second = await world.run()
        await anyio.sleep(0.3)
        assert (await world.state(second)).type is StateType.SCHEDULED and await world.executions(second) == []
        assert (await world.execution(first)).phase is Phase.RUNNING

        world.engine.down = False
        await world.until_phase(second, Phase.RUNNING, 3)
        assert await world.history(second) == ["Scheduled", "Pending"]
