"""The composition root: builds the objects, one task group, the order of start and stop, signals.

Start: lock → migrate → listen (503 until ready) → engine → runs' listener → reconcile → look at what was adopted → dispatch.
Stop: no new dispatch → detach the runners (runs live on in the container engine) → write the last log lines → close sockets with 1012 →
close the listeners → close the store.
"""

from __future__ import annotations

import os
import secrets
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import anyio

from managedd import __version__, observe, reloading, starting
from managedd.api import surface
from managedd.api.app import Api
from managedd.api.auth import Listener
from managedd.api.context import Services
from managedd.bus import Bus
from managedd.clock import SystemClock
from managedd.config.certificates import read_certificate
from managedd.engine import event_index, sealing
from managedd.engine.dispatcher import Dispatcher
from managedd.engine.fleet import Fleet
from managedd.engine.identity import Identity
from managedd.engine.janitor import Janitor
from managedd.engine.jobs import Jobs
from managedd.engine.limiter import Limits, host_limits
from managedd.engine.log_writer import LogWriter
from managedd.engine.means import Means
from managedd.engine.quota import QuotaWatch
from managedd.engine.reconciler import Reconciler
from managedd.engine.scheduler import Scheduler
from managedd.engine.workspace_remover import WorkspaceRemover
from managedd.engine_room import EngineRoom, make_driver
from managedd.errors import ErrorCode, ManagedError
from managedd.listeners import Door, url
from managedd.notify import notify, watchdog_seconds
from managedd.observe import get_log
from managedd.orchestration import lifecycle
from managedd.signals import Signals
from managedd.store import keys, meta, plans, run_key, unlocking, workspaces
from managedd.store.database import Database
from managedd.store.lock import DataDirLock
from managedd.ui.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from anyio.abc import TaskGroup, TaskStatus

    from managedd.config import Settings
    from managedd.drivers.either import Either
    from managedd.model.limits import HostLimits

log = get_log("daemon")

SOCKET_NAME = "managedd.sock"
STATE_NAME = "state.db"
LAST_DRIVER = "last_driver"
"""A fact of the store: what runs were in when the daemon last started."""
CLOSE_SECONDS = 5.0
"""How long open sockets, and the engine's connections, may take to close."""
ADOPT_SECONDS = 30.0
"""So long nothing is dispatched until it is known what became of the runs of an earlier start: one that can't be told keeps no other longer."""
RESTART_SECONDS = (1.0, 30.0)
"""A loop that fails is started again after the first, later at most the second."""


async def serve(
    settings: Settings, read_again: Callable[[], Settings], examine: Callable[[Settings], Awaitable[dict[str, Any]]]
) -> None:
    """Serves until SIGTERM or SIGINT; on SIGHUP `read_again` tells the settings anew; `examine` is the doctor's. Raises ManagedError(CONFIG) or CannotListen when it can't start."""
    observe.configure(settings.log.level, settings.log.format)
    # From the first moment on: whoever is told to stop while it starts still stops in order.
    signals = Signals()
    async with anyio.create_task_group() as tasks:
        await tasks.start(signals.run, name="signals")
        async with AsyncExitStack() as stack:
            daemon = await _build(settings, stack)
            daemon.examined_by(lambda: examine(settings))
            await daemon.run(signals, read_again)
        tasks.cancel_scope.cancel()


async def _build(settings: Settings, stack: AsyncExitStack) -> Daemon:
    _check_way_in(settings)
    data_dir = _prepare(settings.store.data_dir)
    stack.enter_context(DataDirLock(data_dir))
    bus, clock = Bus(), SystemClock()
    db = await Database.open(
        data_dir / STATE_NAME,
        bus=bus,
        clock=clock,
        migrations="managedd.store.migrations.state",
        synchronous=settings.store.synchronous,
        readers=settings.store.readers,
        finish=lifecycle.tell,
    )
    stack.push_async_callback(db.close)
    await unlocking.unlock(db, data_dir, unlocking.given(settings.secrets))
    await sealing.at_start(db)
    logs = await Database.open(
        data_dir / "logs.db", bus=bus, clock=clock, migrations="managedd.store.migrations.logs", synchronous="NORMAL"
    )
    stack.push_async_callback(logs.close)
    identity = await _identity(db, data_dir)
    await reloading.apply(db, settings)
    if _asks(settings) and not await db.read(keys.any_lives):
        raise ManagedError(ErrorCode.CONFIG, settings.why_nobody_comes_in)
    services = Services(
        settings=settings,
        db=db,
        logs=logs,
        bus=bus,
        clock=clock,
        zone=ZoneInfo(settings.usage.time_zone),
    )
    count, last = await db.read(lambda tx: (len(workspaces.every(tx)), meta.get(tx, LAST_DRIVER)))
    driver = make_driver(settings, identity.instance_id, workspaces=count, last=last)
    return Daemon(settings, services, identity, driver)


def _asks(settings: Settings) -> bool:
    """Whether nobody comes in without a key."""
    return not settings.is_open and settings.server.auth_string is None


def _check_way_in(settings: Settings) -> None:
    """Returns unless there can't be a key yet: then nothing is made. Raises ManagedError(CONFIG)."""
    if _asks(settings) and not (settings.store.data_dir / STATE_NAME).exists():
        raise ManagedError(ErrorCode.CONFIG, settings.why_nobody_comes_in)


def _prepare(data_dir: Path) -> Path:
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ManagedError(
            ErrorCode.CONFIG, f"store.data_dir {data_dir} can't be made: {error.strerror or error}"
        ) from error
    return data_dir


async def _identity(db: Database, data_dir: Path) -> Identity:
    """The instance's id lives in the store, the secret from which run keys are made in a file only we may read."""
    instance_id = await db.write(lambda tx: meta.keep(tx, "instance_id", secrets.token_hex(8)))
    return Identity(instance_id=instance_id, secret=run_key.load_or_make(data_dir))


class Daemon:
    """The objects, and the order of their lives."""

    def __init__(self, settings: Settings, services: Services, identity: Identity, driver: Either) -> None:
        self._settings = settings
        self._services = services
        self._identity = identity
        self._certificate = read_certificate(settings.server)
        clients = Api(services, Listener.CLIENTS)
        pages = Entry(services, clients) if settings.ui.enabled else None
        self._clients = Door(
            clients.application(pages),
            settings.server,
            certificate=self._certificate,
            is_proxy=clients.proxies.__contains__,
        )
        self._operator = Door(Api(services, Listener.SOCKET).application(), settings.server)
        runs_door = Door(Api(services, Listener.RUNS).application(), settings.server)
        self._driver = driver
        self._second_door = Door(Api(services, Listener.RUNS).application(), settings.server)
        self._room = EngineRoom(
            settings, services, driver, runs_door, second_door=self._second_door, second_host=driver.other_bind_host
        )
        self._log_writer = LogWriter(services.db, services.logs, services.clock, settings.runs.log_limits)
        self._jobs = Jobs(services.db, settings, identity, self._room.api_url)
        self._means = Means(
            db=services.db,
            bus=services.bus,
            clock=services.clock,
            driver=self._room.driver,
            log_writer=self._log_writer,
            settings=settings.runs,
            instance_id=identity.instance_id,
            job=self._jobs.job,
            zone=services.zone,
            others=driver.part,
        )
        self._fleet = Fleet(self._means)
        self._reconciler = Reconciler(
            services.db, self._room.driver, self._fleet, services.clock, instance_id=identity.instance_id
        )
        services.facts |= {
            "version": __version__,
            "instance_id": identity.instance_id,
            "readings": self._fleet.readings,
            "engine": self._room.describe,
        }

    def examined_by(self, examine: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        """Who asks what the doctor says gets an answer."""
        self._services.examinations.examine = examine

    async def run(self, signals: Signals, read_again: Callable[[], Settings]) -> None:
        """Serves until told to stop."""
        doors = (self._clients, self._operator, self._room.door, self._second_door)
        for door in doors:
            await door.open()
        try:
            await self._listen()
            async with anyio.create_task_group() as tasks:
                await self._live(tasks, signals, read_again)
        finally:
            with anyio.CancelScope(shield=True):
                # Side by side: each gives its open requests their time.
                async with anyio.create_task_group() as closing:
                    for door in doors:
                        closing.start_soon(door.close)
                with anyio.move_on_after(CLOSE_SECONDS):
                    await self._room.close()

    async def _listen(self) -> None:
        server = self._settings.server
        host, port = await self._clients.listen(server.host, server.port)
        await self._operator.listen_unix(self._settings.store.data_dir / SOCKET_NAME)
        scheme = "http" if self._certificate is None else "https"
        self._services.facts["url"] = f"{url(host, port, scheme=scheme)}/api"
        # Before the engine is asked for anything: whoever has to clean up after us finds whose things to remove.
        log.info(
            "daemon.listening",
            host=host,
            port=port,
            url=self._services.facts["url"],
            instance_id=self._identity.instance_id,
        )

    async def _live(self, tasks: TaskGroup, signals: Signals, read_again: Callable[[], Settings]) -> None:
        services, settings = self._services, self._settings
        writer = _start(tasks, "log writer", self._log_writer.run)
        fleet = anyio.CancelScope()
        await tasks.start(self._run_fleet, fleet)
        loops = _start(tasks, "engine", self._run_engine)
        api = (
            _start(tasks, "scheduler", self._scheduler().run),
            _start(tasks, "janitor", self._janitor().run),
            _start(tasks, "deleted workspaces", WorkspaceRemover(services.db, services.logs, services.bus).run),
            _start(tasks, "secrets", lambda: sealing.keep(services.db, services.bus, settings.store.data_dir)),
            _start(tasks, "event index", lambda: event_index.keep(services.db, services.bus)),
            _start(tasks, "settling", _settle),
            _start(tasks, "watchdog", _watchdog),
            _start(tasks, "log windows", services.windows.run),
            _start(tasks, "keys", services.keys.run),
            _start(tasks, "uses of keys", services.key_uses.run),
            _start(tasks, "refusals", services.refusals.run),
            _start(tasks, "event news", services.event_news.run),
            _start(tasks, "log news", services.log_news.run),
            _start(
                tasks, "settings", lambda: reloading.keep(services.db, signals, settings, read_again, self._clients)
            ),
        )
        self._services.ready = True
        notify(READY=1, STATUS=f"serving {self._services.facts['url']}")
        log.info("daemon.ready", url=self._services.facts["url"])
        await signals.told_to_stop.wait()
        await self._stop((loops, *api), fleet, writer)
        tasks.cancel_scope.cancel()

    async def _run_fleet(self, scope: anyio.CancelScope, *, task_status: TaskStatus[None]) -> None:
        with scope:
            await self._fleet.run(task_status=task_status)

    async def _run_engine(self) -> None:
        """The engine is there, what it has and what the rows say agree; then runs are dispatched."""
        await self._room.open()
        host = self._services.facts["host"] = self._host_limits()
        runs = self._settings.runs
        known = replace(
            host, run_memory_bytes=runs.memory_limit_bytes, run_cpus=runs.cpu_limit, run_seconds=runs.time_limit_seconds
        )
        await self._services.db.write(lambda tx: plans.put_host(tx, known))
        await self._services.db.write(lambda tx: meta.put(tx, LAST_DRIVER, self._driver.name))
        await self._reconciler.once()
        with anyio.move_on_after(ADOPT_SECONDS):
            # What they have cost meanwhile decides who may start, and who has to stop.
            await self._fleet.looked()
        async with anyio.create_task_group() as tasks:
            _start(tasks, "engine room", self._room.keep)
            _start(tasks, "environments", self._driver.keep)
            _start(tasks, "reconciler", self._reconciler.run)
            _start(tasks, "dispatcher", self._dispatcher().run)
            _start(tasks, "quota watch", self._quota_watch().run)

    def _dispatcher(self) -> Dispatcher:
        services, settings = self._services, self._settings
        return Dispatcher(
            services.db,
            services.bus,
            services.clock,
            driver=self._room.driver.name,
            limits=Limits(zone=services.zone, host=services.facts["host"]),
            needs=self._jobs.needs,
            poll_seconds=settings.runs.poll_seconds,
            key_hash=self._identity.run_key_hash,
            start=self._fleet.start,
            may_claim=self._room.answers,
        )

    def _host_limits(self) -> HostLimits:
        """Of the engine's host, which need not be this one."""
        detail = self._room.describe()["detail"]
        memory_bytes = detail.get("memory_bytes") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return host_limits(
            self._settings.host, memory_bytes=memory_bytes, cpus=detail.get("cpus") or os.cpu_count() or 1
        )

    def _quota_watch(self) -> QuotaWatch:
        services = self._services
        return QuotaWatch(
            services.db,
            services.bus,
            zone=services.zone,
            say=self._log_writer.say_end,
        )

    def _scheduler(self) -> Scheduler:
        services = self._services
        return Scheduler(services.db, services.bus, services.clock, self._settings.scheduler)

    def _janitor(self) -> Janitor:
        services = self._services
        return Janitor(services.db, services.logs, services.clock, self._settings.retention)

    async def _stop(
        self, loops: tuple[anyio.CancelScope, ...], fleet: anyio.CancelScope, writer: anyio.CancelScope
    ) -> None:
        log.info("daemon.stopping")
        notify(STOPPING=1)
        self._services.stopping = True
        self._services.ready = False
        for scope in loops:
            scope.cancel()
        fleet.cancel()
        # Whoever comes now is turned away with 503 by those who are still inside; nobody new comes in.
        for door in (self._clients, self._room.door, self._second_door, self._operator):
            await door.shut()
        with anyio.move_on_after(CLOSE_SECONDS):
            await self._services.sockets.close_all()
        # The last to go: what the sockets and the runners had handed in is written first.
        writer.cancel()


async def _settle() -> None:
    """What the start put off is done, once there is somebody to answer."""
    try:
        await surface.load()
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(starting.settle)


async def _watchdog() -> None:
    seconds = watchdog_seconds()
    while seconds is not None:
        notify(WATCHDOG=1)
        await anyio.sleep(seconds)


def _start(tasks: TaskGroup, name: str, loop: Callable[[], Awaitable[None]]) -> anyio.CancelScope:
    """The loop runs, and runs again after a fault, until the returned scope is cancelled: no loop takes the daemon down."""
    scope = anyio.CancelScope()

    async def own() -> None:
        pause = RESTART_SECONDS[0]
        with scope:
            while True:
                try:
                    await loop()
                    return
                except Exception:
                    log.exception("loop.failed", loop=name, again_in_seconds=pause)
                await anyio.sleep(pause)
                pause = min(RESTART_SECONDS[1], pause * 2)

    tasks.start_soon(own, name=name)
    return scope
