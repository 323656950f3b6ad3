"""The stopwatch: for how long a container runs, on the monotonic clock, and for how long it was seen to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from managedd.model.metering import Watched

if TYPE_CHECKING:
    from managedd.clock import Clock

SECOND_US = 1_000_000


class Stopwatch:
    """One container's, while somebody watches it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began: float | None = None
        self._seen_us = 0
        self._ended_us: int | None = None

    def begin(self, ran_us: int = 0) -> None:
        """It runs, and has for `ran_us`; the first time counts."""
        if self._began is not None:
            return
        self._began = self._clock.monotonic() - ran_us / SECOND_US
        self._seen_us = ran_us

    def end(self) -> None:
        """It was noticed that it has ended; the first time counts."""
        if self._ended_us is None:
            self._ended_us = self.elapsed_us

    @property
    def elapsed_us(self) -> int | None:
        """How long it has run, if it still does; None: it was never seen."""
        return None if self._began is None else round((self._clock.monotonic() - self._began) * SECOND_US)

    @property
    def seen_us(self) -> int | None:
        """How long it was seen to run; None: it was never seen."""
        return None if self._began is None else self._seen_us

    @property
    def noted(self) -> tuple[int, int] | None:
        """The same, and how long ago that was."""
        seen_us, elapsed_us = self.seen_us, self.elapsed_us
        return None if seen_us is None or elapsed_us is None else (seen_us, max(0, elapsed_us - seen_us))

    def see(self, elapsed_us: int | None) -> None:
        """It did run when `elapsed_us` had gone by."""
        self._seen_us = max(self._seen_us, elapsed_us or 0)

    def watched(self) -> Watched | None:
        """What was seen of an end; None: it had ended before."""
        if self._began is None:
            return None
        return Watched(seen_us=self._seen_us, noticed_us=self._ended_us)
