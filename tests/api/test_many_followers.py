"""A hundred followers of one run of a real daemon, of whom twenty read nothing: the others get all, and memory stays."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from managedd.clock import SystemClock, iso
from tests.bench.followers import Crowd
from tests.support.daemon import LiveDaemon

if TYPE_CHECKING:
    from collections.abc import Iterator

SOCKETS, STUCK = 100, 20
LINES, BATCH, TEXT_BYTES = 1_200, 40, 5_000
PATIENCE_SECONDS = 240


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[LiveDaemon]:
    made = LiveDaemon(tmp_path, docker_host=None)
    try:
        made.start(engine=False)
        yield made
    finally:
        made.close()


def resident_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024


def test_those_who_read_get_every_line_once_and_those_who_do_not_cost_nothing(daemon: LiveDaemon) -> None:
    flow = daemon.api.post("/flows/", {"name": "busy"})
    run = str(daemon.api.post("/flow_runs/", {"flow_id": flow["id"], "state": {"type": "RUNNING"}})["id"])
    peaks: list[int] = []

    def write(first: int, count: int) -> None:
        now = iso(SystemClock().now_us())
        record = {"name": "n", "level": 20, "timestamp": now, "flow_run_id": run}
        batch = [
            {**record, "message": f"{number} {time.time_ns()} {'x' * TEXT_BYTES}"}
            for number in range(first, first + count)
        ]
        daemon.api.post("/logs/", batch)
        peaks.append(resident_bytes(daemon.pid))

    def write_all() -> None:
        for first in range(BATCH, LINES, BATCH):
            write(first, BATCH)
        daemon.api.post(f"/flow_runs/{run}/set_state", {"state": {"type": "COMPLETED"}, "force": True})

    async def follow() -> int:
        following = asyncio.create_task(crowd.follow())
        await crowd.opened()
        before = resident_bytes(daemon.pid)
        with ThreadPoolExecutor(1) as pool:
            await asyncio.get_running_loop().run_in_executor(pool, write_all)
        await asyncio.wait_for(following, PATIENCE_SECONDS)
        return before

    # What the first request of each kind brings into memory is no part of it.
    write(0, BATCH)
    crowd = Crowd(url=daemon.url, run=run, sockets=SOCKETS, stuck=STUCK)
    before = asyncio.run(follow())
    assert [(one.lines, one.faults) for one in crowd.readers] == [(LINES, 0)] * (SOCKETS - STUCK)
    assert all(one.lines == 0 for one in crowd.followers[:STUCK])
    # Had the daemon queued for those who do not read, it would hold all that was printed for each of them.
    assert max(peaks) - before < STUCK * LINES * TEXT_BYTES / 2
    assert max(peaks) < 2 * before
