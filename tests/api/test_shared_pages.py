"""One read for all who ask for the same page, whatever becomes of the one that reads."""

from __future__ import annotations

import anyio
import pytest

from managedd.api import shared_pages
from managedd.api.shared_pages import SharedPages
from managedd.errors import ErrorCode, ManagedError
from managedd.store.tails import Page

pytestmark = pytest.mark.anyio


class Reader:
    """Reads when it is let, and counts."""

    def __init__(self, text: bytes = b"line") -> None:
        self.count = 0
        self.go = anyio.Event()
        self.failure: ManagedError | None = None
        self._text = text

    async def __call__(self, after: int, until: int) -> Page:
        self.count += 1
        await self.go.wait()
        if self.failure is not None:
            raise self.failure
        return Page(frames=[self._text], times=[after], cursor=until, more=False)


async def test_many_who_ask_at_once_and_those_who_ask_later_share_one_read() -> None:
    pages, reader = SharedPages(), Reader()
    read = pages.shared("asked", reader)
    got: list[Page] = []

    async def ask() -> None:
        got.append(await read(3, 5))

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        reader.go.set()
    await ask()
    assert reader.count == 1
    assert all(page is got[0] for page in got) and len(got) == 11


async def test_what_differs_in_anything_is_read_by_itself() -> None:
    pages, reader = SharedPages(), Reader()
    reader.go.set()
    for asked, after, until in (("a", 1, 2), ("b", 1, 2), ("a", 0, 2), ("a", 1, 3)):
        page = await pages.shared(asked, reader)(after, until)
        assert (page.times, page.cursor) == ([after], until)
    assert reader.count == 4


async def test_another_reads_when_the_one_that_did_went_away() -> None:
    pages, reader = SharedPages(), Reader()
    read = pages.shared("asked", reader)
    got: list[Page] = []

    async def ask() -> None:
        got.append(await read(0, 1))

    async with anyio.create_task_group() as tasks:
        leaving = anyio.CancelScope()

        async def leave() -> None:
            with leaving:
                await read(0, 1)

        tasks.start_soon(leave)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(ask)
        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        assert reader.count == 1
        leaving.cancel()
        await anyio.wait_all_tasks_blocked()
        assert reader.count == 2
        reader.go.set()
    assert [page.cursor for page in got] == [1, 1]


async def test_a_failure_is_told_to_all_who_waited_and_to_nobody_later() -> None:
    pages, reader = SharedPages(), Reader()
    read = pages.shared("asked", reader)
    reader.failure = ManagedError(ErrorCode.UNAVAILABLE, "busy", retry_after_seconds=2)
    told: list[tuple[ErrorCode, str, float | None]] = []

    async def ask() -> None:
        try:
            await read(0, 1)
        except ManagedError as error:
            told.append((error.code, error.message, error.retry_after_seconds))

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        reader.go.set()
    assert told == [(ErrorCode.UNAVAILABLE, "busy", 2)] * 3
    assert reader.count == 1
    reader.failure = None
    assert (await read(0, 1)).cursor == 1


async def test_no_more_is_held_than_its_bounds_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_pages, "HELD_BYTES", 25)
    pages, reader = SharedPages(), Reader(b"0123456789")
    reader.go.set()
    read = pages.shared("asked", reader)
    for until in (1, 2, 3):
        await read(0, until)
    await read(0, 3)
    await read(0, 2)
    assert reader.count == 3
    await read(0, 1)
    assert reader.count == 4
    monkeypatch.setattr(shared_pages, "HELD_PAGES", 1)
    await read(0, 4)
    await read(0, 4)
    await read(0, 1)
    assert reader.count == 6
