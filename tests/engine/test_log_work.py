"""Who rests, for how long, and who waits for whom."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from managedd.engine.log_work import (
    BUSY_TURNS,
    LEAST_REST,
    LONGEST_WORK_SECONDS,
    MOST_REST,
    TURN_LINES,
    Floods,
    Turns,
    Work,
)

pytestmark = pytest.mark.anyio


class Counted(Floods):
    """Notes the rests."""

    def __init__(self) -> None:
        super().__init__()
        self.rests: list[float] = []

    async def rest(self, worked_seconds: float) -> None:
        self.rests.append(worked_seconds)
        await anyio.lowlevel.checkpoint()


async def take(turns: Turns, count: int, *, is_kept: bool = True) -> None:
    for _ in range(count * TURN_LINES):
        await turns.took_one(is_kept=is_kept)


async def test_a_burst_rests_for_nobody() -> None:
    floods = Counted()
    await take(Turns(floods, Work()), BUSY_TURNS - 1)
    assert floods.rests == []


async def test_who_goes_on_rests_in_every_turn() -> None:
    floods = Counted()
    await take(Turns(floods, Work()), 3 * BUSY_TURNS)
    assert len(floods.rests) >= BUSY_TURNS


async def test_who_is_over_its_rate_rests_at_once() -> None:
    floods = Counted()
    await take(Turns(floods, Work()), 3, is_kept=False)
    assert len(floods.rests) == 3


async def test_who_prints_a_little_now_and_then_never_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(anyio, "current_time", lambda: now)
    floods = Counted()
    turns = Turns(floods, Work())
    for _ in range(3 * BUSY_TURNS):
        now += 1.1
        await take(turns, 1)
    assert floods.rests == []
    for _ in range(3 * BUSY_TURNS):
        # Time for which it was held back is no pause of its own.
        now += 1.1
        turns.held_back(1.1)
        await take(turns, 1)
    assert len(floods.rests) >= BUSY_TURNS


async def test_rests_are_as_long_as_others_need_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood alone is hardly held up; others who work make it rest at once, and another flood's work is not theirs."""
    now = used = 0.0
    rests: list[float] = []
    during = {"others": 0.0, "floods": 0.0}

    async def sleep(seconds: float) -> None:
        nonlocal now, used
        rests.append(seconds)
        now += seconds
        used += (during["others"] + during["floods"]) * seconds
        floods._worked += during["floods"] * seconds

    monkeypatch.setattr(anyio, "current_time", lambda: now)
    monkeypatch.setattr(anyio, "sleep", sleep)
    floods = Floods(lambda: used)
    for _ in range(10):
        await floods.rest(0.01)
    assert rests[0] == pytest.approx(0.01 * MOST_REST) and rests[-1] == pytest.approx(0.01 * LEAST_REST)
    during["floods"] = 0.9
    await floods.rest(0.01)
    await floods.rest(0.01)
    assert rests[-1] == pytest.approx(0.01 * LEAST_REST)
    during["others"] = 0.5
    for _ in range(6):
        await floods.rest(0.01)
    assert rests[-1] == pytest.approx(0.01 * MOST_REST)
    # However long it has worked.
    await floods.rest(5.0)
    assert rests[-1] == pytest.approx(LONGEST_WORK_SECONDS * MOST_REST)


async def test_what_others_do_meanwhile_is_no_work_of_its_own() -> None:
    seconds, mine = 0.0, []
    work = Work(lambda: seconds)

    async def step(_number: int) -> None:
        nonlocal seconds
        seconds += 1
        await anyio.lowlevel.checkpoint()
        seconds += 10
        mine.append(work.seconds())

    async def others() -> None:
        nonlocal seconds
        while len(mine) < 3:
            seconds += 1_000
            await anyio.lowlevel.checkpoint()

    async def all_steps() -> None:
        for number in range(3):
            await step(number)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(others)
        await work.of(all_steps())
    assert mine == [11, 22, 33]


@pytest.mark.parametrize("error", [ValueError("broken"), None])
async def test_what_is_measured_ends_and_is_cancelled_as_by_itself(error: Exception | None) -> None:
    left: list[Any] = []

    async def inner() -> None:
        try:
            await anyio.lowlevel.checkpoint()
            if error is not None:
                raise error
            await anyio.sleep_forever()
        finally:
            left.append(True)

    if error is not None:
        with pytest.raises(ValueError, match="broken"):
            await Work().of(inner())
    else:
        with anyio.move_on_after(0.01) as scope:
            await Work().of(inner())
        assert scope.cancelled_caught
    assert left == [True]
