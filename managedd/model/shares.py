"""How room that is short is shared out: who wants little gets it, the others get alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def fair_share(amounts: Iterable[int], room: int) -> int | None:
    """The most that anybody may have of `room`, so that all have room together; None when there is enough for everybody."""
    waiting = sorted(amounts)
    left = room
    for at, amount in enumerate(waiting):
        each = left // (len(waiting) - at)
        if amount > each:
            return each
        left -= amount
    return None
