"""Runs that print without end: what is kept, what is told, what survives a restart, and who waits for whom."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from managedd import ids
from managedd.engine.log_intake import LAST_LINES, MARK_LINES
from managedd.engine.log_lanes import LANE_LINES, Lanes
from managedd.engine.log_writer import LogWriter
from managedd.model.log_limits import LINE_OVERHEAD_BYTES, TASK_RUN_BYTES, Excess, LogLimits
from managedd.model.logs import LogCursor, LogRecord, RawLine, Stream
from managedd.store import log_sizes, logs
from tests.engine.test_log_writer import Desk, deaf, record
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from managedd.model.executions import Execution
    from tests.engine.world import World

pytestmark = pytest.mark.anyio
SECOND_NS = 1_000_000_000
TOLD = re.compile(r"([\d,]+) lines? \(.*\) dropped here")


def printed(count: int, per_second: float, first: int = 0) -> list[RawLine]:
    """Lines of an even rate, the same each time they are read."""
    return [
        RawLine(
            stream=Stream.STDOUT,
            cursor=LogCursor(SECOND_NS + int(number * SECOND_NS / per_second), 1),
            text=f"line {number}",
        )
        for number in range(first, first + count)
    ]


async def given(
    lines: list[RawLine], after: LogCursor | None = None, *, until: int | None = None
) -> AsyncIterator[RawLine]:
    """As an engine gives them: those behind a cursor; cut off after some."""
    for number, line in enumerate(lines):
        if number == until:
            raise ConnectionError("the engine is gone")
        if after is None or line.cursor > after:
            yield line


class LimitedDesk(Desk):
    """A writer with limits, for which no time passes but that of the lines."""

    def __init__(self, world: World, limits: LogLimits) -> None:
        super().__init__(world)
        self.writer = LogWriter(world.db, self.store, ManualClock(), limits)  # type: ignore[arg-type]


async def lines_of(world: World, execution: Execution) -> list[tuple[str, str]]:
    """The run's log as it is stored: logger names and texts."""
    sql = "SELECT name, message FROM log_lines WHERE flow_run_id = ? ORDER BY id"
    return await world.logs.read(lambda tx: [(row[0], row[1]) for row in tx.all(sql, (execution.flow_run_id,))])


def account(found: list[tuple[str, str]], whole: int) -> list[int]:
    """The numbers of the lines that are there, having checked that each gap says how many are missing in it."""
    expected, there = 0, []
    for name, text in found:
        told = TOLD.match(text)
        if name == "managedd":
            expected += int(told[1].replace(",", "")) if told else 0
        else:
            assert text == f"line {expected}", (text, expected)
            there.append(expected)
            expected += 1
    assert expected == whole
    return there


async def ends_with(world: World, execution: Execution, message: str) -> bool:
    return (await lines_of(world, execution))[-1:] == [("stdout", message)]


async def follow(desk: Desk, execution: Execution, lines: list[RawLine], **options: Any) -> None:
    after = await desk.writer.cursor(execution)
    await desk.writer.follow(execution, given(lines, after, **options), deaf)
    await desk.writer.flush()


async def test_a_flood_is_cut_where_it_is_and_says_how_much(world: World) -> None:
    execution = await world.claimed()
    desk = LimitedDesk(world, LogLimits(lines_per_second=100, burst_seconds=5))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.run)
        await follow(desk, execution, printed(20_000, 2_000))
        desk.scope.cancel()
    found = await lines_of(world, execution)
    there = account(found, 20_000)
    assert there[:500] == list(range(500))
    assert 500 + 9 * 100 <= len(there) <= 500 + 11 * 100 + LAST_LINES
    assert there[-LAST_LINES:] == list(range(20_000 - LAST_LINES, 20_000)), "the end is what a reader wants most"
    assert sum(name == "managedd" for name, _ in found) <= 12
    assert any("runs.log_lines_per_second" in text for _, text in found)


async def test_a_log_that_is_too_large_says_so_at_once_and_keeps_its_end(world: World) -> None:
    execution = await world.claimed()
    desk = LimitedDesk(world, LogLimits(max_bytes=1_000 * (LINE_OVERHEAD_BYTES + 8)))
    seen = anyio.Event()

    async def endless() -> AsyncIterator[RawLine]:
        for line in printed(5_000, 10):
            yield line
        await seen.wait()
        for line in printed(500, 10, first=5_000):
            yield line

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.run)
        tasks.start_soon(desk.writer.follow, execution, endless(), deaf)

        async def announced() -> bool:
            return any("has reached" in text for _, text in await lines_of(world, execution))

        await world.until(announced, 10)
        await desk.writer.say(execution, "still heard")
        seen.set()

        async def ended() -> bool:
            return any(text == "line 5499" for _, text in await lines_of(world, execution))

        await world.until(ended, 10)
        await desk.writer.complete(execution)
        desk.scope.cancel()
    found = await lines_of(world, execution)
    there = account(found, 5_500)
    assert there[-LAST_LINES:] == list(range(5_400, 5_500))
    assert 1_000 <= len(there) - LAST_LINES <= 1_015
    assert ("managedd", "still heard") in found
    assert sum("has reached" in text for _, text in found) == 1


@pytest.mark.parametrize("cut_at", [3, 990, 1_010, 1_500, 4_321, 7_000])
async def test_a_restart_neither_begins_the_count_anew_nor_loses_or_doubles_a_line(world: World, cut_at: int) -> None:
    execution = await world.claimed()
    limits = LogLimits(max_bytes=1_000 * (LINE_OVERHEAD_BYTES + 8))
    lines = printed(9_000, 10)
    for until in (cut_at, cut_at + 700, None):
        desk = LimitedDesk(world, limits)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(desk.run)
            try:
                await follow(desk, execution, lines, until=until)
            except ConnectionError:
                # The daemon is killed here: what was committed is all that there is.
                await desk.writer.flush()
            desk.scope.cancel()
    there = account(await lines_of(world, execution), 9_000)
    assert len(there) <= 1_020 + LAST_LINES
    stored = await world.logs.read(lambda tx: log_sizes.size(tx, execution.flow_run_id))
    assert stored <= (1_002 + LAST_LINES) * (LINE_OVERHEAD_BYTES + 9)


async def test_what_a_run_sends_to_the_api_meanwhile_counts(world: World) -> None:
    """Its log is not twice as large because two ways lead there."""
    execution, line_bytes = await world.claimed(), LINE_OVERHEAD_BYTES + 9
    limits = LogLimits(max_bytes=3_000 * line_bytes)
    desk, sent = LimitedDesk(world, limits), anyio.Event()

    def send(tx: Any) -> None:
        records = [LogRecord("n", 20, "x" * 8, number, execution.flow_run_id) for number in range(2_000)]
        lines = logs.Sent(records=records, texts_bytes=[9] * 2_000, admitted=2_000, excess=None)
        logs.append_within(tx, lines, flow_run_id=execution.flow_run_id, execution_id=execution.id, limits=limits)

    async def pausing() -> AsyncIterator[RawLine]:
        for line in printed(10, 10):
            yield line
        await sent.wait()
        for line in printed(5_000, 10, first=10):
            yield line

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.run)
        tasks.start_soon(desk.writer.follow, execution, pausing(), deaf)
        await world.until(lambda: ends_with(world, execution, "line 9"), 10)
        await world.logs.write(send, workspace=execution.workspace_id)
        sent.set()
        await world.until(lambda: ends_with(world, execution, "line 5009"), 10)
        desk.scope.cancel()
    stored = await world.logs.read(lambda tx: log_sizes.size(tx, execution.flow_run_id))
    # Beyond it are what was on its way before a commit told of the others, and the last lines.
    assert stored <= (3_000 + LANE_LINES + LAST_LINES) * line_bytes


@pytest.mark.parametrize("first", ["the container", "the API", "the rate"])
async def test_that_a_log_is_full_is_said_once_whichever_way_filled_it(world: World, first: str) -> None:
    execution = await world.claimed()
    limits = LogLimits(max_bytes=1_000 * (LINE_OVERHEAD_BYTES + 8) + 50)
    desk = LimitedDesk(world, limits)

    async def send(count: int, admitted: int) -> None:
        records = [LogRecord("n", 20, "x" * 8, number, execution.flow_run_id) for number in range(count)]
        sent = logs.Sent(records=records, texts_bytes=[9] * count, admitted=admitted, excess=Excess.LINES)
        run = {"flow_run_id": execution.flow_run_id, "execution_id": execution.id}
        await world.logs.write(
            lambda tx: logs.append_within(tx, sent, **run, limits=limits), workspace=execution.workspace_id
        )

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.run)
        if first == "the container":
            with pytest.raises(ConnectionError):
                await desk.writer.follow(execution, given(printed(2_000, 10), until=1_500), deaf)
            await desk.writer.flush()
        elif first == "the rate":
            await send(2, 1)
        for _ in range(2):
            await send(2_000, 2_000)
        if first == "the API":
            await desk.writer.follow(execution, given(printed(10, 10)), deaf)
        await desk.writer.flush()
        desk.scope.cancel()
    found = [text for _, text in await lines_of(world, execution)]
    assert sum("has reached" in text for text in found) == 1
    assert sum("to the API" in text for text in found) == (first == "the rate")


async def test_a_task_run_counts_with_its_first_line(world: World) -> None:
    execution = await world.claimed()
    tasks_of_run = [ids.new_id() for _ in range(3)]
    desk = LimitedDesk(world, LogLimits(max_bytes=10**6))
    lines = [
        replace(line, text=record("m", name="n", task_run_id=tasks_of_run[n % 3]))
        for n, line in enumerate(printed(9, 1))
    ]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.run)
        await follow(desk, execution, lines)
        desk.scope.cancel()
    stored = await world.logs.read(lambda tx: log_sizes.size(tx, execution.flow_run_id))
    assert stored == 9 * (LINE_OVERHEAD_BYTES + 2) + 3 * TASK_RUN_BYTES


async def test_the_cursor_moves_on_while_lines_are_dropped(world: World) -> None:
    """A restart in the middle of a flood does not read all of it again."""
    execution = await world.claimed()
    desk = LimitedDesk(world, LogLimits(lines_per_second=1, burst_seconds=1))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.run)
        with pytest.raises(ConnectionError):
            await desk.writer.follow(execution, given(printed(6_000, 1e9), until=5_500), deaf)
        await desk.writer.flush()
        cursor = await desk.writer.cursor(execution)
        assert 5_500 - MARK_LINES - 1 <= cursor.timestamp_ns - SECOND_NS <= 5_500
        untold = await world.logs.read(lambda tx: log_sizes.untold(tx, execution.id))
        assert untold.lines == cursor.timestamp_ns - SECOND_NS
        for _ in range(2):
            # The second time as after a crash.
            await desk.writer.complete(execution)
        found = await lines_of(world, execution)
        await desk.writer.forget(execution)
        assert await lines_of(world, execution) == found
        desk.scope.cancel()
    assert sum(TOLD.match(text) is not None for _, text in found) == 1
    name, text = (await lines_of(world, execution))[-1]
    assert name == "managedd"
    assert TOLD.match(text)[1] == f"{untold.lines:,}"  # type: ignore[index]
    assert await world.logs.read(lambda tx: log_sizes.untold(tx, execution.id)) == type(untold)()


async def test_a_deleted_log_has_no_size(world: World) -> None:
    execution = await world.claimed()
    desk = Desk(world)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.run)
        await follow(desk, execution, printed(10, 1))
        desk.scope.cancel()
    run = execution.flow_run_id
    assert await world.logs.read(lambda tx: log_sizes.size(tx, run)) == 10 * (LINE_OVERHEAD_BYTES + 6)
    await world.logs.write(lambda tx: logs.delete_of_run(tx, run, 100))
    assert await world.logs.read(lambda tx: log_sizes.size(tx, run)) == 0


async def test_one_runs_flood_keeps_no_other_waiting(world: World) -> None:
    """While the store is slow and one run has filled its queue, another's line is in the next batch but one."""
    flooding, quiet = await world.claimed(), await world.claimed()
    desk = Desk(world)
    commits: list[int] = []
    write = desk.store.write

    async def slowly(body: Any) -> Any:
        await anyio.sleep(0.02)
        commits.append(1)
        return await write(body)

    desk.store.write = slowly  # type: ignore[method-assign]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.run)
        tasks.start_soon(desk.writer.follow, flooding, given(printed(30_000, 1e6)), deaf)
        while len(commits) < 3:  # noqa: ASYNC110 - the flood is under way
            await anyio.sleep(0.01)
        for number in range(5):
            before = len(commits)
            await desk.writer.follow(quiet, given(printed(1, 1, first=number)), deaf)

            async def there(number: int = number) -> bool:
                return ("stdout", f"line {number}") in await lines_of(world, quiet)

            await world.until(there, 5)
            assert len(commits) - before <= 3
        tasks.cancel_scope.cancel()


# --- the queues ----------------------------------------------------------------------------------------------------------


async def test_queues_are_served_in_turns_each_in_its_order() -> None:
    lanes: Lanes[str] = Lanes(chars=1_000)
    for item in ("a1", "a2", "a3", "b1", "c1", "b2"):
        assert await lanes.put(item[0], item, 1)
    assert [one.item for one in lanes.take(4)] == ["a1", "b1", "c1", "a2"]
    assert lanes.oldest() == 3
    assert [one.item for one in lanes.take()] == ["b2", "a3"]
    assert lanes.waiting == 0


@pytest.mark.parametrize(("count", "chars"), [(LANE_LINES, 0), (8, 16)])
async def test_a_full_queue_holds_back_its_own_alone(count: int, chars: int) -> None:
    lanes: Lanes[int] = Lanes(chars=8 * 8 * 16)
    for number in range(count):
        assert await lanes.put("a", number, chars)
    with pytest.raises(TimeoutError), anyio.fail_after(0.01):
        await lanes.put("a", count, chars)
    assert await lanes.put("b", 0, chars)
    assert await lanes.put("a", count, chars, urgent=True)
    taken = lanes.take()
    with pytest.raises(TimeoutError), anyio.fail_after(0.01):
        await lanes.put("a", count, chars)
    lanes.give_back(taken)
    assert await lanes.put("a", count, chars)


async def test_one_line_always_has_room_and_all_together_are_bounded() -> None:
    lanes: Lanes[int] = Lanes(chars=80)
    for name in "abcdefgh":
        assert await lanes.put(name, 0, 10)
    assert await lanes.put("i", 0, 500)
    with pytest.raises(TimeoutError), anyio.fail_after(0.01):
        await lanes.put("a", 1, 0 + 1)


async def test_closed_queues_refuse_who_waits_and_who_comes() -> None:
    lanes: Lanes[int] = Lanes(chars=8)
    assert await lanes.put("a", 0, 1)
    answers: list[bool] = []

    async def wait() -> None:
        answers.append(await lanes.put("a", 1, 1))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        lanes.close()
    assert answers == [False]
    assert not await lanes.put("b", 0, 1)
