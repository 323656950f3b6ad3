"""The processes of a run on this host: who they are, what they use, and their end.

Placed beside the supervisor of a run and executed by the run's own Python (3.9 or newer), and used by the daemon: standard library alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MARK = "RUN_EXECUTION_ID"
"""The variable that every process of a run inherits: who has left the family is found by it."""
STILL_ROUNDS = 20
"""So often a family that grows while it is being stopped is gone through."""
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")
PSS_FROM = 0.8
"""From this share of the limit on, memory that processes share is counted once: dearer to ask, and only then decisive."""


class Usage(NamedTuple):
    """What a family uses now. Bytes; CPU in seconds; threads count as the kernel's limit counts them."""

    memory_bytes: int
    cpu_seconds: float
    tasks: int


class Stat(NamedTuple):
    """A line of /proc/PID/stat, as far as it matters here."""

    state: str
    parent: int
    terminal: int
    cpu_ticks: int
    threads: int
    started_ticks: int


def stat_of(pid: int) -> Stat | None:
    """What the kernel says of the process; None when there is none."""
    text = _read(f"/proc/{pid}/stat")
    # The name stands in parentheses and may hold any character, parentheses too.
    fields = text[text.rfind(b")") + 2 :].split()
    if len(fields) < 20:
        return None
    numbers = list(map(int, fields[1:20]))
    return Stat(fields[0].decode(), numbers[0], numbers[3], sum(numbers[10:14]), numbers[16], numbers[18])


def descendants(root: int) -> list[int]:
    """Every process below `root`, whatever session it is in: with a subreaper at the root none can leave."""
    found: list[int] = []
    waiting = [root]
    children = _children if os.path.exists(f"/proc/{root}/task/{root}/children") else _children_of_all()
    while waiting:
        below = children(waiting.pop())
        found += below
        waiting += below
    return found


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        # Each thread has its own children.
        for task in os.listdir(f"/proc/{pid}/task"):
            found += map(int, _read(f"/proc/{pid}/task/{task}/children").split())
    return found


def _children_of_all() -> Callable[[int], list[int]]:
    """For kernels without `children` files: every process is asked for its parent, once."""
    below: dict[int, list[int]] = {}
    for pid in processes():
        if (stat := stat_of(pid)) is not None:
            below.setdefault(stat.parent, []).append(pid)
    return lambda pid: below.get(pid, [])


def processes() -> list[int]:
    """Every process that we may see."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def usage(pids: list[int], limit_bytes: int | None) -> Usage:
    """What those processes use: resident and swapped memory by the sum of their pages, near the limit by their share of each page."""
    cpu_ticks = tasks = 0
    for pid in pids:
        if (stat := stat_of(pid)) is not None:
            cpu_ticks += stat.cpu_ticks
            tasks += stat.threads
    swaps = _has_swap()
    memory = sum(_resident(pid) + (_swapped(pid) if swaps else 0) for pid in pids)
    if limit_bytes is not None and memory > limit_bytes * PSS_FROM:
        memory = min(memory, sum(_proportional(pid) for pid in pids))
    return Usage(memory, cpu_ticks / TICKS, tasks)


def _resident(pid: int) -> int:
    fields = _read(f"/proc/{pid}/statm").split()
    return int(fields[1]) * PAGE_BYTES if len(fields) > 1 else 0


def _has_swap() -> bool:
    """Whether the host has a place to swap to: below its heading each one has a line."""
    return _read("/proc/swaps").count(b"\n") > 1


def _swapped(pid: int) -> int:
    return _kibibytes(f"/proc/{pid}/status", b"VmSwap:") or 0


def _proportional(pid: int) -> int:
    path = f"/proc/{pid}/smaps_rollup"
    share = _kibibytes(path, b"Pss:", b"SwapPss:")
    return _resident(pid) + _swapped(pid) if share is None else share


def _kibibytes(path: str, *names: bytes) -> int | None:
    """The sum of those lines of a file of the kernel's, in bytes; None when it has none of them."""
    found = [line.split() for line in _read(path).splitlines() if line.startswith(names)]
    return sum(int(words[1]) for words in found) * 1024 if found else None


def kill(pids: list[int], number: int) -> None:
    """Each of them got the signal, if it was still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def kill_below(root: int) -> None:
    """Every process below `root` was sent SIGKILL; they are stopped first, so that none is born meanwhile."""
    stopped: set[int] = set()
    for _ in range(STILL_ROUNDS):
        new = [pid for pid in descendants(root) if pid not in stopped]
        if not new:
            break
        kill(new, signal.SIGSTOP)
        stopped.update(new)
    kill(descendants(root), signal.SIGKILL)


def marked(execution_id: str, folder: str, since_ticks: int | None = None) -> list[int]:
    """The processes of that execution, by the variable they inherited or by standing in its folder; never ourselves.

    Who stands there at a terminal, as another user, or since before the run has begun (`since_ticks`), is somebody who looks around or
    makes a copy.
    """
    wanted = f"{MARK}={execution_id}".encode()
    found = []
    for pid in processes():
        if pid == os.getpid():
            continue
        stat = stat_of(pid)
        if stat is None or stat.state in "ZX":
            continue
        is_ours = wanted in _read(f"/proc/{pid}/environ").split(b"\0")
        if not is_ours and stat.terminal == 0 and stat.started_ticks >= (since_ticks or 0):
            with contextlib.suppress(OSError):
                place = os.readlink(f"/proc/{pid}/cwd")
                stands_there = place == folder or place.startswith(folder + "/")
                is_ours = stands_there and os.stat(f"/proc/{pid}").st_uid == os.geteuid()
        if is_ours:
            found.append(pid)
    return found


def members(groups: Iterable[str]) -> list[int]:
    """The processes in those control groups; never ourselves."""
    # Who is in none of our namespaces is a zero.
    pids = {int(pid) for group in groups for pid in _read(os.path.join(group, "cgroup.procs")).split()}
    return [pid for pid in pids - {0, os.getpid()} if (stat := stat_of(pid)) is not None and stat.state not in "ZX"]


def kill_marked(
    execution_id: str, folder: str, seconds: float, *, groups: Iterable[str] = (), since_ticks: int | None = None
) -> bool:
    """Nothing of the execution runs any more; False when something could not be killed in that time."""
    deadline = time.monotonic() + seconds
    groups = tuple(groups)
    while True:
        for group in groups:
            with contextlib.suppress(OSError):
                place = os.open(os.path.join(group, "cgroup.kill"), os.O_WRONLY | os.O_CLOEXEC)
                with open(place, "wb", buffering=0) as file:
                    file.write(b"1")
        found = [*marked(execution_id, folder, since_ticks), *members(groups)]
        # Who left the folder and cleared its environment is found in the groups, or below those who did not.
        family = {*found, *(pid for each in found for pid in descendants(each))}
        if not family:
            return True
        if time.monotonic() > deadline:
            return False
        kill(list(family), signal.SIGSTOP)
        kill(list(family), signal.SIGKILL)
        time.sleep(0.02)


def own_start_ticks() -> int:
    """When we were started, in the kernel's ticks since the host was."""
    stat = stat_of(os.getpid())
    return 0 if stat is None else stat.started_ticks


def boot_id() -> str:
    """What names the time since the host has started; empty where it does not say."""
    return _read("/proc/sys/kernel/random/boot_id").decode().strip()


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError:
        return b""
