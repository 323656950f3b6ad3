"""When each key was used last: noted in memory at every request, written now and then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from managedd.store import keys

if TYPE_CHECKING:
    from managedd.clock import Clock
    from managedd.store.database import Database

WRITE_SECONDS: Final = 30.0
"""At most that much of it is lost with the process."""


class KeyUses:
    """Uses that are not written yet; at most one for each key. Belongs to the event loop."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._uses: dict[str, int] = {}
        self._some = anyio.Event()

    def note(self, key_id: str) -> None:
        """The key was used now."""
        self._uses[key_id] = self._clock.now_us()
        self._some.set()

    async def run(self) -> None:
        """Writes for as long as it is not cancelled, and once more then; asleep while no key is used."""
        try:
            while True:
                await self._some.wait()
                await self.write()
                await anyio.sleep(WRITE_SECONDS)
        finally:
            with anyio.CancelScope(shield=True):
                await self.write()

    async def write(self) -> None:
        """The store knows all uses so far."""
        self._some = anyio.Event()
        uses, self._uses = self._uses, {}
        if uses:
            await self._db.write(lambda tx: keys.note_uses(tx, uses))
