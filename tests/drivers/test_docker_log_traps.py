"""What engines do to whoever reads a container's log, each over an engine that does it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from managedd.drivers import docker_follow
from managedd.drivers.docker import DockerDriver
from managedd.drivers.docker_spec import DockerSettings
from managedd.errors import ManagedError
from managedd.model.drivers import Handle, Liveness
from managedd.model.logs import LogCursor
from tests.drivers.stub_engine import (
    INSTANCE,
    StubEngine,
    cut_stream,
    endless,
    frame,
    refuse,
    running,
    sent,
    stream,
)

if TYPE_CHECKING:
    from aiohttp import web

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(30)]

CONTAINER = r"containers/c0ffee\d+"


async def quiet(_line: str) -> None: ...


async def read(driver: DockerDriver, handle: Handle) -> list[str]:
    with anyio.fail_after(10):
        async with driver.logs(handle, LogCursor()) as lines:
            return [line.text async for line in lines]


async def test_a_stream_cut_within_its_body_is_taken_up(engine: StubEngine, driver: DockerDriver) -> None:
    handle, name = await running(driver)
    one, two, three = frame(10, "one\n"), frame(20, "two\n"), frame(30, "three\n")

    async def last(request: web.Request) -> web.StreamResponse:
        engine.set_status(name, "exited", 0)
        return await stream(two, three)(request)

    engine.on("GET", CONTAINER + "/logs", cut_stream(one, two[:13]), cut_stream(one, two, three[:5]), last)
    assert await read(driver, handle) == ["one", "two", "three"]
    sinces = [
        query.get("since")
        for request, query in zip(engine.requests, engine.queries, strict=True)
        if request.endswith("/logs")
    ]
    assert sinces[:3] == [None, "1795327208.000000000", "1795327218.000000000"]


async def test_a_clean_end_is_not_the_containers_end(engine: StubEngine, driver: DockerDriver) -> None:
    """As at a log rotation: the follower's stream ends, although there is and will be more."""
    handle, name = await running(driver)
    frames = [frame(second, f"{second}\n") for second in (10, 11, 20, 30)]
    engine.on(
        "GET", CONTAINER + "/logs", stream(*frames[:1]), stream(*frames[:2]), stream(*frames[1:3]), stream(*frames)
    )
    async with anyio.create_task_group() as tasks:

        async def later() -> None:
            await anyio.sleep(1.0)
            engine.set_status(name, "exited", 0)

        tasks.start_soon(later)
        assert await read(driver, handle) == ["10", "11", "20", "30"]


async def test_the_last_reading_begins_after_the_end(engine: StubEngine, driver: DockerDriver) -> None:
    """What came between the follower's end and the container's is read; the very last reading does not follow."""
    handle, name = await running(driver)

    async def follows(request: web.Request) -> web.StreamResponse:
        engine.set_status(name, "exited", 0)
        return await stream(frame(10, "early\n"))(request)

    engine.on(
        "GET", CONTAINER + "/logs", follows, stream(frame(10, "early\n"), frame(11, "late\n"), frame(12, "unfinished"))
    )
    assert await read(driver, handle) == ["early", "late", "unfinished"]
    follow = [
        query["follow"]
        for request, query in zip(engine.requests, engine.queries, strict=True)
        if request.endswith("/logs")
    ]
    assert follow == ["true", "false"]


async def test_what_the_engine_passed_over_for_its_follower_is_read_at_the_end(engine: StubEngine) -> None:
    """Only where there may have been a rotation: otherwise the end costs no further request."""
    told = [frame(second, f"{second}\n") for second in (10, 11, 14)]
    kept = [frame(second, f"{second}\n") for second in (11, 12, 13, 14)]
    for file_bytes, expected in ((100, ["10", "11", "14", "12", "13"]), (1 << 20, ["10", "11", "14"])):
        driver = DockerDriver(INSTANCE, DockerSettings(log_max_bytes=file_bytes), url=engine.url)
        await driver.open()
        handle, name = await running(driver)

        async def ends(request: web.Request, name: str = name) -> web.StreamResponse:
            engine.set_status(name, "exited", 0)
            return await stream(*told)(request)

        engine.on("GET", CONTAINER + "/logs", ends, stream(told[2]), stream(*kept))
        before = engine.count(r"GET .*/logs")
        assert await read(driver, handle) == expected
        assert engine.count(r"GET .*/logs") - before == (3 if len(expected) > 3 else 2)
        await driver.close()


async def test_a_recheck_that_fails_leaves_what_was_told(engine: StubEngine) -> None:
    driver = DockerDriver(INSTANCE, DockerSettings(log_max_bytes=100), url=engine.url)
    await driver.open()
    handle, name = await running(driver)

    async def ends(request: web.Request) -> web.StreamResponse:
        engine.set_status(name, "exited", 0)
        return await stream(frame(10, "10\n"), frame(12, "12\n"))(request)

    gone = refuse(409, "can not get logs from container which is dead or marked for removal")
    engine.on("GET", CONTAINER + "/logs", ends, stream(), gone)
    assert await read(driver, handle) == ["10", "12"]
    await driver.close()


async def test_a_stream_that_has_stalled_is_left_soon_after_the_end(engine: StubEngine, driver: DockerDriver) -> None:
    """As it may at a rotation: who waits for the container has seen its end long before the silence is noticed."""
    handle, name = await running(driver)
    engine.on("GET", CONTAINER + "/logs", endless(frame(10, "one\n")), stream(frame(10, "one\n"), frame(11, "two\n")))
    with anyio.fail_after(10):
        async with driver.logs(handle, LogCursor()) as lines:
            assert (await anext(lines)).text == "one"
            engine.set_status(name, "exited", 0)
            await driver.wait(handle)
            assert [line.text async for line in lines] == ["two"]
    assert not driver._followers._of


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence of a follower's stream is noticed at once."""
    monkeypatch.setattr(docker_follow, "SILENCE_SECONDS", 0.05)
    monkeypatch.setattr(docker_follow, "ENDED_SECONDS", 0.05)


def pausing(*chunks: bytes, before: int) -> Any:
    """The engine falls silent before that chunk for much longer than a follower waits, and goes on."""

    async def give(request: web.Request) -> web.StreamResponse:
        response = await sent(request, *chunks[:before])
        await anyio.sleep(0.5)
        for chunk in chunks[before:]:
            await response.write(chunk)
        return response

    return give


def headless(*, left: asyncio.Event) -> Any:
    """The request is taken, and nothing is answered; `left` is set when the client has gone."""

    async def give(_request: web.Request) -> web.StreamResponse:
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
        raise AssertionError

    return give


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("followed", [True, False])
async def test_a_pause_of_the_last_reading_is_not_its_end(
    engine: StubEngine, driver: DockerDriver, followed: bool, before: int
) -> None:
    """Engines send the head at once and then search their files for where the reading begins; the busy ones for seconds."""
    handle, name = await running(driver)
    frames = [frame(10, "one\n"), frame(11, "two\n"), frame(12, "three\n")]

    async def ends_short(request: web.Request) -> web.StreamResponse:
        engine.set_status(name, "exited", 0)
        return await stream(frames[0])(request)

    last = pausing(*frames, before=before)
    if followed:
        engine.on("GET", CONTAINER + "/logs", ends_short, last)
    else:
        engine.set_status(name, "exited", 0)
        engine.on("GET", CONTAINER + "/logs", last)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(driver.wait, handle)
        assert await read(driver, handle) == ["one", "two", "three"]
        tasks.cancel_scope.cancel()


async def test_a_last_reading_that_falls_silent_is_read_again(
    engine: StubEngine, driver: DockerDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_follow, "LAST_SILENCE_SECONDS", 0.2)
    handle, name = await running(driver)
    engine.set_status(name, "exited", 0)
    one, two, three = frame(10, "one\n"), frame(20, "two\n"), frame(30, "three\n")
    left = asyncio.Event()
    engine.on("GET", CONTAINER + "/logs", headless(left=left), endless(one), endless(one, two), stream(one, two, three))
    assert await read(driver, handle) == ["one", "two", "three"]
    assert left.is_set()


@pytest.mark.parametrize("way", ["head", "body", "cut"])
async def test_a_last_reading_that_never_gets_to_its_end_is_a_failure(
    engine: StubEngine, driver: DockerDriver, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Whoever reads for a run says so in its log."""
    monkeypatch.setattr(docker_follow, "LAST_SILENCE_SECONDS", 0.2)
    handle, name = await running(driver)
    engine.set_status(name, "exited", 0)
    one = frame(10, "one\n")
    handler = {"head": headless(left=asyncio.Event()), "body": endless(one), "cut": cut_stream(one)}[way]
    engine.on("GET", CONTAINER + "/logs", handler)
    told: list[str] = []
    with anyio.fail_after(20), pytest.raises(ManagedError, match="The container's output could not be read"):
        async with driver.logs(handle, LogCursor()) as lines:
            async for line in lines:
                told.append(line.text)  # noqa: PERF401 (what came before the failure counts)
    assert told == ([] if way == "head" else ["one"])


async def test_few_last_readings_search_the_engines_files_at_once(engine: StubEngine, driver: DockerDriver) -> None:
    """As after a restart: all at once, each is silent for as long as all of them take. Whoever has found its first line holds up nobody."""
    count = 3 * docker_follow.SEARCHES
    searching = most = found = 0
    enough, all_found = asyncio.Event(), asyncio.Event()

    async def search(request: web.Request) -> web.StreamResponse:
        nonlocal searching, most, found
        searching += 1
        most = max(most, searching)
        if searching == docker_follow.SEARCHES:
            enough.set()
        response = await sent(request)
        await enough.wait()
        # Were there room for more, they would come now.
        await anyio.sleep(0.05)
        searching -= 1
        await response.write(frame(10, "one\n"))
        found += 1
        if found == count:
            all_found.set()
        await all_found.wait()
        await response.write(frame(11, "two\n"))
        return response

    engine.on("GET", CONTAINER + "/logs", search)
    told: list[list[str]] = []

    async def read_one(handle: Handle) -> None:
        told.append(await read(driver, handle))

    begun = [await running(driver) for _ in range(count)]
    async with anyio.create_task_group() as tasks:
        for handle, name in begun:
            engine.set_status(name, "exited", 0)
            tasks.start_soon(read_one, handle)
    assert told == [["one", "two"]] * count
    assert most == docker_follow.SEARCHES


@pytest.mark.usefixtures("impatient")
async def test_a_follower_that_is_not_even_answered_is_left_after_the_end(
    engine: StubEngine, driver: DockerDriver
) -> None:
    """Some engines send no head before there is something to tell."""
    handle, name = await running(driver)
    asked, left = asyncio.Event(), asyncio.Event()

    async def unanswered(request: web.Request) -> web.StreamResponse:
        asked.set()
        return await headless(left=left)(request)

    async def ends() -> None:
        await asked.wait()
        engine.set_status(name, "exited", 0)
        engine.on("GET", CONTAINER + "/logs", stream(frame(10, "one\n")))

    engine.on("GET", CONTAINER + "/logs", unanswered)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ends)
        assert await read(driver, handle) == ["one"]
    assert left.is_set()


async def test_a_recheck_that_falls_silent_leaves_what_was_told(
    engine: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_follow, "LAST_SILENCE_SECONDS", 0.2)
    driver = DockerDriver(INSTANCE, DockerSettings(log_max_bytes=100), url=engine.url)
    await driver.open()
    handle, name = await running(driver)

    async def ends(request: web.Request) -> web.StreamResponse:
        engine.set_status(name, "exited", 0)
        return await stream(frame(10, "10\n"), frame(12, "12\n"))(request)

    engine.on("GET", CONTAINER + "/logs", ends, stream(), endless(frame(11, "11\n")))
    assert await read(driver, handle) == ["10", "12", "11"]
    await driver.close()


@pytest.mark.parametrize("is_podman", [True, False])
async def test_equal_lines_of_one_stamp_are_several_where_the_engine_stamps_many_at_once(
    engine: StubEngine, driver: DockerDriver, is_podman: bool
) -> None:
    """Elsewhere they are one line that was told twice."""
    engine.version["Components"] = [{"Name": "Podman Engine" if is_podman else "Engine", "Version": "4.3.1"}]
    mine = DockerDriver(INSTANCE, DockerSettings(), url=engine.url)
    await mine.open()
    handle, name = await running(mine)
    engine.set_status(name, "exited", 0)
    engine.on(
        "GET", CONTAINER + "/logs", stream(*(frame(10, f"{text}\n") for text in ("---", "a", "---", "", "", "b")))
    )
    expected = ["---", "a", "---", "", "", "b"] if is_podman else ["---", "a", "", "b"]
    assert await read(mine, handle) == expected
    await mine.close()


def kept(*frames: bytes, follows: bool) -> Any:
    """The engine passes over all that is stamped before what it is asked for; here, that is everything."""

    async def give(request: web.Request) -> web.StreamResponse:
        return await (endless if follows else stream)(*(() if "since" in request.query else frames))(request)

    return give


async def test_a_clock_that_was_set_back_while_nobody_read_hides_nothing(
    engine: StubEngine, driver: DockerDriver
) -> None:
    handle, name = await running(driver)
    frames = [frame(1000, "told\n"), frame(10, "back 0\n"), frame(11, "back 1\n")]
    after = LogCursor(1_795_328_200 * 1_000_000_000, 1)  # of the entry of second 1000
    engine.on("GET", CONTAINER + "/logs", kept(*frames, follows=True))
    engine.clock = "06:10:00"
    with anyio.fail_after(10):
        async with driver.logs(handle, after) as lines:
            assert [(await anext(lines)).text for _ in range(2)] == ["back 0", "back 1"]
    # When it has ended, what counts is when that was.
    engine.clock = "07:00:00"
    engine.set_status(name, "exited", 0)
    engine.on("GET", CONTAINER + "/logs", kept(*frames, follows=False))
    with anyio.fail_after(10):
        async with driver.logs(handle, after) as lines:
            assert [line.text async for line in lines] == ["back 0", "back 1"]


async def test_a_clock_that_is_set_back_while_somebody_follows_hides_nothing(
    engine: StubEngine, driver: DockerDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("managedd.drivers.docker_follow.SILENCE_SECONDS", 0.05)
    handle, _ = await running(driver)
    engine.on("GET", CONTAINER + "/logs", kept(frame(1000, "told\n"), frame(10, "back\n"), follows=True))
    after = LogCursor(1_795_328_200 * 1_000_000_000, 1)  # of the entry of second 1000
    with anyio.fail_after(10):
        async with driver.logs(handle, after) as lines, anyio.create_task_group() as tasks:

            async def set_back() -> None:
                while engine.count("GET .*/logs") < 1:  # noqa: ASYNC110 (the stub's count has no event)
                    await anyio.sleep(0.01)
                assert "since" in engine.queries[-1]
                engine.clock = "06:10:00"

            tasks.start_soon(set_back)
            assert (await anext(lines)).text == "back"


async def test_leaving_the_logs_closes_their_connection(engine: StubEngine, driver: DockerDriver) -> None:
    handle, _ = await running(driver)
    for way in ("break", "cancel"):
        left = asyncio.Event()
        engine.on("GET", CONTAINER + "/logs", endless(frame(10, "one\n"), left=left))
        if way == "break":
            async with driver.logs(handle, LogCursor()) as lines:
                async for _line in lines:
                    break
        else:
            with anyio.move_on_after(0.3):
                await read(driver, handle)
        with anyio.fail_after(2):
            await left.wait()


async def test_many_followers_and_waiters_leave_room_for_a_call(engine: StubEngine, driver: DockerDriver) -> None:
    handle, _ = await running(driver)
    engine.on("GET", CONTAINER + "/logs", endless(frame(10, "one\n")))
    engine.on("POST", CONTAINER + "/wait", endless())
    async with anyio.create_task_group() as tasks:
        for _ in range(75):
            tasks.start_soon(read_quietly, driver, handle)
            tasks.start_soon(driver.wait, handle)
        with anyio.fail_after(10):
            while engine.count(r".*/(logs|wait)") < 150:  # noqa: ASYNC110 (the stub's count has no event)
                await anyio.sleep(0.05)
        with anyio.fail_after(2):
            assert await driver.recover(handle) is Liveness.RUNNING
        tasks.cancel_scope.cancel()


async def read_quietly(driver: DockerDriver, handle: Handle) -> None:
    async with driver.logs(handle, LogCursor()) as lines:
        async for _line in lines:
            pass


async def test_logs_that_cannot_be_read_say_why(engine: StubEngine, driver: DockerDriver) -> None:
    handle, _ = await running(driver)
    engine.on("GET", CONTAINER + "/logs", refuse(500, "configured logging driver does not support reading"))
    with pytest.raises(ManagedError, match="does not support reading"):
        await read(driver, handle)


async def test_logs_of_what_vanished_end(engine: StubEngine, driver: DockerDriver) -> None:
    handle, name = await running(driver)

    async def vanishes(request: web.Request) -> web.StreamResponse:
        del engine.containers[name]
        return await stream(frame(10, "one\n"), frame(11, "half"))(request)

    engine.on("GET", CONTAINER + "/logs", vanishes)
    assert await read(driver, handle) == ["one", "half"]
