"""Events go into their indexes here, many at a time, some moments after they were stored.

A query does not depend on it: it puts what is missing in itself. This keeps what it finds missing small.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from managedd.bus import Bus, Topic
from managedd.errors import ManagedError
from managedd.observe import get_log
from managedd.orchestration import lifecycle
from managedd.store import events

if TYPE_CHECKING:
    from managedd.store.database import Database

log = get_log("event_index")

REST_SECONDS: Final = 1.0
"""How long events are gathered: what comes together costs little more than one."""


async def keep(db: Database, bus: Bus) -> None:
    """What is left to be told is told, and the indexes of events follow, until cancelled. A failing store is waited for."""
    with bus.subscribe(Topic.EVENTS) as woken:
        while True:
            try:
                await lifecycle.tell_rest(db)
                await events.settle(db)
            except ManagedError as error:
                log.warning("indexing.postponed", reason=error.message)
                woken.wake()
            await anyio.sleep(REST_SECONDS)
            await woken.wait()
