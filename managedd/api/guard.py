"""Whoever tells wrong credentials again and again waits: guessing gets slower, and those who have shown a right one notice nothing.

Bounded: it remembers so many addresses and so many credentials (hashes), and forgets those that were not seen for longest.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from managedd.errors import ErrorCode, ManagedError
from managedd.observe import get_log

if TYPE_CHECKING:
    from managedd.clock import Clock

log = get_log("guard")

TRIES: Final = 20
"""So many wrong credentials an address may tell at once."""
SECONDS_PER_TRY: Final = 3.0
"""So often it may tell another one after that."""
ADDRESSES: Final = 10_000
CREDENTIALS: Final = 10_000
IPV6_PREFIX: Final = 64
"""One host has that many addresses to choose from."""


class Guard:
    """Who guesses. Belongs to the event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._spent: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Address → tries that are spent, and when that was so (monotonic seconds)."""
        self._right: OrderedDict[str, None] = OrderedDict()
        """Hashes of credentials that have opened something."""

    def check(self, address: str | None, hashed: str) -> None:
        """Returns when the address may tell this credential. Raises ManagedError(TOO_MANY)."""
        if not self._spent or hashed in self._right:
            return
        over = self._tries(source(address)) - TRIES + 1
        if over > 0:
            raise ManagedError(
                ErrorCode.TOO_MANY,
                "Too many wrong credentials came from this address: try again later",
                retry_after_seconds=math.ceil(over * SECONDS_PER_TRY),
            )

    def failed(self, address: str | None, hashed: str) -> None:
        """The address has told a wrong credential, whatever it was before."""
        self._right.pop(hashed, None)
        whose = source(address)
        # Whoever goes on is not held up for longer: others may share the address.
        tries = min(self._tries(whose) + 1, TRIES)
        if tries >= TRIES:
            log.warning("credentials.guessed", address=whose)
        self._spent[whose] = (tries, self._clock.monotonic())
        _bound(self._spent, whose, ADDRESSES)

    def passed(self, hashed: str) -> None:
        """The credential has opened something."""
        self._right[hashed] = None
        _bound(self._right, hashed, CREDENTIALS)

    def _tries(self, whose: str) -> float:
        tries, since = self._spent.get(whose, (0.0, 0.0))
        return max(0.0, tries - (self._clock.monotonic() - since) / SECONDS_PER_TRY)


def _bound(kept: OrderedDict[str, Any], newest: str, limit: int) -> None:
    kept.move_to_end(newest)
    if len(kept) > limit:
        kept.popitem(last=False)


def source(address: str | None) -> str:
    """Whose tries count together: an address, of IPv6 its network."""
    try:
        known = ipaddress.ip_address(address or "")
    except ValueError:
        return address or "local"
    if known.version == 4:
        return str(known)
    return str(ipaddress.ip_network((known, IPV6_PREFIX), strict=False))
