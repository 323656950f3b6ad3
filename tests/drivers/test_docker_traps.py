"""What engines and connections do on a bad day, each over an engine that does it."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from aiohttp import web

from managedd.drivers.docker import DockerDriver
from managedd.errors import ErrorCode, ManagedError
from managedd.model.drivers import Handle, ImageError, Liveness, PullPolicy
from managedd.model.logs import LogCursor
from tests.drivers.stub_engine import (
    INSTANCE,
    StubEngine,
    answer,
    cut_stream,
    endless,
    frame,
    hang_up,
    refuse,
    running,
    spec,
    stream,
    told,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(30)]

CONTAINER = r"containers/c0ffee\d+"


async def quiet(_line: str) -> None: ...


async def read(driver: DockerDriver, handle: Handle) -> list[str]:
    with anyio.fail_after(10):
        async with driver.logs(handle, LogCursor()) as lines:
            return [line.text async for line in lines]


# The engine itself


async def test_an_old_engine_is_refused(engine: StubEngine) -> None:
    engine.version |= {"Version": "19.03.15", "ApiVersion": "1.40"}
    with pytest.raises(ManagedError, match=r"19\.03\.15.*Docker 20\.10"):
        await DockerDriver(INSTANCE, url=engine.url).open()


async def test_a_new_engine_is_spoken_to_in_the_oldest_way_it_knows(engine: StubEngine) -> None:
    engine.version |= {"Version": "29.1.0", "ApiVersion": "1.52", "MinAPIVersion": "1.44"}
    driver = DockerDriver(INSTANCE, url=engine.url)
    assert (await driver.open()).detail["api_version"] == "v1.44"
    await driver.close()


async def test_no_engine(tmp_path: Path) -> None:
    with pytest.raises(ManagedError, match="can't be used") as raised:
        await DockerDriver(INSTANCE, url=f"unix://{tmp_path}/nothing.sock").open()
    assert raised.value.code is ErrorCode.DRIVER


async def test_no_engine_to_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr("aiodocker.docker._sock_search_paths", [])
    with pytest.raises(ManagedError, match="No container engine was found"):
        await DockerDriver(INSTANCE).open()


@pytest.mark.parametrize("address", ["ssh://somebody@somewhere", "somewhere", "ftp://somewhere"])
async def test_addresses_that_cannot_be_used(address: str) -> None:
    with pytest.raises(ManagedError):
        await DockerDriver(INSTANCE, url=address).open()


async def test_an_engine_over_tcp(engine: StubEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named as its users name it: by DOCKER_HOST."""
    monkeypatch.setenv("DOCKER_HOST", await engine.listen_on_tcp())
    driver = DockerDriver(INSTANCE)
    assert (await driver.open()).detail["is_local"] is False
    handle, name = await running(driver)
    engine.set_status(name, "exited", 0)
    engine.on("GET", CONTAINER + "/logs", stream(frame(10, "one\n")))
    assert await read(driver, handle) == ["one"]
    assert (await driver.wait(handle)).exit_code == 0
    await driver.remove(handle)
    await driver.close()


async def test_an_engine_that_says_nothing(engine: StubEngine, driver: DockerDriver) -> None:
    handle, _ = await running(driver)
    engine.on("GET", CONTAINER + "/json", endless())
    with anyio.fail_after(5), pytest.raises(ManagedError, match="did not answer in time"):
        await driver.recover(handle)


async def test_an_engine_that_talks_nonsense(engine: StubEngine, driver: DockerDriver) -> None:
    handle, _ = await running(driver)

    async def nonsense(_request: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>", content_type="application/json")

    engine.on("GET", CONTAINER + "/json", nonsense)
    with pytest.raises(ManagedError):
        await driver.recover(handle)


async def test_a_network_that_went_away_is_made_again(engine: StubEngine, driver: DockerDriver) -> None:
    handle = await driver.create(spec())
    engine.networks.clear()
    await driver.start(handle)
    assert len(engine.networks) == 1
    assert await driver.recover(handle) is Liveness.RUNNING


async def test_an_engine_without_a_range_for_one_more_network(engine: StubEngine) -> None:
    full = "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network"
    engine.on("POST", "networks/create", refuse(500, full))
    with pytest.raises(ManagedError, match="docker network prune"):
        await DockerDriver(INSTANCE, url=f"unix://{engine.path}").open()


async def test_an_engine_that_misses_the_network_at_once(engine: StubEngine, driver: DockerDriver) -> None:
    """As Podman does."""
    await driver.create(spec())
    engine.networks.clear()
    missing = refuse(404, "unable to find network with name or ID managedd: network not found")
    usual = partial(engine.usual, path="containers/create")
    engine.on("POST", "containers/create", missing, missing, missing, usual)
    with pytest.raises(ManagedError, match="network not found"):
        await driver.create(spec())
    engine.networks.clear()
    await driver.create(spec())
    assert len(engine.networks) == 1


async def test_the_gateway_is_bound_only_where_it_is_ours(engine: StubEngine, driver: DockerDriver) -> None:
    assert (await driver.api_host(), await driver.bind_host()) == ("127.0.0.1", "127.0.0.1")
    engine.networks[0]["IPAM"] = {"Config": [{"Gateway": "203.0.113.1"}]}
    assert (await driver.api_host(), await driver.bind_host()) == ("203.0.113.1", None)


# Create, start, stop, remove


async def test_a_creation_that_failed_but_happened_is_adopted(engine: StubEngine, driver: DockerDriver) -> None:
    async def made_then_500(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        engine.put_container(request.query["name"], body["Labels"], body=body)
        return web.json_response({"message": "context deadline exceeded"}, status=500)

    await driver.create(spec())
    placed = engine.count(r"PUT .*/archive")
    engine.on("POST", "containers/create", made_then_500)
    handle = await driver.create(spec(packages=("a",)))
    assert await driver.recover(handle) is Liveness.CREATED
    assert engine.count(r"PUT .*/archive") == placed + 1


async def test_a_creation_whose_answer_is_lost_is_adopted(engine: StubEngine, driver: DockerDriver) -> None:
    await driver.create(spec())
    before = engine.count("POST containers/create")
    engine.on("POST", "containers/create", hang_up(lambda request: engine.usual(request, "containers/create")))
    handle = await driver.create(spec())
    assert await driver.recover(handle) is Liveness.CREATED
    assert engine.count("POST containers/create") == before + 1


async def test_a_creation_that_failed_says_why(engine: StubEngine, driver: DockerDriver) -> None:
    await driver.create(spec())
    engine.on("POST", "containers/create", refuse(500, "no space left on device"))
    with pytest.raises(ManagedError, match="could not be created: no space left on device"):
        await driver.create(spec(env={"PREFECT_API_KEY": "hunter2"}))


async def test_anothers_name_is_not_ours(engine: StubEngine, driver: DockerDriver) -> None:
    one = spec()
    engine.put_container(
        f"managedd-{one.execution_id}", {"managedd.instance": "another", "managedd.execution": one.execution_id}
    )
    with pytest.raises(ManagedError, match="another one has its name"):
        await driver.create(one)


async def test_what_has_started_gets_no_new_files(engine: StubEngine, driver: DockerDriver) -> None:
    one = spec(packages=("a",))
    await driver.start(await driver.create(one))
    placed = engine.count(r"PUT .*/archive")
    await driver.create(one)
    assert engine.count(r"PUT .*/archive") == placed


async def test_a_start_whose_answer_is_lost(engine: StubEngine, driver: DockerDriver) -> None:
    handle = await driver.create(spec())

    async def started(request: web.Request) -> web.StreamResponse:
        return engine._container("POST", handle.data["id"], ["start"])

    engine.on("POST", CONTAINER + "/start", hang_up(started))
    await driver.start(handle)
    assert await driver.recover(handle) is Liveness.RUNNING


async def test_a_start_that_failed_says_why(engine: StubEngine, driver: DockerDriver) -> None:
    handle = await driver.create(spec())
    engine.on("POST", CONTAINER + "/start", refuse(500, "OCI runtime create failed"))
    with pytest.raises(ManagedError, match="could not be started: OCI runtime create failed"):
        await driver.start(handle)


async def test_an_ended_container_is_never_started_again(engine: StubEngine, driver: DockerDriver) -> None:
    handle, name = await running(driver)
    engine.set_status(name, "exited", 1)
    await driver.start(handle)
    assert engine.count(r"POST .*/start") == 1


async def test_a_container_of_our_own_making_is_started_without_a_look(
    engine: StubEngine, driver: DockerDriver
) -> None:
    await running(driver)
    looked = engine.count(r"GET .*/json")
    handle, _ = await running(driver)
    assert engine.count(r"GET .*/json") == looked
    await driver.start(handle)
    assert engine.count(r"POST .*/start") == 2


async def test_a_stop_that_fails_becomes_a_kill(engine: StubEngine, driver: DockerDriver) -> None:
    handle, _ = await running(driver)
    engine.on("POST", CONTAINER + "/stop", refuse(500, "did not receive an exit event"))
    await driver.stop(handle, grace_seconds=0.1)
    assert engine.count(r"POST .*/kill") == 1


async def test_a_container_that_cannot_be_killed(
    engine: StubEngine, driver: DockerDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("managedd.drivers.docker.KILL_SECONDS", 0.3)
    handle, _ = await running(driver)
    engine.on("POST", CONTAINER + "/stop", endless())
    engine.on("POST", CONTAINER + "/kill", refuse(500, "did not receive an exit event"))
    with anyio.fail_after(10), pytest.raises(ManagedError, match="could not be killed: did not receive"):
        await driver.stop(handle, grace_seconds=0.1)


async def test_a_kill_that_errs_although_it_has_ended(engine: StubEngine, driver: DockerDriver) -> None:
    """Podman answers 500 where Docker answers 409."""
    handle, name = await running(driver)

    async def ended(_request: web.Request) -> web.StreamResponse:
        engine.set_status(name, "exited", 0)
        return web.json_response({"message": "can only kill running containers"}, status=500)

    engine.on("POST", CONTAINER + "/stop", refuse(500, "busy"))
    engine.on("POST", CONTAINER + "/kill", ended)
    await driver.stop(handle, grace_seconds=0.1)


async def test_a_removal_under_way_is_waited_for(engine: StubEngine, driver: DockerDriver) -> None:
    handle, name = await running(driver)
    engine.on("DELETE", CONTAINER, refuse(409, "removal is already in progress"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(driver.remove, handle)
        await anyio.sleep(0.3)
        del engine.containers[name]


async def test_a_removal_that_never_works_says_why(
    engine: StubEngine, driver: DockerDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("managedd.drivers.docker.REMOVE_ATTEMPTS", 2)
    handle, _ = await running(driver)
    engine.on("DELETE", CONTAINER, refuse(500, "device or resource busy"))
    with pytest.raises(ManagedError, match="could not be removed: device or resource busy"):
        await driver.remove(handle)


# Wait


async def test_wait_survives_cut_connections(engine: StubEngine, driver: DockerDriver) -> None:
    handle, name = await running(driver)

    async def ends(_request: web.Request) -> web.StreamResponse:
        engine.set_status(name, "exited", 4)
        return web.json_response({"StatusCode": 4})

    engine.on("POST", CONTAINER + "/wait", hang_up(), cut_stream(b""), stream(b""), refuse(500, "shutting down"), ends)
    with anyio.fail_after(10):
        assert (await driver.wait(handle)).exit_code == 4


async def test_wait_survives_an_engine_that_restarts(engine: StubEngine, driver: DockerDriver) -> None:
    handle, name = await running(driver)
    engine.on("POST", CONTAINER + "/wait", endless())
    codes: list[int | None] = []

    async def wait() -> None:
        codes.append((await driver.wait(handle)).exit_code)

    with anyio.fail_after(15):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.sleep(0.2)
            await engine.__aexit__()
            engine.set_status(name, "exited", 7)
            await anyio.sleep(0.5)
            await engine.__aenter__()
    assert codes == [7]


async def test_an_answer_to_wait_that_never_comes_is_not_waited_for(
    engine: StubEngine, driver: DockerDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("managedd.drivers.docker.SWEEP_SECONDS", 0.2)
    handle, name = await running(driver)
    engine.on("POST", CONTAINER + "/wait", endless())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(driver.wait, handle)
        await anyio.sleep(0.3)
        engine.set_status(name, "exited", 0)
        with anyio.fail_after(5):
            await driver.wait(handle)


async def test_an_out_of_memory_event_counts_where_the_flag_is_missing(
    engine: StubEngine, driver: DockerDriver
) -> None:
    handle, name = await running(driver)
    engine.set_status(name, "exited", 137)
    assert not (await driver.wait(handle)).oom_killed

    async def oom(_request: web.Request) -> web.StreamResponse:
        return web.Response(text='{"Type":"container","Action":"oom","Actor":{"ID":"c0ffee0000"}}\n')

    engine.on("GET", "events", oom)
    assert (await driver.wait(handle)).oom_killed
    assert (
        "oom"
        in engine.queries[max(n for n, request in enumerate(engine.requests) if request == "GET events")]["filters"]
    )


async def test_an_out_of_memory_flag_that_comes_late(engine: StubEngine, driver: DockerDriver) -> None:
    handle, name = await running(driver)
    engine.set_status(name, "exited", 137)
    async with anyio.create_task_group() as tasks:

        async def later() -> None:
            await anyio.sleep(0.3)
            engine.set_status(name, "exited", 137, OOMKilled=True)

        tasks.start_soon(later)
        assert (await driver.wait(handle)).oom_killed


# Images


async def test_a_pull_in_few_words(engine: StubEngine, driver: DockerDriver) -> None:
    async def pulled(request: web.Request) -> web.StreamResponse:
        engine.images.add("registry.example/new:2")
        layers = [{"status": "Downloading", "id": f"layer{n}", "progress": "[=>"} for n in range(200)]
        return await told(
            {"status": "Pulling from new", "id": "2"}, *layers, {"status": "Pull complete", "id": "layer1"}
        )(request)

    engine.on("POST", "images/create", pulled)
    lines: list[str] = []

    async def progress(line: str) -> None:
        lines.append(line)

    await driver.prepare(spec(image="registry.example/new:2"), progress)
    assert lines == [
        "Pulling image registry.example/new:2",
        "Pulled image registry.example/new:2 (200 layers, sha256:1)",
    ]


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (
            told({"status": "Pulling"}, {"errorDetail": {"message": "denied: access forbidden"}, "error": "denied"}),
            "denied: access forbidden",
        ),
        (
            told({"error": "unauthorized at https://user:hunter2@registry.example"}),
            r"unauthorized at https://\*\*\*\*@registry.example",
        ),
        (refuse(404, "pull access denied for nothing"), "pull access denied for nothing"),
        (told({"status": "Pull complete", "id": "a"}), "the pull ended, but the image is not there"),
        (endless(b'{"status": "Downloading", "id": "a"}\r\n'), "sent nothing"),
    ],
)
async def test_a_pull_that_fails(engine: StubEngine, driver: DockerDriver, handler: Any, words: str) -> None:
    engine.on("POST", "images/create", handler)
    with anyio.fail_after(10), pytest.raises(ImageError, match=words):
        await driver.prepare(spec(image="registry.example/new:2"), quiet)


async def test_one_pull_for_all_who_ask(engine: StubEngine, driver: DockerDriver) -> None:
    async def pulled(request: web.Request) -> web.StreamResponse:
        engine.images.add("new:2")
        return await told({"status": "Pull complete", "id": "a"})(request)

    engine.on("POST", "images/create", pulled)
    for policy in (PullPolicy.IF_NOT_PRESENT, PullPolicy.ALWAYS):
        engine.requests.clear()
        engine.queries.clear()
        engine.images.discard("new:2")
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(driver.prepare, spec(image="new:2", pull_policy=policy), quiet)
        assert engine.count("POST images/create") == 1


async def test_one_failure_for_all_who_ask(engine: StubEngine, driver: DockerDriver) -> None:
    engine.on("POST", "images/create", told({"error": "denied"}))
    failures: list[str] = []

    async def prepare() -> None:
        try:
            await driver.prepare(spec(image="new:2"), quiet)
        except ImageError as error:
            failures.append(str(error))

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(prepare)
    assert failures == ["denied"] * 5
    assert engine.count("POST images/create") == 1


async def test_whoever_waits_pulls_when_the_first_is_cancelled(engine: StubEngine, driver: DockerDriver) -> None:
    left = asyncio.Event()

    async def pulled(request: web.Request) -> web.StreamResponse:
        engine.images.add("new:2")
        return await told({"status": "Pull complete", "id": "a"})(request)

    engine.on("POST", "images/create", endless(b'{"status": "Downloading", "id": "a"}\r\n', left=left), pulled)
    async with anyio.create_task_group() as tasks:
        first = anyio.CancelScope()

        async def leader() -> None:
            with first:
                await driver.prepare(spec(image="new:2"), quiet)

        tasks.start_soon(leader)
        await anyio.sleep(0.2)
        tasks.start_soon(driver.prepare, spec(image="new:2"), quiet)
        await anyio.sleep(0.1)
        first.cancel()
    assert left.is_set()
    assert engine.count("POST images/create") == 2


async def test_an_image_name_cannot_lead_elsewhere(engine: StubEngine, driver: DockerDriver) -> None:
    before = len(engine.requests)
    with pytest.raises(ImageError, match="no image name"):
        await driver.prepare(spec(image="../containers/x/json?"), quiet)
    assert len(engine.requests) == before


async def test_never_pulling_asks_no_registry(engine: StubEngine, driver: DockerDriver) -> None:
    with pytest.raises(ImageError, match="pull policy is Never"):
        await driver.prepare(spec(image="new:2", pull_policy=PullPolicy.NEVER), quiet)
    assert engine.count("POST images/create") == 0


# Fields that differ between engines


@pytest.mark.parametrize(
    ("status", "liveness"),
    [
        ("created", Liveness.CREATED), ("configured", Liveness.CREATED), ("running", Liveness.RUNNING), ("paused", Liveness.RUNNING),
        ("exited", Liveness.EXITED), ("stopped", Liveness.EXITED), ("dead", Liveness.EXITED), ("unheard-of", Liveness.RUNNING),
    ],
)  # fmt: skip
async def test_states(engine: StubEngine, driver: DockerDriver, status: str, liveness: Liveness) -> None:
    handle, name = await running(driver)
    engine.set_status(name, status)
    assert await driver.recover(handle) is liveness


async def test_use_of_memory_in_both_control_group_versions(engine: StubEngine, driver: DockerDriver) -> None:
    handle, _ = await running(driver)
    cpu = {"cpu_usage": {"total_usage": 1_500_000_000}}
    old = {"usage": 1000, "max_usage": 2000, "stats": {"total_inactive_file": 300}}
    new = {"usage": 1000, "stats": {"inactive_file": 400}}
    engine.on(
        "GET",
        CONTAINER + "/stats",
        answer({"memory_stats": old, "cpu_stats": cpu, "pids_stats": {"current": 3}}),
        answer({"memory_stats": new, "cpu_stats": cpu, "pids_stats": {}}),
        answer({"memory_stats": {}, "cpu_stats": cpu}),
    )
    first, second, third = [await driver.stats(handle) for _ in range(3)]
    assert first is not None
    assert second is not None
    assert (first.memory_bytes, first.peak_memory_bytes, first.cpu_seconds, first.pids) == (700, 2000, 1.5, 3)
    assert (second.memory_bytes, second.peak_memory_bytes, second.pids) == (600, None, 0)
    assert third is None


# Ends and pulls that go wrong by themselves


async def test_an_end_that_the_engine_misses_is_seen_soon(engine: StubEngine, driver: DockerDriver) -> None:
    handle, name = await running(driver)
    engine.on("POST", CONTAINER + "/wait", endless())
    async with anyio.create_task_group() as tasks:

        async def end() -> None:
            await anyio.sleep(0.2)
            engine.set_status(name, "exited", 3)

        tasks.start_soon(end)
        with anyio.fail_after(5):
            assert (await driver.wait(handle)).exit_code == 3


@pytest.mark.parametrize(
    "words",
    [
        "toomanyrequests: You have reached your pull rate limit",
        "received unexpected HTTP status: 503 Service Unavailable",
        "Get https://registry/v2/: net/http: TLS handshake timeout",
        "read tcp 10.0.0.1:443: connection reset by peer",
    ],
)
async def test_a_pull_that_may_succeed_later_is_tried_again(
    engine: StubEngine, driver: DockerDriver, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.setattr("managedd.drivers.docker_images.RETRY_SECONDS", (0.01, 0.01))
    said: list[str] = []

    async def say(line: str) -> None:
        said.append(line)

    async def there(_request: web.Request) -> web.StreamResponse:
        engine.images.add("new:1")
        return web.json_response({"status": "Pulled"})

    engine.on("POST", "images/create", refuse(500, words), refuse(429, words), there)
    await driver.prepare(spec(image="new:1"), say)
    assert engine.count("POST images/create") == 3
    assert sum("trying again" in line for line in said) == 2

    engine.images.clear()
    engine.requests.clear()
    engine.on("POST", "images/create", refuse(500, words))
    with pytest.raises(ImageError):
        await driver.prepare(spec(image="new:1"), quiet)
    assert engine.count("POST images/create") == 3


@pytest.mark.parametrize(
    "words",
    ["manifest for new:500 not found: manifest unknown", "pull access denied for new, repository does not exist"],
)
async def test_a_pull_that_cannot_succeed_is_tried_once(engine: StubEngine, driver: DockerDriver, words: str) -> None:
    engine.on("POST", "images/create", refuse(404, words))
    with anyio.fail_after(1), pytest.raises(ImageError, match="new"):
        await driver.prepare(spec(image="new:1"), quiet)
    assert engine.count("POST images/create") == 1
