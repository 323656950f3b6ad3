"""What `managedd doctor` finds of this host, asked for over the API: one examination at a time, and the last report is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from managedd.clock import iso
from managedd.errors import conflict, unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from managedd.clock import Clock

    Examine = Callable[[], Awaitable[dict[str, Any]]]


class Examinations:
    """Belongs to the event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.examine: Examine | None = None
        """Set by whoever starts a daemon that can; returns the report as `managedd doctor --json` prints it."""
        self.last: dict[str, Any] | None = None
        """None: there was none yet."""
        self.is_under_way = False

    async def make(self) -> dict[str, Any]:
        """The report of an examination that is made now. Raises ManagedError(CONFLICT, UNAVAILABLE)."""
        if self.examine is None:
            raise unavailable("This daemon can't examine its host: `managedd doctor` can")
        if self.is_under_way:
            raise conflict("An examination is under way: its report comes soon")
        self.is_under_way = True
        try:
            self.last = {"made": iso(self._clock.now_us()), **await self.examine()}
        finally:
            self.is_under_way = False
        return self.last
