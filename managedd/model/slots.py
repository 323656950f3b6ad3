"""A concurrency limit at one moment: what is taken of it, and how long to wait when it is full. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

MAX_WAIT_SECONDS = 30.0
"""The longest that a client is told to wait for slots that are given back, not decayed."""
MIN_OCCUPANCY_SECONDS = 0.1
OCCUPANCY_SAMPLES_PER_SLOT = 2
MAX_DECAY_WAIT_SECONDS = 86_400.0
"""The longest that a client is told to wait for slots that decay: it may be very slowly."""
_TINY = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotLimit:
    """One limit as it is stored, with the slots of its live leases counted."""

    id: str
    name: str
    limit: int
    active: bool
    decay_per_second: float
    """Above 0: taken slots come back by themselves at this rate, leased or not."""
    unleased: float
    """Slots taken without a lease, or of a decaying limit, as of `as_of_us`."""
    denied: float
    """Slots that were asked for in vain lately, as of `as_of_us`."""
    as_of_us: int
    leased: int
    average_occupancy_seconds: float

    @property
    def decays(self) -> bool:
        """Whether taken slots come back by themselves."""
        return self.decay_per_second > 0

    def unleased_at(self, now_us: int) -> float:
        """The slots taken without a lease at `now_us`; fractions of a decaying one are not lost."""
        return max(0.0, self.unleased - self.decay_per_second * self._seconds_to(now_us))

    def denied_at(self, now_us: int) -> float:
        """The denied slots at `now_us`: forgotten at the rate at which slots become free."""
        rate = self.decay_per_second or 1 / self._wait_per_slot()
        return max(0.0, self.denied - rate * self._seconds_to(now_us))

    def taken(self, now_us: int) -> float:
        """All slots taken at `now_us`."""
        return self.unleased_at(now_us) + (0 if self.decays else self.leased)

    def shown(self, now_us: int) -> int:
        """The taken slots as a whole number: one that has not wholly decayed counts."""
        return math.ceil(self.taken(now_us) - _TINY)

    def has_room(self, slots: int, now_us: int) -> bool:
        """Whether `slots` more can be taken at `now_us`."""
        return self.taken(now_us) + slots <= self.limit + _TINY

    def wait_seconds(self, slots: int, now_us: int) -> float:
        """When to ask again for `slots` that are not free at `now_us`, given who else asked."""
        denied = self.denied_at(now_us)
        if self.decays:
            waiting = max(0.0, self.taken(now_us) + slots - self.limit) + denied
            return min(waiting / self.decay_per_second, MAX_DECAY_WAIT_SECONDS)
        return min(self._wait_per_slot() * (slots + denied) / max(1, self.limit), MAX_WAIT_SECONDS)

    def average_after(self, slots: int, occupancy_seconds: float) -> float:
        """The average occupancy of a slot once `slots` were held for `occupancy_seconds`."""
        sample = max(occupancy_seconds / max(1, slots), MIN_OCCUPANCY_SECONDS)
        samples = max(1, self.limit * OCCUPANCY_SAMPLES_PER_SLOT)
        return self.average_occupancy_seconds + (sample - self.average_occupancy_seconds) / samples

    def _wait_per_slot(self) -> float:
        return max(MIN_OCCUPANCY_SECONDS, min(self.average_occupancy_seconds, MAX_WAIT_SECONDS))

    def _seconds_to(self, now_us: int) -> float:
        return max(0, now_us - self.as_of_us) / 1_000_000
