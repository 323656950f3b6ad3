"""Secrets that stand in clear are sealed, and a rotation of the key goes on, as soon as there is any: also one that a crash came into."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from managedd.bus import Bus, Topic
from managedd.errors import ManagedError
from managedd.observe import get_log
from managedd.store import sealing, unlocking

if TYPE_CHECKING:
    from pathlib import Path

    from managedd.store.database import Database

log = get_log("secrets")

REST_SECONDS: Final = 30.0
"""After a failure: a store that is busy, or an envelope that does not open until somebody has repaired it."""


async def at_start(db: Database) -> None:
    """What an earlier version left in clear is sealed, before anybody is served."""
    if rows := await sealing.seal_all(db):
        log.info("secrets.sealed", rows=rows)


async def keep(db: Database, bus: Bus, data_dir: Path) -> None:
    """Whatever comes to be sealed, or to be sealed anew, is, until cancelled."""
    with bus.subscribe(Topic.SECRETS) as woken:
        woken.wake()
        while True:
            await woken.wait()
            try:
                await at_start(db)
                if rows := await unlocking.rotate(db, data_dir):
                    log.info("secrets.rotated", rows=rows, key=db.vault.ring.current.id)
            except ManagedError as error:
                log.warning("secrets.postponed", reason=error.message, again_in_seconds=REST_SECONDS)
                await anyio.sleep(REST_SECONDS)
                woken.wake()
