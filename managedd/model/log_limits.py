"""How much of what a run prints is kept: a rate with bursts, and a size. Pure: times are what the lines carry and what the caller says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

LINE_OVERHEAD_BYTES: Final = 100
"""What a line counts besides its texts, about what the store needs for it: empty lines fill a disk as well."""
TASK_RUN_BYTES: Final = 100
"""What a task run counts besides, with the first line that names it."""
SENDERS: Final = 4_096
"""Of how many executions is remembered how fast they have sent lines by themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLimits:
    """The bounds of one run; None: no bound."""

    lines_per_second: float | None = None
    bytes_per_second: float | None = None
    """Of text."""
    burst_seconds: float = 60.0
    """So many seconds' worth may come at once."""
    max_bytes: int | None = None
    """Of the whole run, with the overhead of its lines."""


NO_LIMITS: Final = LogLimits()


class Excess(StrEnum):
    """Which bound a line is over."""

    LINES = "lines"
    BYTES = "bytes"
    SIZE = "size"


@dataclass(frozen=True, slots=True)
class Dropped:
    """What was dropped and is not told yet."""

    lines: int = 0
    bytes: int = 0

    def __add__(self, other: Dropped) -> Dropped:
        return Dropped(self.lines + other.lines, self.bytes + other.bytes)

    def __neg__(self) -> Dropped:
        return Dropped(-self.lines, -self.bytes)


NOTHING: Final = Dropped()


def size_of(text: str) -> int:
    """Bytes of the text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


def line_bytes(name: str, message: str) -> int:
    """What a line's texts count: a logger's name is as long as its run likes."""
    return size_of(name) + size_of(message)


class LogGate:
    """Which lines of one run are kept.

    The rate is that of printing, by the lines' own times, not that of reading: what has waited while the daemon was away is not held
    against the run. A host whose clock was set back prints lines of the past, of which the time stands still until it has caught up: so
    a line is also kept when the rate at which lines are read has room for it. Once a rate is passed, lines are dropped until a second's
    worth may come again: gaps are few and long enough to be told.
    """

    def __init__(self, limits: LogLimits, stored_bytes: int = 0) -> None:
        self._limits = limits
        self._printing = _Rates(limits)
        self._reading = _Rates(limits)
        self.stored_bytes = stored_bytes
        """What counts against the size, with what is on its way to the store."""
        self._on_the_way_bytes = 0
        self.excess: Excess | None = None
        """Why lines are being dropped; None: they are not."""

    def begin(self, stored_bytes: int) -> None:
        """So much is stored, and nothing is on its way."""
        self.stored_bytes, self._on_the_way_bytes = stored_bytes, 0

    def admit(self, at_ns: int, text_bytes: int, read_at: float, more_bytes: int = 0) -> bool:
        """Whether a line of that time and size is kept, which was read at `read_at`, monotonic seconds; then it counts.

        `more_bytes` is what it takes besides its texts and what every line does.
        """
        self._printing.refill(at_ns)
        self._reading.refill(int(read_at * 1e9))
        size_bytes = text_bytes + more_bytes + LINE_OVERHEAD_BYTES
        self.excess = self._judge(size_bytes)
        if self.excess is not None:
            return False
        self._printing.take(text_bytes)
        self._reading.take(text_bytes)
        self.count(size_bytes)
        return True

    def count(self, size_bytes: int) -> None:
        """A line was kept that takes so much."""
        self.stored_bytes += size_bytes
        self._on_the_way_bytes += size_bytes

    def settle(self, size_bytes: int, stored_bytes: int) -> None:
        """So much of what was kept is stored now, and `stored_bytes` with what others have stored meanwhile."""
        self._on_the_way_bytes -= size_bytes
        self.stored_bytes = stored_bytes + self._on_the_way_bytes

    def _judge(self, size_bytes: int) -> Excess | None:
        most = self._limits.max_bytes
        if self.excess is Excess.SIZE:
            # Also shorter lines that would still fit: what is missing is missing in one piece.
            return Excess.SIZE
        if most is not None and self.stored_bytes + size_bytes > most:
            return Excess.SIZE
        goes_on = self.excess in {Excess.LINES, Excess.BYTES}
        excess = self._printing.excess(goes_on)
        return None if excess is None or self._reading.excess(goes_on) is None else excess


class SentGate:
    """Which of the lines are kept that one execution sends by itself: those for which its rate has room when they come.

    What the size of the log allows, the store knows.
    """

    def __init__(self, limits: LogLimits) -> None:
        self._rates = _Rates(limits)
        self.excess: Excess | None = None
        """Why lines are being dropped; None: they are not."""

    def admit(self, texts_bytes: Sequence[int], at_ns: int) -> int:
        """How many of the lines are kept, from the first on, that come together at that monotonic time; they count."""
        self._rates.refill(at_ns)
        in_all = sum(texts_bytes)
        if self.excess is None and self._rates.hold(len(texts_bytes), in_all):
            self._rates.take(in_all, len(texts_bytes))
            return len(texts_bytes)
        for number, text_bytes in enumerate(texts_bytes):
            self.excess = self._rates.excess(self.excess is not None)
            if self.excess is not None:
                return number
            self._rates.take(text_bytes)
        return len(texts_bytes)


class SentGates:
    """The gates of those who have sent lines last: who comes after `SENDERS` others begins with a whole burst again."""

    def __init__(self, limits: LogLimits) -> None:
        self.limits = limits
        self._gates: dict[str, SentGate] = {}

    def of(self, execution_id: str) -> SentGate:
        """The execution's."""
        gate = self._gates.pop(execution_id, None) or SentGate(self.limits)
        self._gates[execution_id] = gate
        if len(self._gates) > SENDERS:
            del self._gates[next(iter(self._gates))]
        return gate


class _Rates:
    """Both rates by one clock."""

    def __init__(self, limits: LogLimits) -> None:
        self._lines = _Bucket(limits.lines_per_second, limits.burst_seconds)
        self._bytes = _Bucket(limits.bytes_per_second, limits.burst_seconds)

    def refill(self, at_ns: int) -> None:
        self._lines.refill(at_ns)
        self._bytes.refill(at_ns)

    def excess(self, goes_on: bool) -> Excess | None:
        if not self._lines.has_room(goes_on):
            return Excess.LINES
        return None if self._bytes.has_room(goes_on) else Excess.BYTES

    def hold(self, lines: int, text_bytes: int) -> bool:
        return self._lines.holds(lines) and self._bytes.holds(text_bytes)

    def take(self, text_bytes: int, lines: int = 1) -> None:
        self._lines.take(lines)
        self._bytes.take(text_bytes)


class _Bucket:
    """A rate with a burst; a single take may overdraw it."""

    def __init__(self, per_second: float | None, burst_seconds: float) -> None:
        self._per_second = per_second
        self._most = 0.0 if per_second is None else per_second * burst_seconds
        self._again = 0.0 if per_second is None else per_second * min(1.0, burst_seconds)
        self._left = self._most
        self._at_ns = 0

    def refill(self, at_ns: int) -> None:
        if self._per_second is not None and at_ns > self._at_ns:
            gained = (at_ns - self._at_ns) * self._per_second / 1e9
            self._left = min(self._most, self._left + gained)
            self._at_ns = at_ns

    def holds(self, amount: int) -> bool:
        return self._per_second is None or self._left >= max(amount, 1)

    def has_room(self, was_empty: bool) -> bool:
        if self._per_second is None:
            return True
        return self._left >= self._again if was_empty else self._left >= 1

    def take(self, amount: int) -> None:
        left = self._left - amount
        if self._left <= 0:
            # The other clock has let it through. That counts here as well, or both together would let through twice as much; but not
            # without end: a clock that has seen little of what came has its say again in a burst's time.
            left = min(self._left, max(left, -self._most))
        self._left = left


# --- what is said of it ----------------------------------------------------------------------------------------------


def told(dropped: Dropped, excess: Excess | None, limits: LogLimits) -> str:
    """The line that stands where lines were dropped."""
    lines = "1 line" if dropped.lines == 1 else f"{dropped.lines:,} lines"
    return f"{lines} ({_mebibytes(dropped.bytes)}) dropped here: the run printed {_more(excess, limits)}."


def too_fast(excess: Excess | None, limits: LogLimits) -> str:
    """The line that stands where a run has sent its first line for which the rate had no room."""
    return f"This run has sent {_more(excess, limits)} to the API: what is more is dropped, also later on, and counted at the end of this log."


def _more(excess: Excess | None, limits: LogLimits) -> str:
    return {
        Excess.LINES: f"more than {limits.lines_per_second or 0:,.0f} lines a second (runs.log_lines_per_second)",
        Excess.BYTES: f"more than {_mebibytes(limits.bytes_per_second or 0)} a second (runs.log_bytes_per_second)",
        Excess.SIZE: f"more than {_mebibytes(limits.max_bytes or 0)} (runs.log_max_bytes)",
        None: "more than its limits allow (runs.log_…)",
    }[excess]


def full(max_bytes: int) -> str:
    """The line that stands where a run's log became too large."""
    return f"This run's log has reached {_mebibytes(max_bytes)} (runs.log_max_bytes): of what follows, only the very end is kept."


def removed(days: float) -> str:
    """The line that stands where a run's log was, while the run stays."""
    age = "1 day" if days == 1 else f"{days:g} days"
    return f"This run's log was removed {age} after the run had ended (retention.logs_days)."


def told_enough(max_bytes: int) -> str:
    """The line that says that a run has told too much in events."""
    return (
        f"This run has told events of {_mebibytes(max_bytes)} (runs.events_max_bytes): what has no room is left out, also what becomes of its "
        "task runs."
    )


def _mebibytes(count: float) -> str:
    return f"{count / 1024**2:,.1f} MiB" if count >= 104_858 else f"{count:,.0f} bytes"
