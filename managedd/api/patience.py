"""The readers that followers share go on when the store can't be asked for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from managedd.errors import ErrorCode, ManagedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from managedd.bus import Subscription


async def done(look: Callable[[], Awaitable[None]], woken: Subscription, log: Any, event: str, **about: str) -> bool:
    """Whether `look` came to its end; if the store was busy or away, that was logged as `event`, and `woken` wakes for the next one.

    Raises what `look` raises else.
    """
    try:
        await look()
    except ManagedError as error:
        if error.code is not ErrorCode.UNAVAILABLE:
            raise
        log.warning(event, reason=error.message, **about)
        woken.wake()
        await anyio.sleep(error.retry_after_seconds or 1.0)
        return False
    return True
