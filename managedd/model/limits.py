"""Limits as values: the token bucket that slots, compute minutes and start rates all are, and the plan that sizes a workspace's."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

SECOND_US: Final = 1_000_000
MINUTES_AN_HOUR: Final = 60
MAX_TIME_LIMIT_SECONDS: Final = 3660 * 86_400
"""The longest time limit that anybody may set or ask for."""
AWAITING_HOURS: Final = "AwaitingComputeHours"
AWAITING_HOST: Final = "AwaitingHostCapacity"
"""Names of SCHEDULED: what a run waits for, with the reason in the state's message."""
SLACK: Final = 1e-9
"""What a sum of fractions (of processors, of starts) may be off by: it keeps nobody out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBucket:
    """So many tokens at most, so many of them taken. It is made from rows each time it is asked; nothing is counted beside them.

    Slots: what is taken comes back when a run ends, so the rows say it anew. Compute minutes: all of it comes back at one moment, the
    month's end. A start rate: tokens come back one by one, `refill_per_second`, up to `capacity`.
    """

    capacity: float | None
    """None: never empty."""
    taken: float = 0.0
    refill_per_second: float = 0.0
    as_of_us: int = 0
    """When `taken` was true."""
    renewed_at_us: int | None = None
    """When everything comes back at once; None: never by itself."""

    def at(self, now_us: int) -> TokenBucket:
        """The bucket then; a moment before `as_of_us` (a clock set back) gives nothing back and takes nothing."""
        if now_us <= self.as_of_us:
            return self
        if self.renewed_at_us is not None and now_us >= self.renewed_at_us:
            return replace(self, taken=0.0, as_of_us=now_us, renewed_at_us=None)
        back = (now_us - self.as_of_us) / SECOND_US * self.refill_per_second
        return replace(self, taken=max(0.0, self.taken - back), as_of_us=now_us)

    def free(self, now_us: int) -> float:
        """How many tokens are there then; negative where more was taken than there was (a limit that was lowered, minutes overrun)."""
        if self.capacity is None:
            return float("inf")
        return self.capacity - self.at(now_us).taken

    def has(self, tokens: float, now_us: int) -> bool:
        """Whether so many tokens are there then. A bucket that is smaller than that never has them."""
        return self.free(now_us) >= tokens - SLACK

    def take(self, tokens: float, now_us: int) -> TokenBucket:
        """The bucket after they were taken, whether they were there or not: what has happened has happened."""
        now = self.at(now_us)
        return replace(now, taken=now.taken + tokens)

    def ready_us(self, tokens: float, now_us: int) -> int | None:
        """When so many tokens will be there if nobody takes or gives back any; None: not by itself."""
        if self.has(tokens, now_us):
            return now_us
        assert self.capacity is not None
        moments = []
        if tokens <= self.capacity:
            if self.refill_per_second > 0:
                seconds = (tokens - self.free(now_us)) / self.refill_per_second
                moments.append(max(now_us, self.as_of_us) + math.ceil(seconds * SECOND_US))
            if self.renewed_at_us is not None:
                moments.append(self.renewed_at_us)
        return min(moments, default=None)


class OnExhausted(StrEnum):
    """What becomes of runs under way when the compute hours are used up."""

    FINISH = "finish"
    STOP = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The limits of a workspace; None: no limit."""

    name: str
    concurrent_runs: int | None = None
    """Runs of managed pools at the same time."""
    managed_pools: int | None = None
    compute_hours: float | None = None
    """Each calendar month."""
    on_exhausted: OnExhausted = OnExhausted.FINISH
    memory_limit_bytes: int | None = None
    """The most that a run may ask for."""
    time_limit_seconds: int | None = None
    """The longest that a run may take."""
    start_burst: int | None = None
    starts_per_minute: float | None = None
    """After `start_burst` starts at once, so many a minute; both or neither."""
    images: tuple[str, ...] | None = None
    """Patterns of the images that runs may use, `*` for any characters; None: any image."""

    @property
    def compute_minutes(self) -> float | None:
        """`compute_hours` in minutes, without the last digits that a fraction of an hour may bring."""
        return None if self.compute_hours is None else round(self.compute_hours * MINUTES_AN_HOUR, 6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a run reserves of the host while it runs."""

    memory_bytes: int
    cpus: float
    varies: bool = field(default=False, compare=False)
    """It comes from a variable or a block, or could not be told: it may be another one at any time, and nobody says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLimits:
    """What all runs together may reserve; None: no limit."""

    memory_bytes: int | None = None
    cpus: float | None = None
    run_memory_bytes: int | None = None
    """What a run reserves that asks for nothing, where its plan does not allow less; None: not known."""
    run_cpus: float | None = None
    run_seconds: int | None = None
    """How long a run may take at most, whatever its plan allows; None: not known."""


def effective_slots(slots: int | None, host: HostLimits, each: Needs) -> tuple[int | None, str | None]:
    """How many runs that need as much as `each` can really go at once, and what keeps it below `slots`; None, None: nothing does."""
    rooms = {
        "memory": None
        if host.memory_bytes is None or not each.memory_bytes
        else host.memory_bytes // each.memory_bytes,
        "processors": None if host.cpus is None or not each.cpus else int(host.cpus / each.cpus + SLACK),
    }
    known = {what: room for what, room in rooms.items() if room is not None}
    least = min(known, key=lambda what: known[what], default=None)
    if least is None or (slots is not None and slots <= known[least]):
        return slots, None
    return known[least], least


def left_over(wanted: float, held: Iterable[float], unit: float) -> float:
    """Somebody waits until `wanted` more is free, and of those that hold something any may end: how much is left over at least when there is
    enough, whoever has ended. What takes no more of it keeps nobody waiting. In whole units, so that it is soon reckoned; never too much."""
    sums, parts = 1, 0
    for size in held:
        # Bit n: some of them hold n units together.
        sums |= sums << int(size / unit + SLACK)
        parts += abs(size / unit - round(size / unit)) > SLACK
    least = max(0, math.ceil(wanted / unit - SLACK) - parts)
    enough = sums >> least
    if not enough:
        return 0.0
    return max(0.0, (least + (enough & -enough).bit_length() - 1) * unit - wanted)
