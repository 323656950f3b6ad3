"""The log writer: batches, cursors, hostile records, and a store that refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from managedd import ids
from managedd.engine import log_writer as module
from managedd.engine.log_intake import Descendants
from managedd.engine.log_lanes import LANE_LINES
from managedd.engine.log_writer import BATCH_LINES, LogWriter
from managedd.errors import ManagedError, unavailable
from managedd.model.executions import EndLine
from managedd.model.log_limits import LINE_OVERHEAD_BYTES
from managedd.model.logs import RECORD_MARK, LogCursor, RawLine, Stream
from managedd.store import log_sizes, logs, rows
from managedd.store.resources import FLOW_RUN, TASK_RUN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.engine.world import World

pytestmark = pytest.mark.anyio


def lines(count: int, first: int = 0, text: Callable[[int], str] = "line {}".format) -> list[RawLine]:
    return [
        RawLine(stream=Stream.STDOUT, cursor=LogCursor(1000 + number, 1), text=text(number))
        for number in range(first, first + count)
    ]


async def stream(given: list[RawLine]) -> AsyncIterator[RawLine]:
    for line in given:
        yield line


def record(message: str, **fields: Any) -> str:
    whole = {"name": "flow", "level": 30, "message": message, "created_us": 5, "flow_run_id": None, "task_run_id": None}
    return RECORD_MARK + json.dumps({**whole, **fields})


class Store:
    """A log store that refuses as it is told to, and remembers its commits."""

    def __init__(self, world: World) -> None:
        self._db = world.logs
        self.commits = 0
        self.refuse: list[Exception] = []
        self.gate: anyio.Event | None = None

    async def write(self, body: Any, **options: Any) -> Any:
        if self.gate is not None:
            await self.gate.wait()
        if self.refuse:
            raise self.refuse.pop(0)
        self.commits += 1
        return await self._db.write(body, **options)

    async def read(self, body: Any) -> Any:
        return await self._db.read(body)


async def deaf(_record: object) -> None:
    """Nobody listens."""


class Desk:
    """A writer that runs."""

    def __init__(self, world: World) -> None:
        self.store = Store(world)
        self.writer = LogWriter(world.db, self.store, world.clock)  # type: ignore[arg-type]
        self.scope = anyio.CancelScope()

    async def run(self) -> None:
        with self.scope:
            await self.writer.run()


async def test_lines_are_batched_with_their_cursor(world: World) -> None:
    execution = await world.claimed()
    desk = Desk(world)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.run)
        await desk.writer.follow(execution, stream(lines(1200)), deaf)
        await desk.writer.flush()
        assert await world.printed(execution.flow_run_id) == [f"line {number}" for number in range(1200)]
        assert await desk.writer.cursor(execution) == LogCursor(1000 + 1199, 1)
        assert 1200 / BATCH_LINES <= desk.store.commits < 20
        await desk.writer.forget(execution)
        assert await desk.writer.cursor(execution) == LogCursor()
        desk.scope.cancel()


@pytest.mark.parametrize("times_said", [0, 1, 2])
async def test_how_a_run_ended_is_said_once_whoever_says_it(world: World, times_said: int) -> None:
    execution, again = await world.claimed(), await world.claimed()
    desk, end = Desk(world), EndLine(level=40, message="Out of memory")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.run)
        await desk.writer.follow(execution, stream(lines(2)), deaf)
        for _ in range(times_said):
            await desk.writer.say_end(execution, end)
        for _ in range(2):
            await desk.writer.complete(execution, end)
        assert await desk.writer.cursor(execution) == LogCursor(1001, 1)
        await desk.writer.complete(again)
        desk.scope.cancel()
    assert await world.log_lines(execution.flow_run_id) == ["line 0", "line 1", "Out of memory"]
    assert await world.log_lines(again.flow_run_id) == []


async def test_where_lines_may_be_missing_the_log_says_so(world: World) -> None:
    execution = await world.claimed()
    desk = Desk(world)
    one, two, three = lines(3)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.run)
        await desk.writer.follow(execution, stream([one, replace(two, follows_gap=True), three]), deaf)
        await desk.writer.flush()
        desk.scope.cancel()
    first, told, *rest = await world.log_lines(execution.flow_run_id)
    assert (first, rest) == ("line 0", ["line 1", "line 2"])
    assert told.startswith("Lines may be missing here")


@pytest.mark.parametrize("phase", [{}, {"phase": "installed"}])
async def test_no_record_of_a_run_speaks_as_the_daemon(world: World, phase: dict[str, str]) -> None:
    """What it says to have reached is heard all the same."""
    execution = await world.claimed()
    desk, heard = Desk(world), []

    async def hear(parsed: Any) -> None:
        heard.append(parsed.phase)

    forged = record("Container killed: out of memory", name="managedd", **phase)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.run)
        await desk.writer.follow(execution, stream(lines(1, text=lambda _: forged)), hear)
        await desk.writer.say(execution, "said by the daemon")
        await desk.writer.flush()
        desk.scope.cancel()
    assert await world.log_lines(execution.flow_run_id, "managedd") == ["said by the daemon"]
    assert await world.log_lines(execution.flow_run_id, "managedd (run)") == ["Container killed: out of memory"]
    assert heard == [phase.get("phase")]


async def test_a_line_is_not_kept_waiting_for_company(world: World) -> None:
    execution = await world.claimed()
    desk = Desk(world)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.run)
        await desk.writer.say(execution, "alone")

        async def stored() -> bool:
            return await world.log_lines(execution.flow_run_id) == ["alone"]

        await world.until(stored, 2)
        desk.scope.cancel()


async def test_lines_and_cursor_are_one_commit(world: World) -> None:
    """Whenever anybody looks, the cursor is that of the last line that is there."""
    execution = await world.claimed()
    desk = Desk(world)
    seen = set()

    def look(tx: Any) -> tuple[int, int]:
        count = tx.scalar("SELECT count(*) FROM log_lines WHERE flow_run_id = ?", (execution.flow_run_id,))
        return count, logs.cursor(tx, execution.id).timestamp_ns

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.run)
        tasks.start_soon(desk.writer.follow, execution, stream(lines(6000)), deaf)
        while True:
            count, cursor = await world.logs.read(look)
            seen.add(count)
            assert cursor == (999 + count if count else 0)
            if count == 6000:
                break
        desk.scope.cancel()
    assert len(seen) > 2


async def test_a_store_that_is_full_loses_nothing_and_holds_the_stream_back(
    world: World,
) -> None:
    execution = await world.claimed()
    desk = Desk(world)
    desk.store.gate = anyio.Event()
    desk.store.refuse = [unavailable("the disk is full", 0.01) for _ in range(3)]
    taken = 0

    async def counted() -> AsyncIterator[RawLine]:
        nonlocal taken
        for line in lines(10_000):
            taken += 1
            yield line

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.run)
        tasks.start_soon(desk.writer.follow, execution, counted(), deaf)
        await anyio.sleep(0.3)
        assert taken <= LANE_LINES + 1
        desk.store.gate.set()

        async def stored() -> bool:
            return len(await world.printed(execution.flow_run_id)) == 10_000

        await world.until(stored, 10)
        desk.scope.cancel()
    assert await world.printed(execution.flow_run_id) == [f"line {number}" for number in range(10_000)]


async def test_long_records_are_held_back_by_their_size(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUFFER_CHARS", 1_000_000)
    execution = await world.claimed()
    desk = Desk(world)
    desk.store.gate = anyio.Event()
    taken = 0

    async def counted() -> AsyncIterator[RawLine]:
        nonlocal taken
        for line in lines(40, text=lambda number: f"{number} " + "x" * 200_000):
            taken += 1
            yield line

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.run)
        tasks.start_soon(desk.writer.follow, execution, counted(), deaf)
        await anyio.sleep(0.3)
        assert taken <= 7
        desk.store.gate.set()

        async def stored() -> bool:
            return len(await world.printed(execution.flow_run_id)) == 40

        await world.until(stored, 10)
        desk.scope.cancel()


async def test_one_line_that_nothing_can_store_costs_no_other(world: World) -> None:
    execution = await world.claimed()
    desk = Desk(world)
    given = lines(5, text=lambda number: "broken \ud800" if number == 2 else f"line {number}")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.run)
        await desk.writer.follow(execution, stream(given), deaf)
        await desk.writer.flush()
        desk.scope.cancel()
    assert await world.printed(execution.flow_run_id) == ["line 0", "line 1", "line 3", "line 4"]
    assert await desk.writer.cursor(execution) == given[-1].cursor


async def test_what_was_handed_in_when_it_stops_is_written_and_later_is_refused(world: World) -> None:
    execution = await world.claimed()
    desk = Desk(world)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.run)
        for number in range(700):
            await desk.writer.say(execution, f"said {number}")
        desk.scope.cancel()
    assert await world.log_lines(execution.flow_run_id) == [f"said {number}" for number in range(700)]
    for late in (desk.writer.flush, lambda: desk.writer.say(execution, "late")):
        with anyio.fail_after(1), pytest.raises(ManagedError, match="has stopped"):
            await late()


async def test_nobody_waits_for_ever_for_a_writer_that_could_not_write(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LAST_SECONDS", 0.1)
    execution = await world.claimed()
    desk = Desk(world)
    desk.store.refuse = [unavailable("the disk is full", 0.02) for _ in range(1000)]
    refused = anyio.Event()

    async def wait() -> None:
        with pytest.raises(ManagedError, match="has stopped"):
            await desk.writer.flush()
        refused.set()

    with anyio.fail_after(3):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(desk.run)
            await desk.writer.say(execution, "lost with the disk")
            tasks.start_soon(wait)
            await anyio.sleep(0.1)
            desk.scope.cancel()
    assert refused.is_set()


async def test_records_of_the_run_and_its_descendants_only(world: World) -> None:
    execution = await world.claimed()
    stranger = await world.run()

    def child_of(tx: Any, parent: str) -> str:
        task = {"name": "t", "flow_run_id": parent, "task_key": "k", "dynamic_key": ids.new_id()}
        made = rows.insert(tx, TASK_RUN, task)
        return rows.insert(tx, FLOW_RUN, {"name": "c", "flow_id": world.flow_id, "parent_task_run_id": made})

    child = await world.write(lambda tx: child_of(tx, execution.flow_run_id))
    grandchild = await world.write(lambda tx: child_of(tx, child))
    task_run = ids.new_id()
    given = [
        record("own"),
        record("of a task", flow_run_id=execution.flow_run_id, task_run_id=task_run),
        record("of a child", flow_run_id=child.upper()),
        record("of a grandchild", flow_run_id=grandchild),
        record("of a stranger", flow_run_id=stranger),
        record("of nobody", flow_run_id=ids.new_id()),
        record("no level", level="high"),
        RECORD_MARK + "{",
        "plain",
    ]
    raw = [
        RawLine(stream=Stream.STDERR, cursor=LogCursor(1_000 * (number + 1), 1), text=text)
        for number, text in enumerate(given)
    ]
    desk = Desk(world)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.run)
        await desk.writer.follow(execution, stream(raw), deaf)
        await desk.writer.flush()
        desk.scope.cancel()
    assert await world.log_lines(execution.flow_run_id, "flow") == ["own", "of a task"]
    assert await world.log_lines(child) == ["of a child"]
    assert await world.log_lines(grandchild) == ["of a grandchild"]
    assert await world.log_lines(stranger) == []
    assert await world.log_lines(execution.flow_run_id, "stderr") == given[4:]
    found = await world.logs.read(
        lambda tx: [
            tuple(row) for row in tx.all("SELECT level, timestamp, task_run_id FROM log_lines ORDER BY id LIMIT 2")
        ]
    )
    assert found == [(30, 5, None), (30, 5, task_run)]


async def test_a_line_keeps_no_task_run_of_a_stranger(world: World) -> None:
    """One that nobody has told of yet stays: the event of a task run may come after its first line."""
    execution, stranger = await world.claimed(), await world.run()

    def task_of(tx: Any, run: str | None) -> str:
        return rows.insert(
            tx, TASK_RUN, {"name": "t", "flow_run_id": run, "task_key": "k", "dynamic_key": ids.new_id()}
        )

    def child_of(tx: Any, parent: str) -> str:
        return rows.insert(tx, FLOW_RUN, {"name": "c", "flow_id": world.flow_id, "parent_task_run_id": parent})

    def prepare(tx: Any) -> tuple[str, str, str, str, str]:
        own, theirs, nobodys = (task_of(tx, run) for run in (execution.flow_run_id, stranger, None))
        child = child_of(tx, own)
        return own, theirs, nobodys, child, task_of(tx, child)

    own, theirs, nobodys, child, below = await world.write(prepare)
    unknown = ids.new_id()
    given = [record("l", flow_run_id=execution.flow_run_id, task_run_id=task) for task in (own, theirs, nobodys)]
    given += [record("l", flow_run_id=child, task_run_id=task) for task in (below, theirs, unknown)]
    raw = [
        RawLine(stream=Stream.STDERR, cursor=LogCursor(1_000 * (number + 1), 1), text=text)
        for number, text in enumerate(given)
    ]
    desk = Desk(world)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.run)
        await desk.writer.follow(execution, stream(raw), deaf)
        await desk.writer.flush()
        desk.scope.cancel()
    found = await world.logs.read(lambda tx: tx.all("SELECT message, task_run_id FROM log_lines ORDER BY id"))
    assert [row[0] for row in found] == ["l"] * 6
    assert [row[1] for row in found] == [own, None, nobodys, below, None, unknown]


async def test_a_record_counts_with_its_name_and_a_strangers_as_it_was_printed(world: World) -> None:
    execution, stranger = await world.claimed(), await world.run()
    escaped = json.dumps({**json.loads(record("\u20ac" * 100)[1:]), "flow_run_id": stranger})
    given = [record("m", name="n" * 300), record("m", name="n" * 1_001), RECORD_MARK + escaped]
    raw = [
        RawLine(stream=Stream.STDERR, cursor=LogCursor(1_000 * (number + 1), 1), text=text)
        for number, text in enumerate(given)
    ]
    desk = Desk(world)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.run)
        await desk.writer.follow(execution, stream(raw), deaf)
        await desk.writer.flush()
        desk.scope.cancel()
    stored = await world.logs.read(lambda tx: tx.all("SELECT name, message FROM log_lines ORDER BY id"))
    assert [tuple(row) for row in stored] == [("n" * 300, "m"), ("stderr", given[1]), ("stderr", given[2])]
    size = await world.logs.read(lambda tx: log_sizes.size(tx, execution.flow_run_id))
    assert size == 3 * LINE_OVERHEAD_BYTES + 301 + len(given[1]) + len(given[2])


async def test_made_up_ids_push_no_child_out_of_memory(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("managedd.engine.log_intake.KNOWN_RUNS", 3)
    execution = await world.claimed()

    def prepare(tx: Any) -> tuple[str, str]:
        task = {"name": "t", "flow_run_id": execution.flow_run_id, "task_key": "k", "dynamic_key": "0"}
        made = rows.insert(tx, TASK_RUN, task)
        return made, rows.insert(tx, FLOW_RUN, {"name": "c", "flow_id": world.flow_id, "parent_task_run_id": made})

    task, child = await world.write(prepare)
    asked = 0

    class Counting:
        def __getattr__(self, name: str) -> Any:
            nonlocal asked
            asked += 1
            return getattr(world.db, name)

    descendants = Descendants(Counting(), execution)  # type: ignore[arg-type]
    for _ in range(10):
        assert not await descendants.include(ids.new_id())
    before = asked
    for _ in range(5):
        assert await descendants.include(child)
        assert await descendants.admit_task_run(task)
        assert not await descendants.include(ids.new_id())
    assert asked - before == 2 + 5
