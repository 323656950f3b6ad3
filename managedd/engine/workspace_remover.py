"""The rows of workspaces that were deleted go, a little at a time: first those of the state, then the log lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from managedd import failpoints
from managedd.bus import Topic
from managedd.errors import ManagedError
from managedd.observe import get_log
from managedd.store import logs, workspace_removal

if TYPE_CHECKING:
    from managedd.bus import Bus
    from managedd.store.database import Database

log = get_log("workspace_remover")

INTERVAL_SECONDS: Final = 60.0
"""How often it is looked whether something came in late, and whether the last row may go."""
WAIT_SECONDS: Final = 2.0
"""How often, while runs of a deleted workspace are being stopped."""
PAUSE_SECONDS: Final = 0.02
"""Between two steps: whoever waits for the writer goes first."""


class WorkspaceRemover:
    """Removes what the rows call deleted; what a crash has left half done is done by the next one."""

    def __init__(self, db: Database, log_db: Database, bus: Bus) -> None:
        self._db = db
        self._log_db = log_db
        self._bus = bus

    async def run(self) -> None:
        """Removes for as long as it is not cancelled."""
        with self._bus.subscribe(Topic.KEYS) as woken:
            while True:
                waits = await self.once()
                await woken.wait(WAIT_SECONDS if waits else INTERVAL_SECONDS)

    async def once(self) -> bool:
        """All that may go is gone; True when something has to wait for runs that are being stopped."""
        waits = False
        for workspace_id in await self._db.read(workspace_removal.begun):
            try:
                waits = await self._remove(workspace_id) or waits
            except ManagedError as error:
                log.warning("workspace_removal.postponed", workspace_id=workspace_id, reason=error.message)
        return waits

    async def _remove(self, workspace_id: str) -> bool:
        while await self._db.write(lambda tx: workspace_removal.step(tx, workspace_id)):
            failpoints.reach("workspace.step")
            await anyio.sleep(PAUSE_SECONDS)
        failpoints.reach("workspace.rows_gone")
        await self._remove_lines(workspace_id)
        return await self._db.read(lambda tx: workspace_removal.is_in_engine(tx, workspace_id))

    async def _remove_lines(self, workspace_id: str) -> None:
        limit = workspace_removal.STEP
        while True:
            gone = await self._log_db.write(lambda tx: logs.delete_of_workspace(tx, limit), workspace=workspace_id)
            if gone < limit:
                return
            await anyio.sleep(PAUSE_SECONDS)
