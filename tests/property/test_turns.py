"""Who waits for the host, in simulations: a crowd that has waited long delays nobody else, and nobody is starved by smaller ones."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from managedd import ids
from managedd.engine.order import OVERDUE_SECONDS
from managedd.engine.turns import RIGHT_OF_WAY_SECONDS
from managedd.model.limits import HostLimits, Needs
from managedd.store import rows
from managedd.store.resources import FLOW
from managedd.store.workspaces import create
from tests.engine.test_dispatcher import Desk, end
from tests.engine.test_families import task_of
from tests.engine.test_limits_hold import GIB, advance
from tests.engine.test_waiting import Sizes
from tests.engine.world import open_world
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from tests.engine.world import World

FOREVER = 1_000_000
MOST_ENDS = 400


@dataclass
class Host:
    """A host of so many GiB, and what its workspaces run: each run takes so many GiB and so many seconds."""

    world: World
    gib: int
    queues: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    """Workspace, queue and flow by name."""
    owner: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, int] = field(default_factory=dict)
    ends_at: dict[str, float] = field(default_factory=dict)
    claimed_at: dict[str, float] = field(default_factory=dict)
    ended: int = 0

    def __post_init__(self) -> None:
        self.sizes = Sizes(Needs(memory_bytes=GIB, cpus=1))
        self.desk = Desk(self.world, needs=self.sizes, host=HostLimits(memory_bytes=self.gib * GIB))
        self.now = 0.0

    async def workspace(self, name: str) -> None:
        made = ids.new_id()
        await self.world.db.write(
            lambda tx: create(tx, account_id=ids.new_id(), account=name, workspace_id=made, handle=name, plan="pro")
        )
        self.world.workspace = made
        flow = await self.world.write(lambda tx: rows.insert(tx, FLOW, {"name": "f"}))
        self.queues[name] = made, (await self.world.pool("p"))[1], flow

    async def run(self, name: str, gib: int, seconds: int, *, parent: str | None = None) -> str:
        self.world.workspace, queue, flow = self.queues[name]
        task_run = None if parent is None else await task_of(self.world, parent)
        run_id = await self.world.run(queue_id=queue, flow_id=flow, parent_task_run_id=task_run)
        self.sizes.of[run_id] = Needs(memory_bytes=gib * GIB, cpus=1)
        self.owner[run_id], self.seconds[run_id] = name, seconds
        return run_id

    async def look(self) -> list[str]:
        """Who was claimed just now."""
        while await self.desk.dispatcher.tick():
            pass
        claimed = [run_id for run_id in self.desk.claimed if run_id not in self.claimed_at]
        for run_id in claimed:
            self.claimed_at[run_id] = self.now
            self.ends_at[run_id] = self.now + self.seconds[run_id]
        held = sum(self.sizes.of[run_id].memory_bytes for run_id in self.ends_at)
        assert held <= self.gib * GIB
        return claimed

    async def pass_time(self, seconds: float) -> None:
        self.now += seconds
        advance(self.world, seconds)

    async def next_end(self) -> str:
        """Time passes until a run ends; its name, and the look that follows is the caller's."""
        run_id = min(self.ends_at, key=lambda each: (self.ends_at[each], each))
        await self.pass_time(self.ends_at.pop(run_id) - self.now)
        self.world.workspace = self.queues[self.owner[run_id]][0]
        await end(self.world, run_id)
        self.ended += 1
        assert self.ended < MOST_ENDS, "it comes to no end"
        return run_id

    async def until_claimed(self, run_id: str, again: Callable[[str], Coroutine[Any, Any, None]] | None = None) -> None:
        """Run after run ends, until that one is claimed; `again` may follow each by another."""
        await self.look()
        while run_id not in self.claimed_at:
            ended = await self.next_end()
            if again is not None:
                await again(ended)
            await self.look()


async def simulate(gib: int, body: Callable[[Host], Coroutine[Any, Any, None]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with open_world(Path(folder), ManualClock()) as world:
            await body(Host(world, gib))


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_a_crowd_that_has_waited_long_does_not_delay_the_one_run_of_another_workspace(data: st.DataObject) -> None:
    gib = data.draw(st.integers(3, 6), "gib of the host")
    crowds = data.draw(st.integers(1, 2), "workspaces with a crowd")
    wanted = data.draw(st.integers(1, gib), "gib of the one run")
    sizes, lasts = st.integers(1, 2), st.sampled_from([45, 90, 200, 900])
    # Enough of them to be there yet when the one should be gone.
    crowd = data.draw(st.lists(st.tuples(sizes, lasts), min_size=24, max_size=24), "crowd")
    longest = max(seconds for _, seconds in crowd)

    async def body(host: Host) -> None:
        for number in range(crowds):
            await host.workspace(f"crowd{number}")
        await host.workspace("one")
        for number, (size, seconds) in enumerate(crowd):
            await host.run(f"crowd{number % crowds}", size, seconds)
        await host.look()
        while host.now < OVERDUE_SECONDS and len(host.claimed_at) < len(crowd) // 2:
            await host.next_end()
            await host.look()
        due, ended = host.now, host.ended
        one = await host.run("one", wanted, 60)
        await host.until_claimed(one)
        assert host.claimed_at[one] - due <= RIGHT_OF_WAY_SECONDS + longest
        if wanted == 1:
            assert host.ended - ended <= 1, "the first place that is free is its own"

    anyio.run(simulate, gib, body)


@settings(max_examples=6, deadline=None)
@given(
    held=st.integers(0, 2),
    streams=st.integers(1, 4),
    sizes=st.lists(st.integers(1, 2), min_size=4, max_size=4),
    seconds=st.lists(st.sampled_from([100, 150, 240]), min_size=4, max_size=4),
)
def test_nobody_is_starved_by_a_stream_of_smaller_ones(
    held: int, streams: int, sizes: list[int], seconds: list[int]
) -> None:
    """The streams' workspaces hold less whenever a place becomes free, and there is always a next one."""

    async def body(host: Host) -> None:
        await host.workspace("large")
        for number in range(streams):
            await host.workspace(f"stream{number}")
        for _ in range(held):
            await host.run("large", 1, FOREVER)

        async def small(name: str) -> None:
            number = int(name.removeprefix("stream"))
            await host.run(name, sizes[number], seconds[number])

        for number in range(streams):
            for _ in range(2):
                await small(f"stream{number}")
        await host.look()
        due = host.now
        large = await host.run("large", 8 - held, 60)
        await host.until_claimed(large, lambda ended: small(host.owner[ended]))
        waited = host.claimed_at[large] - due
        assert waited <= OVERDUE_SECONDS * max(1, held) + RIGHT_OF_WAY_SECONDS + 2 * max(seconds)

    anyio.run(simulate, 8, body)


def test_long_runs_of_a_workspace_do_not_add_up_while_others_of_that_size_wait() -> None:
    """Its crowd waits for hours, and each of its runs stays: it is given no place that a workspace that holds less waits for."""

    async def body(host: Host) -> None:
        for name in ("long", "short"):
            await host.workspace(name)
        for _ in range(8):
            await host.run("long", 1, FOREVER)
        await host.look()
        # What it has it keeps, four of eight; the others come later.
        for run_id in list(host.claimed_at)[:4]:
            host.ends_at[run_id] = host.now
        for _ in range(20):
            await host.run("long", 1, FOREVER)
        for _ in range(4):
            await host.run("short", 1, 240)
        for _ in range(4):
            await host.next_end()
        await host.look()
        holds = [host.owner[run_id] for run_id in host.ends_at].count("long")
        while host.now < 5 * OVERDUE_SECONDS:
            ended = await host.next_end()
            assert host.owner[ended] == "short"
            await host.run("short", 1, 240)
            await host.look()
        assert [host.owner[run_id] for run_id in host.ends_at].count("long") == holds == 4

    anyio.run(simulate, 8, body)


@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_families_that_wait_for_their_children_and_large_runs_all_come_to_their_end(data: st.DataObject) -> None:
    """A parent ends when all its children have, one after the other, and each of these may have children too: nothing waits in a circle."""
    parents = data.draw(st.lists(st.integers(1, 2), min_size=1, max_size=3), "gib of the parents")
    child, depth = data.draw(st.integers(1, 2), "gib of a child"), data.draw(st.integers(1, 2), "generations")
    children = data.draw(st.integers(1, 3), "children of each")
    # However many of them wait, one child more has room.
    gib = sum(parents) + child * (len(parents) * (depth - 1) + 1)
    crowd = data.draw(st.integers(0, 20), "others")
    large = data.draw(st.lists(st.integers(2, gib), min_size=1, max_size=2), "gib of the large ones")

    async def body(host: Host) -> None:
        for name in ("families", "others"):
            await host.workspace(name)
        left: dict[str, tuple[int, int]] = {}
        parent_of: dict[str, str] = {}

        async def made(size: int, generations: int, parent: str | None = None) -> str:
            run_id = await host.run("families", size, FOREVER if generations else 60, parent=parent)
            left[run_id] = (children if generations else 0), generations
            if parent is not None:
                parent_of[run_id] = parent
            return run_id

        async def next_of(run_id: str) -> None:
            """Its next child, or its end."""
            number, generations = left[run_id]
            if number:
                left[run_id] = number - 1, generations
                await made(child, generations - 1, run_id)
            else:
                host.ends_at[run_id] = host.now

        for size in parents:
            await made(size, depth)
        begun = await host.look()
        for number in range(crowd):
            await host.run("others", 1, 60 + number)
        others = [await host.run("others", size, 60) for size in large]
        while True:
            for run_id in begun:
                if run_id in left and left[run_id][1]:
                    await next_of(run_id)
            begun = await host.look()
            if begun:
                continue
            if not host.ends_at:
                break
            assert min(host.ends_at.values()) < FOREVER, "whoever could go on waits for who can't"
            ended = await host.next_end()
            if ended in parent_of:
                await next_of(parent_of[ended])
            begun = await host.look()
        assert set(left) | set(others) <= set(host.claimed_at)

    anyio.run(simulate, gib, body)


def test_a_stream_of_children_does_not_keep_the_host_from_a_large_run_beside_their_parent() -> None:
    async def body(host: Host) -> None:
        for name in ("family", "large"):
            await host.workspace(name)
        parent = await host.run("family", 1, FOREVER)
        await host.look()
        for seconds in (300, 450):
            await host.run("family", 3, seconds, parent=parent)
        await host.look()
        large = await host.run("large", 6, 60)

        async def again(ended: str) -> None:
            if ended != large:
                await host.run("family", 3, 450, parent=parent)

        await host.until_claimed(large, again)
        assert host.claimed_at[large] <= RIGHT_OF_WAY_SECONDS + OVERDUE_SECONDS + 2 * 450

    anyio.run(simulate, 8, body)


@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_who_waits_with_right_of_way_goes_when_its_room_is_there_whatever_others_are_given_meanwhile(
    data: st.DataObject,
) -> None:
    ends = st.lists(st.tuples(st.integers(1, 3), st.integers(100, 140)), min_size=2, max_size=4)
    held, free = data.draw(ends, "gib, minutes"), data.draw(st.integers(1, 3), "gib that are free")
    gib = free + sum(size for size, _ in held)
    wanted = data.draw(st.integers(free + 1, gib), "gib that it waits for")
    arrivals = data.draw(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 90)), max_size=6), "others: gib, minutes")

    async def body(host: Host) -> None:
        for name in ("large", "others"):
            await host.workspace(name)
        for size, minutes in held:
            await host.run("large", size, 60 * minutes)
        await host.look()
        large = await host.run("large", wanted, 60)
        await host.look()
        await host.pass_time(1)
        # They have a turn meanwhile: from then on it goes before them.
        await host.run("others", 1, 60)
        await host.look()
        await host.next_end()
        await host.pass_time(OVERDUE_SECONDS * len(held))
        room, due = free, 0
        for size, minutes in sorted(held, key=lambda pair: pair[1]):
            if room < wanted:
                room, due = room + size, 60 * minutes
        for size, minutes in arrivals:
            await host.run("others", min(size, wanted - 1), 60 * minutes)
        # They are told to wait first.
        await host.look()
        await host.until_claimed(large)
        assert host.claimed_at[large] == due

    anyio.run(simulate, gib, body)


@pytest.mark.parametrize("is_family", [False, True])
def test_room_that_is_of_no_use_to_who_waits_is_kept_from_no_other_workspace(*, is_family: bool) -> None:
    """A crowd of large ones holds all but one place that is too small for them: others use that for hours, and wait for nobody. It is of
    use where one has made another: it may make a larger one next, and end only then."""

    async def body(host: Host) -> None:
        for name in ("crowd", "small", "large"):
            await host.workspace(name)
        first = await host.run("crowd", 2, FOREVER)
        await host.look()
        for _ in range(2):
            await host.run("crowd", 2, FOREVER, parent=first if is_family else None)
        await host.look()
        waiting = [await host.run("crowd", 2, FOREVER) for _ in range(20)]
        waiting += [await host.run("large", 2, FOREVER)]
        await host.look()
        for _ in range(8):
            await host.pass_time(OVERDUE_SECONDS)
            small = await host.run("small", 1, 60)
            # It is told to wait first.
            await host.look()
            await host.look()
            assert not host.claimed_at.keys() & {*waiting}
            assert (small in host.claimed_at) is not is_family
            if small in host.claimed_at:
                assert await host.next_end() == small
                await host.look()

    anyio.run(simulate, 7, body)
