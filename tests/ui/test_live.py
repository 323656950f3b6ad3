"""Pages that are kept up to date, as a program sees them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from statistics import median
from typing import TYPE_CHECKING

import anyio
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestClient, TestServer

from managedd import ids
from managedd.api.app import Api
from managedd.api.auth import Listener
from managedd.bus import Bus, Topic
from managedd.errors import unavailable
from managedd.model.access import Role
from managedd.store.workspaces import create
from managedd.ui import live, making
from managedd.ui.site import Site
from tests.support.api_keys import make_key
from tests.ui.runs_of import telling

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from aiohttp import ClientResponse

    from managedd.ui.asking import Ask
    from managedd.ui.page import Page
    from tests.ui.conftest import Pages

pytestmark = pytest.mark.anyio


async def test_whoever_leaves_a_live_page_is_no_failure(
    site: Pages, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = anyio.Event()
    send = live._send

    async def noted(response: web.StreamResponse, data: bytes) -> None:
        try:
            await send(response, data)
        except ConnectionError:
            tried.set()
            raise

    monkeypatch.setattr(live, "_send", noted)
    monkeypatch.setattr(making, "PACE_SECONDS", 0.0)
    api = Api(site.services, Listener.CLIENTS)
    # As the daemon serves: a handler goes on when its client has gone.
    runner = web.AppRunner(api.application(Site(site.services, api)))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with ClientSession() as session:
            response = await session.get(f"{url}/work-pools", headers={"Accept": live.TYPE})
            assert (await response.content.readline()).startswith(b"event: version")
            response.close()
            with anyio.fail_after(60):
                number = 0
                while not tried.is_set():
                    number += 1
                    await session.post(f"{url}/api/work_pools/", json={"name": f"p{number}", "type": "process"})
            assert (await session.get(f"{url}/work-pools")).status == 200
    finally:
        await runner.cleanup()

    assert [each.message for each in caplog.records if each.name == "aiohttp.server"] == []


async def heard(stream: ClientResponse, name: str) -> dict[str, str]:
    """The next event of that name, by its fields; others before it are skipped."""
    fields: dict[str, str] = {}
    with anyio.fail_after(20):
        async for line in stream.content:
            field, _, value = line.decode().rstrip("\n").partition(": ")
            if field:
                fields[field] = fields.get(field, "") + value
            elif fields.get("event") == name:
                return fields
            else:
                fields = {}
    raise AssertionError(f"the stream ended before {name}")


@asynccontextmanager
async def tab(site: Pages, path: str = "/work-pools", **headers: str) -> AsyncIterator[ClientResponse]:
    """A page's stream, as a browser opens it that has loaded no page."""
    async with site.http.get(path, headers={"Accept": live.TYPE, **headers}) as stream:
        assert stream.status == 200
        yield stream


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the pages that are made for streams, as they are made."""
    made: list[str] = []
    part = Site._part

    async def noted(self: Site, ask: Ask, found: Page, values: Mapping[str, str]) -> str:
        made.append(ask.request.path_qs)
        return await part(self, ask, found, values)

    monkeypatch.setattr(Site, "_part", noted)
    return made


async def test_a_page_that_is_as_it_was_loaded_is_not_sent_again(site: Pages) -> None:
    loaded, _ = await _loaded(site, "/work-pools")
    async with tab(site, f"/work-pools?{live.SEEN}={loaded}") as stream:
        await heard(stream, "version")
        await site.api.post("/work_pools/", {"name": "new", "type": "process"})
        first = await heard(stream, "page")
    assert "new" in first["data"]
    async with tab(site, f"/work-pools?{live.SEEN}={loaded}") as stream:
        # It was another one when it was loaded: what it is now is sent at once.
        assert (await heard(stream, "page"))["id"] == first["id"]
    async with tab(site, f"/work-pools?{live.SEEN}={loaded}", **{"Last-Event-ID": first["id"]}) as stream:
        await site.api.post("/work_pools/", {"name": "newer", "type": "process"})
        assert "newer" in (await heard(stream, "page"))["data"]


async def test_a_page_in_which_nothing_has_happened_is_the_same_text_a_second_later(site: Pages) -> None:
    """Else each would be sent after every change anywhere."""
    told = await telling(site, artifacts=[{"key": "x", "type": "markdown", "data": "# x"}])
    made = told.run["deployment_id"]
    paths = ["/work-pools", "/work-pools/work-pool/mine", "/deployments", f"/deployments/deployment/{made}", "/runs", "/usage", "/host",
             f"/runs/flow-run/{told.run['id']}", f"/runs/task-run/{told.task_run}", f"/flows/flow/{told.run['flow_id']}", "/settings"]  # fmt: skip
    before = [(await _loaded(site, path))[0] for path in paths]
    await anyio.sleep(1.1)
    for path, mark in zip(paths, before, strict=True):
        assert await _loaded(site, f"{path}?{live.SEEN}={mark}") == (mark, 200), path


async def _loaded(site: Pages, path: str) -> tuple[str, int]:
    """The mark of the page's content, and the status."""
    response = await site.http.get(path)
    return (await response.text()).partition('data-live="')[2].partition('"')[0], response.status


async def test_those_who_see_the_same_have_it_made_once_and_all_have_the_news(
    site: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = counted(monkeypatch)
    async with AsyncExitStack() as tabs:
        streams = [await tabs.enter_async_context(tab(site)) for _ in range(20)]
        for stream in streams:
            await heard(stream, "page")
        del made[:]
        await site.api.post("/work_pools/", {"name": "news", "type": "process"})
        marks = set()
        for stream in streams:
            news = await heard(stream, "page")
            assert "news" in news["data"]
            marks.add(news["id"])
    assert len(marks) == 1
    assert made == ["/work-pools"]


async def test_whoever_makes_a_page_may_leave_meanwhile_and_others_have_it_all_the_same() -> None:
    watched, bus = making.Watched(), Bus()
    begun = anyio.Event()

    async def never() -> making.Made:
        begun.set()
        await anyio.sleep_forever()
        raise AssertionError

    async def soon() -> making.Made:
        return making.Made("soon", b"event")

    with watched.looking("page", bus, (Topic.RUNS,), 30.0) as second, anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            with watched.looking("page", bus, (Topic.RUNS,), 30.0) as first:
                tasks.start_soon(first.made, never)
                await begun.wait()
            tasks.cancel_scope.cancel()
        assert (await second.made(soon)).mark == "soon"


async def test_who_may_see_less_is_not_sent_what_others_see(closed_site: Pages) -> None:
    """Pages are shared among those alone who see the same: what an admin is offered, a viewer is not."""
    db = closed_site.services.db
    admin, viewer = await make_key(db, Role.ADMIN), await make_key(db, Role.VIEWER)
    bearing = [{"Authorization": f"Bearer {key}"} for key in (admin, viewer)]
    async with tab(closed_site, **bearing[0]) as one, tab(closed_site, **bearing[1]) as other:
        assert "work-pools/new" in (await heard(one, "page"))["data"]
        assert "work-pools/new" not in (await heard(other, "page"))["data"]


async def test_another_workspaces_page_is_another_one(closed_site: Pages) -> None:
    db, account, workspace = closed_site.services.db, ids.new_id(), ids.new_id()
    await db.write(
        lambda tx: create(tx, account_id=account, account="acme", workspace_id=workspace, handle="w", plan="pro")
    )
    basic = {"Authorization": "Basic YWRtaW46c2VjcmV0"}
    await closed_site.api.post("/work_pools/", {"name": "mine", "type": "process"}, headers=basic)
    theirs = f"/account/{account}/workspace/{workspace}/work-pools"
    async with tab(closed_site, **basic) as one, tab(closed_site, theirs, **basic) as other:
        assert "mine" in (await heard(one, "page"))["data"]
        assert "mine" not in (await heard(other, "page"))["data"]


async def test_a_page_that_is_gone_says_so_to_all_who_look_and_what_passes_does_not(
    site: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "PACE_SECONDS", 0.0)
    await site.api.post("/work_pools/", {"name": "short", "type": "process"})
    path = "/work-pools/work-pool/short"
    part = Site._part
    busy = [True]

    async def failing(self: Site, ask: Ask, found: Page, values: Mapping[str, str]) -> str:
        if busy.pop() if busy else False:
            raise unavailable("the store has too much to do")
        return await part(self, ask, found, values)

    monkeypatch.setattr(Site, "_part", failing)
    async with tab(site, path) as one, tab(site, path) as other:
        assert "short" in (await heard(one, "page"))["data"]
        await heard(other, "page")
        await site.http.delete("/api/work_pools/short")
        await heard(one, "gone")
        await heard(other, "gone")


async def test_one_persons_pages_are_bounded_and_take_nothing_from_others_at_the_same_address(
    closed_site: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "PAGES_OF_ONE", 2)
    db = closed_site.services.db
    greedy, modest = [{"Authorization": f"Bearer {await make_key(db)}"} for _ in range(2)]
    async with tab(closed_site, **greedy) as one, tab(closed_site, "/runs", **greedy) as two:
        await heard(one, "page")
        await heard(two, "page")
        async with tab(closed_site, "/usage", **greedy) as third:
            assert "Too many open pages" in (await heard(third, "full"))["data"]
        async with tab(closed_site, **modest) as theirs:
            await heard(theirs, "page")
        # The page itself is there for whoever asks for it.
        assert (await closed_site.http.get("/usage", headers=greedy)).status == 200
    with anyio.fail_after(20):
        while True:
            async with closed_site.http.get("/work-pools", headers={"Accept": live.TYPE, **greedy}) as again:
                if (await again.content.readline()) == b"event: version\n":
                    break


async def test_pages_that_are_made_together_are_each_charged_their_part(site: Pages) -> None:
    """The wait for others is no cost of a page: what all are charged is what the processors did, and no more."""
    clock = [0.0]
    meter = making.Meter(lambda: clock[0])
    with ExitStack() as works:
        first = works.enter_context(meter.one())
        clock[0] = 1.0
        with meter.one() as second:
            clock[0] = 3.0
        clock[0] = 3.5
    clock[0] = 10.0
    with meter.one() as third:
        clock[0] = 10.25
    assert (first.seconds, second.seconds, third.seconds) == (2.5, 1.0, 0.25)


async def test_the_more_pages_are_looked_at_the_less_often_each_is_made_again() -> None:
    """However many there are, making them again takes no more than its share of a processor; those who see the same are one."""
    watched, bus = making.Watched(), Bus()
    cost = making.SHARE / 25
    with ExitStack() as tabs:

        def look(asked: int) -> None:
            tabs.enter_context(watched.looking(asked, bus, (), 30.0))

        for _ in range(50):
            look(0)
        assert watched.pace_seconds(cost) == making.PACE_SECONDS
        for number in range(49):
            look(number + 1)
        assert watched.pace_seconds(cost) == pytest.approx(2.0)
        assert watched.pace_seconds(3.0) == making.SLOWEST_SECONDS
    with watched.looking(0, bus, (), 30.0):
        assert watched.pace_seconds(cost) == making.PACE_SECONDS


async def test_fifty_pages_that_are_opened_at_once_are_soon_made_again(
    site: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them is charged for the time in which it stood behind the others."""
    resting: list[float] = []
    note = making.Shown._note

    def noted(self: making.Shown, seconds: float) -> None:
        note(self, seconds)
        resting.append(self.rest_seconds)

    # As if each took ten milliseconds of a processor, and nothing else took any.
    spent = [0.0]
    part = Site._part

    async def costly(self: Site, ask: Ask, found: Page, values: Mapping[str, str]) -> str:
        text = await part(self, ask, found, values)
        spent[0] += 0.01
        return text

    monkeypatch.setattr(Site, "_part", costly)
    monkeypatch.setattr(making.Shown, "_note", noted)
    monkeypatch.setattr(making.Meter.__init__, "__defaults__", (lambda: spent[0],))
    api = Api(site.services, Listener.CLIENTS)
    async with TestClient(TestServer(api.application(Site(site.services, api)))) as http, AsyncExitStack() as tabs:
        streams = []
        for number in range(50):
            asked = http.get(f"/work-pools?number={number}", headers={"Accept": live.TYPE})
            streams.append(await tabs.enter_async_context(asked))
        for stream in streams:
            await heard(stream, "page")
        del resting[:]
        for name in ("a", "b"):
            await site.api.post("/work_pools/", {"name": name, "type": "process"})
            for stream in streams:
                await heard(stream, "page")
        assert len(resting) >= 100
        # Ten milliseconds of each make 1.25 seconds; several at a time are charged in equal parts, so that one may have more and another less.
        assert median(resting) < 2.0
        assert max(resting) < making.SLOWEST_SECONDS / 2
        await site.services.sockets.close_all()


async def test_a_stop_does_not_wait_for_a_tab_that_takes_nothing(site: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in the way of a stop is let go: no timeout of the server's is waited for."""
    part = Site._part

    async def huge(self: Site, ask: Ask, found: Page, values: Mapping[str, str]) -> str:
        return await part(self, ask, found, values) + "x" * 50_000_000

    monkeypatch.setattr(Site, "_part", huge)
    api = Api(site.services, Listener.CLIENTS)
    runner = web.AppRunner(api.application(Site(site.services, api)), shutdown_timeout=60)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    reader, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1])
    writer.write(f"GET /work-pools HTTP/1.1\r\nHost: localhost\r\nAccept: {live.TYPE}\r\n\r\n".encode())
    await reader.readuntil(b"event: page\n")
    with anyio.fail_after(30):
        await site.services.sockets.close_all()
        await runner.cleanup()
    writer.close()
