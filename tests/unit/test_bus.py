"""The bus: wake-ups are never lost and never carry anything."""

from __future__ import annotations

import anyio
import pytest

from managedd.bus import Bus, Topic

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_wake_up_between_two_looks_is_kept() -> None:
    bus = Bus()
    with bus.subscribe(Topic.RUNS) as woken:
        bus.publish([Topic.RUNS])
        bus.publish([Topic.RUNS])
        assert await woken.wait(0)
        assert not await woken.wait(0)


async def test_only_the_topics_asked_for_wake() -> None:
    bus = Bus()
    with bus.subscribe(Topic.RUNS) as woken:
        bus.publish([Topic.LOGS])
        assert not await woken.wait(0.01)


async def test_a_waiter_is_woken_and_an_ended_subscription_is_not() -> None:
    bus = Bus()
    seen = []

    async def wait() -> None:
        with bus.subscribe(Topic.SLOTS, Topic.RUNS) as woken:
            seen.append(await woken.wait())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        bus.publish([Topic.SLOTS])
    assert seen == [True]
    bus.publish([Topic.SLOTS])


async def test_a_flag_is_taken_without_waiting() -> None:
    bus = Bus()
    with bus.subscribe(Topic.RUNS) as woken:
        assert not woken.take()
        bus.publish([Topic.RUNS])
        assert woken.take()
        assert not woken.take()
        assert not await woken.wait(0)
