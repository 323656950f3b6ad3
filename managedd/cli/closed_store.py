"""The operator's commands where no daemon runs: they open the store themselves, and ask the same API in their own process.

So what they may do, what is checked and what is noted down is the same with and without a daemon; there are no runs then, and no engine.
"""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from managedd.cli.client import SOCKET_NAME, asking
from managedd.cli.exits import Unreachable
from managedd.errors import ErrorCode, ManagedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from managedd.bus import Bus
    from managedd.cli.client import Daemon
    from managedd.clock import Clock
    from managedd.config import Settings
    from managedd.store.database import Database

LOGS_NAME = "logs.db"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedStore:
    """The databases of a data directory that no daemon serves."""

    db: Database
    logs: Database
    bus: Bus
    clock: Clock


@asynccontextmanager
async def reached(settings: Settings) -> AsyncIterator[Daemon]:
    """The daemon of `settings`, or, while none runs on its data directory, its closed store, which is made when there is none yet.

    Raises Unreachable when this user may not look into the directory.
    """
    from managedd.store.lock import is_locked

    data_dir = settings.store.data_dir
    try:
        locked = is_locked(data_dir)
    except OSError as error:
        raise _forbidden(data_dir, error) from error
    if locked:
        async with asking(data_dir / SOCKET_NAME) as daemon:
            yield daemon
        return
    async with _served(settings) as daemon:
        yield daemon


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[ClosedStore]:
    """The store, locked and migrated, with the settings' plans and the default workspace. Raises ManagedError(CONFIG) when a daemon has it."""
    from managedd.bus import Bus
    from managedd.clock import SystemClock
    from managedd.daemon import STATE_NAME
    from managedd.orchestration import lifecycle
    from managedd.store import plans, workspaces
    from managedd.store.database import Database
    from managedd.store.lock import DataDirLock

    data_dir, bus, clock = settings.store.data_dir, Bus(), SystemClock()
    async with AsyncExitStack() as stack:
        stack.enter_context(_handed_over(data_dir))
        stack.enter_context(DataDirLock(data_dir))
        state_files, log_files = "managedd.store.migrations.state", "managedd.store.migrations.logs"
        db = await Database.open(
            data_dir / STATE_NAME, bus=bus, clock=clock, migrations=state_files, finish=lifecycle.tell
        )
        stack.push_async_callback(db.close)
        logs = await Database.open(data_dir / LOGS_NAME, bus=bus, clock=clock, migrations=log_files)
        stack.push_async_callback(logs.close)
        await db.write(lambda tx: plans.replace(tx, settings.all_plans()))
        await db.write(lambda tx: workspaces.ensure_default(tx, plan=settings.default_plan))
        yield ClosedStore(db=db, logs=logs, bus=bus, clock=clock)


@asynccontextmanager
async def _served(settings: Settings) -> AsyncIterator[Daemon]:
    """The API over the closed store, on a socket that nobody else finds."""
    from managedd.api.app import Api
    from managedd.api.auth import Listener
    from managedd.api.context import Services
    from managedd.listeners import Door, url

    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(opened(settings))
        server = settings.server
        scheme = "http" if server.tls_certificate is None else "https"
        services = Services(
            settings=settings,
            db=store.db,
            logs=store.logs,
            bus=store.bus,
            clock=store.clock,
            zone=ZoneInfo(settings.usage.time_zone),
            ready=True,
            facts={"url": f"{url(server.host, server.port, scheme=scheme)}/api"},
        )
        socket = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="managedd-"))) / SOCKET_NAME
        door = Door(Api(services, Listener.SOCKET).application(), server)
        await door.open()
        stack.push_async_callback(door.close)
        await door.listen_unix(socket)
        yield await stack.enter_async_context(asking(socket))


@contextmanager
def _handed_over(data_dir: Path) -> Iterator[None]:
    """The directory is there; what root makes in that of another user is that user's afterwards, or the daemon could not open it. Raises Unreachable."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.access(data_dir, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError
    except OSError as error:
        raise _forbidden(data_dir, error) from error
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)
        _hand_over(data_dir)


def _hand_over(data_dir: Path) -> None:
    owner = data_dir.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        return
    for each in data_dir.iterdir():
        _give(each, owner)


def _give(path: Path, owner: os.stat_result) -> None:
    """The file is the owner's, if root has made it here: one that has another name elsewhere may be anything of root's."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return  # a link, or what was a socket
    try:
        found = os.fstat(descriptor)
        if found.st_uid == 0 and stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
    finally:
        os.close(descriptor)


def _forbidden(data_dir: Path, error: OSError) -> ManagedError:
    if isinstance(error, PermissionError):
        return Unreachable(f"{data_dir} may not be opened by this user: use the daemon's user, or root")
    return ManagedError(ErrorCode.CONFIG, f"store.data_dir {data_dir} can't be used: {error.strerror or error}")
