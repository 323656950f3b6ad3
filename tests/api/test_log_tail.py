"""Following one run's log over our own socket, and taking it as a file."""

from __future__ import annotations

from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import orjson
import pytest
from aiohttp import ClientError, WSServerHandshakeError

from managedd import ids
from managedd.api import log_tail, log_windows, sockets
from managedd.clock import iso
from managedd.errors import ManagedError, unavailable
from managedd.model.executions import Phase
from managedd.model.states import StateType
from managedd.store import executions, log_pages, positions, rows
from managedd.store.resources import FLOW_RUN, TASK_RUN
from tests.api.test_sockets import PATIENCE_SECONDS, Client, a_run, connected, move, until_open, write_lines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio


class Tail:
    """A follower: what it was sent, one object at a time."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.messages = 0
        self._pending: list[Any] = []

    async def next(self) -> Any:
        """The next object, or the close as (kind, code, reason)."""
        while not self._pending:
            with anyio.fail_after(PATIENCE_SECONDS):
                message = await self.client.ws.receive()
            if not isinstance(message.data, str):
                return (message.type.name, message.data, message.extra)
            self.messages += 1
            self._pending = [orjson.loads(text) for text in message.data.split("\n")]
        return self._pending.pop(0)

    async def line(self) -> str:
        """The next line's text."""
        found = await self.next()
        assert found["type"] == "log", found
        return str(found["log"]["message"])

    async def silent(self) -> bool:
        """Whether nothing comes."""
        assert not self._pending
        return await self.client.silent()


@asynccontextmanager
async def tailing(api: ApiClient, run: str, query: str = "") -> AsyncIterator[Tail]:
    """A follower that was told where it begins."""
    async with connected(api, f"/managed/flow_runs/{run}/logs/tail{query}", prefect=False) as client:
        tail = Tail(client)
        first = await tail.next()
        assert first["type"] == "start", first
        yield tail


async def executed(api: ApiClient, run: str) -> str:
    return await api.services.db.write(
        lambda tx: executions.insert(tx, flow_run_id=run, work_pool_id=None, driver="fake").id,
        workspace=ids.DEFAULT_WORKSPACE_ID,
    )


async def finish(api: ApiClient, execution: str) -> None:
    for before, after in ((Phase.CLAIMED, Phase.EXITED), (Phase.EXITED, Phase.LOST)):
        await api.services.db.write(lambda tx, b=before, a=after: executions.advance(tx, execution, [b], a))


async def test_following_a_run_ends_with_its_final_state(api: ApiClient) -> None:
    run = await a_run(api)
    execution = await executed(api, run)
    await write_lines(api, run, "one", "two")
    async with tailing(api, run) as tail:
        first = await tail.next()
        assert (first["type"], first["log"]["message"]) == ("log", "one")
        assert await tail.line() == "two"
        await move(api, run, StateType.COMPLETED)
        assert await tail.silent(), "its container may still print"
        await write_lines(api, run, "last words")
        await finish(api, execution)
        assert await tail.line() == "last words"
        final = await tail.next()
        assert (final["type"], final["state"]["type"]) == ("state", "COMPLETED")
        assert await tail.next() == ("CLOSE", 1000, "")
    async with tailing(api, run, f"?after={first['cursor']}") as tail:
        assert [await tail.line(), await tail.line()] == ["two", "last words"]
        assert (await tail.next())["cursor"] == final["cursor"]
    async with tailing(api, run, "?tail=1") as tail:
        assert await tail.line() == "last words"
    async with tailing(api, run, "?tail=0") as tail:
        assert (await tail.next())["type"] == "state"
    async with tailing(api, run, f"?after={final['cursor']}") as tail:
        assert (await tail.next())["type"] == "state"


async def test_a_run_that_others_execute_has_time_for_its_last_lines(
    api: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_windows, "SETTLE_US", 400_000)
    run = await a_run(api)
    async with tailing(api, run) as tail:
        await move(api, run, StateType.FAILED)
        assert await tail.client.silent(0.1)
        await write_lines(api, run, "late line")
        assert await tail.line() == "late line"
        assert (await tail.next())["state"]["type"] == "FAILED"


async def test_a_subflow_has_its_parents_process_to_print_its_last_lines(
    api: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_windows, "SETTLE_US", 0)
    parent = await a_run(api)
    execution = await executed(api, parent)

    def below(tx: Any) -> str:
        task = {"name": "t", "flow_run_id": parent, "task_key": "k", "dynamic_key": "0"}
        flow = rows.need(tx, FLOW_RUN, id=parent)["flow_id"]
        made = {"name": "below", "flow_id": flow, "parent_task_run_id": rows.insert(tx, TASK_RUN, task)}
        return rows.insert(tx, FLOW_RUN, made)

    child = await api.services.db.write(below, workspace=ids.DEFAULT_WORKSPACE_ID)
    async with tailing(api, child) as tail:
        await move(api, child, StateType.COMPLETED)
        assert await tail.silent(), "its parent's container may still print"
        await write_lines(api, child, "the subflow's last line")
        assert await tail.line() == "the subflow's last line"
        await move(api, parent, StateType.FAILED)
        assert await tail.silent()
        await finish(api, execution)
        assert (await tail.next())["state"]["type"] == "COMPLETED"


async def test_following_an_unknown_run_says_so(api: ApiClient, other: ApiClient) -> None:
    run = await a_run(api)
    async with connected(other, f"/managed/flow_runs/{run}/logs/tail", prefect=False) as client:
        code, reason = await client.closed()
        assert code == 1008
        assert "not found" in reason
    with pytest.raises(WSServerHandshakeError) as error:
        async with connected(api, "/managed/flow_runs/none/logs/tail", prefect=False):
            pass
    assert error.value.status == 422
    assert len(api.services.windows) == 0


async def test_a_run_that_is_deleted_ends_its_followers(api: ApiClient) -> None:
    run = await a_run(api)
    await write_lines(api, run, "one")
    async with tailing(api, run) as tail:
        assert await tail.line() == "one"
        await api.services.db.write(lambda tx: rows.delete(tx, FLOW_RUN, run), workspace=ids.DEFAULT_WORKSPACE_ID)
        await move(api, await a_run(api), StateType.COMPLETED)
        kind, code, _ = await tail.next()
        assert (kind, code) == ("CLOSE", 1008)


async def test_a_run_that_is_gone_is_not_looked_for_again_and_again_while_somebody_is_slow_to_leave(
    api: ApiClient,
) -> None:
    run, windows = await a_run(api), api.services.windows
    with windows.following(ids.DEFAULT_WORKSPACE_ID, run) as window:
        with anyio.fail_after(PATIENCE_SECONDS):
            while not window.is_open:
                await window.news()
        await api.services.db.write(lambda tx: rows.delete(tx, FLOW_RUN, run), workspace=ids.DEFAULT_WORKSPACE_ID)
        before = api.services.clock.monotonic()
        await move(api, await a_run(api), StateType.COMPLETED)
        with pytest.raises(ManagedError, match="not found"), anyio.fail_after(PATIENCE_SECONDS):
            while window.after(window.floor) is None:
                await window.news()
        assert window.look_at >= before + log_windows.IDLE_SECONDS


async def test_a_change_of_one_run_reads_no_rows_of_the_others_that_are_followed(
    api: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    get = rows.get

    def noted(tx: Any, table: Any, id_: str) -> Any:
        read.append(id_)
        return get(tx, table, id_)

    runs = [await a_run(api) for _ in range(20)]
    ended, *others = runs
    execution = await executed(api, ended)
    with ExitStack() as following:
        windows = [
            following.enter_context(api.services.windows.following(ids.DEFAULT_WORKSPACE_ID, run)) for run in runs
        ]
        monkeypatch.setattr(log_windows.rows, "get", noted)
        await move(api, others[0], StateType.RUNNING)
        await move(api, ended, StateType.COMPLETED)
        await finish(api, execution)
        with anyio.fail_after(PATIENCE_SECONDS):
            while windows[0].final is None:
                await windows[0].news()
        assert windows[0].final["type"] == "COMPLETED"
        assert not set(read) & set(others)
        # What has ended is not asked again.
        count = read.count(ended)
        await move(api, others[1], StateType.FAILED)
        await write_lines(api, others[1], "behind it")
        with anyio.fail_after(PATIENCE_SECONDS):
            while windows[2].after(windows[2].floor) is None:
                await windows[2].news()
        assert read.count(ended) == count


async def test_whoever_is_cut_off_before_the_first_line_resumes_where_it_began(api: ApiClient) -> None:
    run = await a_run(api)
    await write_lines(api, run, "old")
    async with connected(api, f"/managed/flow_runs/{run}/logs/tail?tail=0", prefect=False) as client:
        start = await client.receive()
    await write_lines(api, run, "while nobody was there")
    async with tailing(api, run, f"?after={start['cursor']}") as tail:
        assert await tail.line() == "while nobody was there"


async def test_a_cursor_that_the_store_has_not_given_yet_hides_no_line(api: ApiClient) -> None:
    run = await a_run(api)
    await write_lines(api, run, "one", "two")
    async with tailing(api, run, "?tail=1") as tail:
        newest = (await tail.next())["cursor"]
    later = await api.services.logs.read(lambda tx: positions.of(tx, "logs").id(1_000))
    async with connected(api, f"/managed/flow_runs/{run}/logs/tail?after={later}", prefect=False) as client:
        tail = Tail(client)
        assert await tail.next() == {"type": "start", "cursor": newest}
        assert await tail.silent()
        await write_lines(api, run, "three")
        assert await tail.line() == "three"


@pytest.mark.parametrize(
    "cursor", ["4711", "00000000-0000-8000-8000-000000000001", "01a206d5-8caf-7893-9ce5-29f02663110a"]
)
async def test_a_cursor_that_the_store_never_gave_is_refused(api: ApiClient, cursor: str) -> None:
    run = await a_run(api)
    await write_lines(api, run, "one")
    with pytest.raises(WSServerHandshakeError) as refusal:
        async with connected(api, f"/managed/flow_runs/{run}/logs/tail?after={cursor}", prefect=False):
            pass
    assert refusal.value.status == 422


async def test_what_clients_are_told_follows_their_own_lines_alone(api: ApiClient) -> None:
    """A position of the whole store, however it is written, would tell that others have written."""
    run, another = await a_run(api), await a_run(api)
    told = []
    for ask in ("?tail=0", "?tail=1", "", "?since=2100-01-01T00:00:00Z"):
        await write_lines(api, another, "noise")
        async with connected(api, f"/managed/flow_runs/{run}/logs/tail{ask}", prefect=False) as client:
            told.append((await client.receive())["cursor"])
    assert len(set(told)) == 1
    await write_lines(api, run, "one")
    await write_lines(api, another, "noise")
    async with tailing(api, run) as tail:
        last = (await tail.next())["cursor"]
    await move(api, run, StateType.COMPLETED)
    await finish(api, await executed(api, run))
    async with tailing(api, run) as tail:
        await tail.next()
        await write_lines(api, another, "noise")
        assert (await tail.next())["cursor"] == last
    async with tailing(api, run, "?tail=0") as tail:
        assert (await tail.next())["cursor"] == last


async def test_it_begins_at_a_time(api: ApiClient) -> None:
    run = await a_run(api)
    await write_lines(api, run, "old", age_seconds=100)
    await write_lines(api, run, "young", "younger", age_seconds=10)
    since = await api.services.logs.read(lambda tx: tx.now - 50_000_000)
    async with tailing(api, run, f"?since={iso(since)}") as tail:
        assert [await tail.line(), await tail.line()] == ["young", "younger"]
    async with tailing(api, run, f"?since={iso(since)}&tail=1") as tail:
        assert await tail.line() == "younger"


async def test_followers_of_one_run_cost_one_reading(api: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many follow, the store is asked once for what is new, and each gets every line once and in order."""
    run = await a_run(api)
    await write_lines(api, run, "before")
    readings = 0
    read = log_pages.news_after

    def counted(*arguments: Any) -> Any:
        nonlocal readings
        readings += 1
        return read(*arguments)

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("a follower that keeps up has read by itself")

    async with anyio.create_task_group() as tasks:
        arrived = [anyio.Event() for _ in range(30)]
        got: list[list[str]] = [[] for _ in arrived]

        async def follow(number: int) -> None:
            async with tailing(api, run) as tail:
                got[number].append(await tail.line())
                arrived[number].set()
                got[number].extend([await tail.line() for _ in range(200)])

        for number in range(len(arrived)):
            tasks.start_soon(follow, number)
        for event in arrived:
            await event.wait()
        monkeypatch.setattr(log_pages, "news_after", counted)
        monkeypatch.setattr(log_pages, "page_after", never)
        for start in range(0, 200, 20):
            await write_lines(api, run, *(f"line {n}" for n in range(start, start + 20)))
    assert got == [["before", *(f"line {n}" for n in range(200))]] * len(arrived)
    assert 1 <= readings <= 20


async def test_lines_come_in_messages_of_many(api: ApiClient) -> None:
    run = await a_run(api)
    await write_lines(api, run, *(f"line {n}" for n in range(1_000)))
    async with tailing(api, run) as tail:
        assert [await tail.line() for _ in range(1_000)] == [f"line {n}" for n in range(1_000)]
        assert tail.messages <= 12


async def test_a_follower_behind_the_window_reads_what_it_missed(
    api: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window is small, so that every follower falls out of it again and again; none loses or repeats a line."""
    monkeypatch.setattr(log_windows, "WINDOW_BYTES", 4_000)
    monkeypatch.setattr(log_pages, "PAGE_LINES", 70)
    run, noise = await a_run(api), await a_run(api)
    expected = [f"line {n}" for n in range(2_000)]

    async def follow(delay: float) -> None:
        async with tailing(api, run) as tail:
            for number, text in enumerate(expected):
                assert await tail.line() == text
                if number % 100 == 0:
                    await anyio.sleep(delay)

    async with anyio.create_task_group() as tasks:
        for delay in (0, 0.005, 0.02):
            tasks.start_soon(follow, delay)
        for start in range(0, len(expected), 50):
            await write_lines(api, noise, *("noise" for _ in range(30)))
            await write_lines(api, run, *expected[start : start + 50])
            await anyio.sleep(0.005)
    await until_open(api, 0)
    assert len(api.services.windows) == 0


async def test_a_client_that_takes_nothing_is_dropped_and_its_window_stays_small(
    api: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "SEND_SECONDS", 0.3)
    run = await a_run(api)
    async with tailing(api, run), tailing(api, run) as quick:
        await until_open(api, 2)
        for number in range(120):
            await write_lines(api, run, f"{number} " + "x" * 100_000)
            assert (await quick.line()).startswith(f"{number} ")
        await until_open(api, 1)
        with api.services.windows.following(ids.DEFAULT_WORKSPACE_ID, run) as window:
            assert window.size_bytes <= log_windows.WINDOW_BYTES
        await quick.client.ping()


async def test_a_window_of_a_run_that_has_ended_is_not_used_when_it_runs_again(api: ApiClient) -> None:
    run = await a_run(api)
    execution = await executed(api, run)
    await move(api, run, StateType.COMPLETED)
    await finish(api, execution)
    async with tailing(api, run) as tail:
        assert (await tail.next())["type"] == "state"
        # The first one has not closed yet: its window is still there.
        await executed(api, run)
        async with tailing(api, run) as later:
            assert await later.silent()
            await write_lines(api, run, "once more")
            assert await later.line() == "once more"


async def test_a_busy_store_is_waited_for(api: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await a_run(api)
    await write_lines(api, run, "first")
    refusals = [unavailable("the store is busy", 0.01)] * 3
    read = log_pages.news_after

    def refusing(*arguments: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return read(*arguments)

    async with tailing(api, run) as tail:
        assert await tail.line() == "first"
        monkeypatch.setattr(log_pages, "news_after", refusing)
        await write_lines(api, run, "late but there")
        assert await tail.line() == "late but there"
    assert refusals == []


# --- as a file -----------------------------------------------------------------------------------------------------------


async def downloaded(api: ApiClient, run: str, query: str = "") -> bytes:
    response = await api.http.get(f"{api.prefix}/managed/flow_runs/{run}/logs/download{query}")
    assert response.status == 200
    assert run in response.headers["Content-Disposition"]
    return await response.read()


async def test_a_log_is_downloaded_whole_as_text_or_json_lines(api: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_pages, "PAGE_LINES", 100)
    run = await a_run(api)
    texts = [f"line {n}" for n in range(1_050)]
    await write_lines(api, run, *texts)
    await write_lines(api, await a_run(api), "another's")
    text = (await downloaded(api, run)).decode()
    assert text.endswith("\n")
    assert [line.partition(" | ")[2] for line in text.splitlines()] == texts
    assert [
        orjson.loads(line)["message"] for line in (await downloaded(api, run, "?format=jsonl")).splitlines()
    ] == texts
    assert await downloaded(api, await a_run(api)) == b""
    async with api.http.head(f"{api.prefix}/managed/flow_runs/{run}/logs/download") as response:
        assert (response.status, await response.read()) == (200, b"")


async def test_what_can_not_be_downloaded_says_so(api: ApiClient, other: ApiClient) -> None:
    run = await a_run(api)
    path = f"/managed/flow_runs/{run}/logs/download"
    assert (await other.get(path))[0] == 404
    assert (await api.get(f"{path}?format=xml"))[0] == 422


async def test_a_download_that_fails_on_the_way_has_no_end(api: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gets half a file is told."""
    monkeypatch.setattr(log_pages, "PAGE_LINES", 100)
    run = await a_run(api)
    await write_lines(api, run, *(f"line {n}" for n in range(300)))
    read, asked = log_pages.page_after, 0

    def failing(*arguments: Any, **options: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise unavailable("the disk under the store failed")
        return read(*arguments, **options)

    monkeypatch.setattr(log_pages, "page_after", failing)
    with pytest.raises(ClientError):
        await downloaded(api, run)


async def test_a_client_that_takes_nothing_of_a_download_is_cut_off(
    api: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then it has cost a few pages, not the whole log."""
    monkeypatch.setattr(sockets, "SEND_SECONDS", 0.3)
    run = await a_run(api)
    for number in range(40):
        await write_lines(api, run, *(f"{number} " + "x" * 500_000 for _ in range(2)))
    send, read, asked, cut = log_tail._send_pages, log_pages.page_after, 0, anyio.Event()

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal asked
        asked += 1
        return read(*arguments, **options)

    async def told(*arguments: Any) -> None:
        try:
            await send(*arguments)
        except TimeoutError:
            cut.set()
            raise

    monkeypatch.setattr(log_pages, "page_after", counted)
    monkeypatch.setattr(log_tail, "_send_pages", told)
    response = await api.http.get(f"{api.prefix}/managed/flow_runs/{run}/logs/download")
    with anyio.fail_after(PATIENCE_SECONDS):
        await cut.wait()
    assert asked < 80
    with pytest.raises(ClientError):
        await response.read()
