"""What ends with a run's key: each thing that the execution's end is told to, whenever that was, and nothing else; one query for all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from managedd import ids
from managedd.api.key_watch import HeldBy, Holder
from managedd.model.executions import Phase
from managedd.store import executions, rows, web_sessions
from managedd.store.resources import FLOW, FLOW_RUN
from tests.support.api_keys import make_key

if TYPE_CHECKING:
    from managedd.api.context import Services

pytestmark = pytest.mark.anyio


async def an_execution(services: Services) -> str:
    def body(tx: Any) -> str:
        flow = rows.insert(tx, FLOW, {"name": ids.new_id()})
        run = rows.insert(tx, FLOW_RUN, {"name": "brave-otter", "flow_id": flow})
        return executions.insert(tx, flow_run_id=run, work_pool_id=None, driver="fake").id

    return await services.db.write(body, workspace=ids.DEFAULT_WORKSPACE_ID)


async def ended(services: Services, id_: str) -> None:
    def body(tx: Any) -> None:
        executions.advance(tx, id_, (Phase.CLAIMED,), Phase.EXITED)
        executions.advance(tx, id_, (Phase.EXITED,), Phase.LOST)

    await services.db.write(body)


async def within(event: anyio.Event, seconds: float = 5) -> bool:
    with anyio.move_on_after(seconds):
        await event.wait()
    return event.is_set()


async def test_everything_of_an_execution_ends_with_it_and_nothing_of_another(services: Services) -> None:
    first, second = await an_execution(services), await an_execution(services)
    events, other = [anyio.Event(), anyio.Event()], anyio.Event()
    with (
        services.keys.watching(Holder(HeldBy.EXECUTION, first), events[0].set),
        services.keys.watching(Holder(HeldBy.EXECUTION, first), events[1].set),
        services.keys.watching(Holder(HeldBy.EXECUTION, second), other.set),
    ):
        await ended(services, first)
        assert [await within(event) for event in events] == [True, True]
        assert not await within(other, 0.2)
        await ended(services, second)
        assert await within(other)


async def test_what_is_watched_too_late_ends_soon(services: Services) -> None:
    execution, event = await an_execution(services), anyio.Event()
    await ended(services, execution)
    with services.keys.watching(Holder(HeldBy.EXECUTION, execution), event.set):
        assert await within(event)
    with services.keys.watching(Holder(HeldBy.EXECUTION, ids.new_id()), (unknown := anyio.Event()).set):
        assert await within(unknown)


@pytest.mark.parametrize("which", ["the session", "its key"])
async def test_a_browsers_session_ends_when_it_or_its_key_expires(services: Services, which: str) -> None:
    clock, event, hour_us = services.clock, anyio.Event(), 3_600_000_000
    soon, late = clock.now_us() + 500_000, clock.now_us() + hour_us
    await make_key(services.db, name="k", expires_us=soon if which == "its key" else late)

    def begin(tx: Any) -> str:
        key_id = tx.scalar("SELECT id FROM keys")
        expires_us = soon if which == "the session" else late
        web_sessions.begin(tx, token_hash="h", key_id=key_id, auth_hash=None, expires_us=expires_us)
        return str(tx.scalar("SELECT id FROM web_sessions"))

    session = await services.db.write(begin)
    with services.keys.watching(Holder(HeldBy.SESSION, session), event.set):
        assert await within(event)
    assert clock.now_us() >= soon


async def test_what_is_not_watched_any_more_is_not_told(services: Services) -> None:
    execution, told, kept = await an_execution(services), anyio.Event(), anyio.Event()
    with services.keys.watching(Holder(HeldBy.EXECUTION, execution), kept.set):
        with services.keys.watching(Holder(HeldBy.EXECUTION, execution), told.set):
            pass
        await ended(services, execution)
        assert await within(kept)
    assert not told.is_set()


async def test_however_many_watch_a_change_is_one_query(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    open_among = executions.open_among

    def counted(tx: Any, execution_ids: list[str]) -> frozenset[str]:
        asked.append(len(execution_ids))
        return open_among(tx, execution_ids)

    monkeypatch.setattr(executions, "open_among", counted)
    held = [await an_execution(services) for _ in range(20)]
    event = anyio.Event()
    watches = [services.keys.watching(Holder(HeldBy.EXECUTION, execution), event.set) for execution in held]
    for watch in watches:
        watch.__enter__()
    try:
        await anyio.sleep(0.2)
        asked.clear()
        await ended(services, held[7])
        assert await within(event)
        assert asked == [20]
    finally:
        for watch in watches:
            watch.__exit__(None, None, None)
