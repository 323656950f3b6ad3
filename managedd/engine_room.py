"""The engine room: the driver, and the runs' listener on the address where runs reach it."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from managedd.bus import Topic
from managedd.config import is_loopback, read_ca_bundle
from managedd.drivers.docker import DockerDriver
from managedd.drivers.docker_spec import DockerSettings
from managedd.drivers.either import Either
from managedd.drivers.process import ProcessDriver, ProcessSettings
from managedd.errors import ErrorCode, ManagedError
from managedd.listeners import bracketed
from managedd.model.addresses import ANY, way_of
from managedd.model.amounts import human_bytes
from managedd.observe import get_log
from managedd.store import meta

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from pydantic import SecretStr

    from managedd.api.context import Services
    from managedd.config import Settings
    from managedd.listeners import Door
    from managedd.model.addresses import Way
    from managedd.model.drivers import Driver, DriverInfo, Enclosure
    from managedd.store.database import Tx

log = get_log("engine_room")

LOOK_SECONDS = 5.0
RETRY_SECONDS = (1.0, 10.0)
ASK_SECONDS = 60.0
EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 (compared with, not bound to)
_PORT, _PORT_FOR = "runs_port", "runs_port_for"
"""Facts of the store: the port where the runs' listener was, and which `runs.listen_port` was set then."""
_UNITS = {"k": 1024, "m": 1024**2, "g": 1024**3}


class EngineRoom:
    """Keeps the driver open and the runs' listener where runs look for it."""

    def __init__(
        self,
        settings: Settings,
        services: Services,
        driver: Driver,
        door: Door,
        *,
        second_door: Door | None = None,
        second_host: Callable[[], Awaitable[str | None]] | None = None,
    ) -> None:
        self._settings = settings
        self._second_door = second_door
        self._second_host = second_host
        """Where runs of an earlier start, in another driver, look for us."""
        self._services = services
        self.door = door
        self.driver = driver
        self._info: DriverInfo | None = None
        self._problem: str | None = "the container engine was not asked yet"
        self._shortage: str | None = None
        self._api_url: str | None = settings.runs.api_url
        self._enclosure: Enclosure | None = None

    def describe(self) -> dict[str, Any]:
        """The engine as `status` shows it."""
        info = self._info
        return {
            "driver": self.driver.name,
            "version": None if info is None else info.version,
            "detail": {} if info is None else dict(info.detail),
            "problem": self._problem or self._shortage,
            "runs_api_url": self._api_url,
            "enclosure": None if self._enclosure is None else asdict(self._enclosure),
        }

    async def api_url(self) -> str:
        """The API's address as a run sees it, ending with `/api`. Raises ManagedError(UNAVAILABLE) before there is one."""
        if self._api_url is None:
            raise ManagedError(ErrorCode.UNAVAILABLE, "the runs' listener has no address yet", retry_after_seconds=1.0)
        return self._api_url

    def answers(self) -> bool:
        """Whether the engine answered when it was last asked, runs can reach us and there is room on the disk: only then are runs claimed."""
        return self._problem is None and self._shortage is None

    async def open(self) -> None:
        """The engine answered and the runs' listener listens; asked again until then."""
        pause = RETRY_SECONDS[0]
        while not await self.look():
            await anyio.sleep(pause)
            pause = min(RETRY_SECONDS[1], pause * 2)

    async def keep(self) -> None:
        """The listener follows the engine's network until cancelled: an engine that comes back may have a new gateway."""
        while True:
            self._measure_disks()
            await anyio.sleep(LOOK_SECONDS)
            await self.look()

    def _measure_disks(self) -> None:
        """Whether a full disk keeps runs from being started; said when that changes."""
        directory = self.describe()["detail"].get("directory")
        places = [self._settings.store.data_dir, *([] if directory is None else [Path(directory)])]
        found = next((told for place in places if (told := self._too_little_at(place)) is not None), None)
        if (found is None) != (self._shortage is None):
            if found is not None:
                log.error("disk.full", reason=found)
            else:
                log.info("disk.has_room")
                self._services.bus.publish([Topic.SLOTS])
        self._shortage = found

    def _too_little_at(self, place: Path) -> str | None:
        floor = self._settings.host.min_free_disk_bytes
        try:
            free = shutil.disk_usage(place).free
        except OSError:
            # A directory of the engine's that we may not look at.
            return None
        if free >= floor:
            return None
        return (
            f"the disk of {place} has {human_bytes(free)} free, less than host.min_free_disk_bytes, {human_bytes(floor)}: "
            "make room, then runs are started again"
        )

    async def look(self) -> bool:
        """Whether the engine answers; when it does so (again), the runs' listener is where its runs look for it."""
        try:
            with anyio.fail_after(ASK_SECONDS):
                if self._info is None:
                    # Once only: what runs here now hangs on the driver's connections.
                    self._info = await self.driver.open()
                await self._listen()
                await self._listen_for_earlier_runs()
                await self._enclose()
        except (ManagedError, TimeoutError) as error:
            problem = error.message if isinstance(error, ManagedError) else "the container engine does not answer"
            if problem != self._problem:
                report = log.error if self._info is None else log.warning
                report("engine.unavailable", driver=self.driver.name, reason=problem)
            self._problem = problem
            return False
        if self._problem is not None:
            self._problem = None
            log.info("engine.opened", driver=self.driver.name, version=self._info.version, runs_api_url=self._api_url)
            # Whoever waited for it goes now.
            self._services.bus.publish([Topic.SLOTS])
        return True

    async def _listen(self) -> None:
        runs = self._settings.runs
        host = runs.listen_host or await self.driver.bind_host()
        if host is None:
            raise ManagedError(
                ErrorCode.DRIVER,
                "the container engine's gateway is not an address of this host, so nothing listens for runs: set runs.listen_host to an "
                "address of this host that runs reach"
                + ("" if runs.api_url else ", and runs.api_url to the URL under which they reach it"),
            )
        if self.door.address is None or self.door.address[0] != host:
            await self._bind(host)
        reached = await self.driver.api_host() or host
        if is_loopback(reached) and host not in EVERYWHERE:
            # Runs of this very host reach us where we listen.
            reached = host
        assert self.door.address is not None
        self._api_url = runs.api_url or f"http://{bracketed(reached)}:{self.door.address[1]}/api"

    async def _enclose(self) -> None:
        """Runs reach nothing of this host but what they must; said when that changes."""
        found = await self.driver.enclose([*self._ways_in()])
        before, self._enclosure = self._enclosure, found
        if found is None or found == before:
            return
        if found.holds:
            log.info("runs.kept_from_host", by=found.reason)
        else:
            log.warning("runs.reach_host", reason=found.reason, mend=found.mend)

    def _ways_in(self) -> Iterator[Way]:
        """Where runs reach the API, now and since an earlier start."""
        for door in (self.door, self._second_door):
            if door is not None and door.address is not None:
                host, port = door.address
                yield (None if host in EVERYWHERE else host), port

    async def _listen_for_earlier_runs(self) -> None:
        """They look for the same port on another address, as long as the daemon lives."""
        if self._second_door is None or self._second_host is None or self.door.address is None:
            return
        host, (mine, port) = await self._second_host(), self.door.address
        there = self._second_door.address
        if host is None or mine in {host, *EVERYWHERE} or (there is not None and there[0] == host):
            return
        try:
            await self._second_door.listen(host, port)
        except ManagedError as error:
            log.warning("runs_listener.port_taken", host=host, port=port, reason=error.message)
            return
        log.info("runs_listener.listening_too", host=host, port=port, url=f"http://{bracketed(host)}:{port}")

    async def _bind(self, host: str) -> None:
        configured = self._settings.runs.listen_port
        kept = await self._services.db.read(lambda tx: kept_port(partial(meta.get, tx), configured))
        # Live runs hold the port of the last start; a free one is the last resort.
        for port in dict.fromkeys([kept, configured, 0]):
            try:
                _, bound = await self.door.listen(host, port)
                break
            except ManagedError as error:
                log.warning("runs_listener.port_taken", host=host, port=port, reason=error.message)
        else:
            raise ManagedError(ErrorCode.DRIVER, f"the runs' listener can't listen on {host}")
        await self._services.db.write(lambda tx: _keep_port(tx, configured, bound))
        log.info("runs_listener.listening", host=host, port=bound, url=f"http://{bracketed(host)}:{bound}")

    async def close(self) -> None:
        """The driver's connections are closed; runs live on."""
        await self.driver.close()


def make_driver(settings: Settings, instance_id: str, *, workspaces: int, last: str | None) -> Either:
    """The driver from the daemon's settings; `last` is what the runs of the last start were in. Raises ManagedError(CONFIG)."""
    shared = docker_settings(settings)
    process, data_dir = settings.process, settings.store.data_dir
    refusal = why_no_processes(settings, workspaces=workspaces, last=last, as_root=os.geteuid() == 0)
    if settings.runs.driver == "process" and refusal is not None:
        raise ManagedError(ErrorCode.CONFIG, f"runs.driver = 'process': {refusal}")
    return Either(
        DockerDriver(instance_id, shared, url=settings.docker.host),
        ProcessDriver(
            instance_id,
            ProcessSettings(
                runs_dir=data_dir / "runs",
                env_dir=process.env_dir or data_dir / "environments",
                python=process.python,
                path=process.path,
                env_retention_days=process.env_retention_days,
                output_max_bytes=process.output_max_bytes,
                output_max_files=process.output_max_files,
                shared=shared,
            ),
        ),
        wanted=settings.runs.driver,
        refusal=refusal,
    )


def why_no_processes(settings: Settings, *, workspaces: int, last: str | None, as_root: bool) -> str | None:
    """Why runs may not be processes of this host, unless somebody says that they shall; None when they may."""
    refusal = settings.why_no_processes(workspaces=workspaces, as_root=as_root)
    if refusal is None and settings.runs.driver == "auto" and last == "docker":
        # An engine that is down, or slower than we at the host's start, must not cost runs their isolation.
        return (
            "the last runs were in containers, so the engine is waited for; for processes from now on, which nothing isolates, set "
            'runs.driver = "process" and restart the daemon'
        )
    return refusal


def docker_settings(settings: Settings) -> DockerSettings:
    """The driver's settings from the daemon's. Raises ManagedError(CONFIG) when the CA bundle is none."""
    docker, runs = settings.docker, settings.runs
    return DockerSettings(
        log_max_bytes=int(docker.log_max_size[:-1]) * _UNITS[docker.log_max_size[-1]],
        log_max_files=docker.log_max_files,
        dns=tuple(docker.dns),
        http_proxy=_plain(runs.http_proxy),
        https_proxy=_plain(runs.https_proxy),
        no_proxy=runs.no_proxy,
        ca_bundle=read_ca_bundle(settings),
        package_index_url=_plain(runs.index_url),
        package_extra_index_urls=() if runs.extra_index_url is None else (runs.extra_index_url.get_secret_value(),),
        runtime=docker.runtime,
        api_url=runs.api_url,
        capabilities=docker.capabilities,
        firewall=docker.firewall,
        host_allow=tuple(way_of(each) for each in docker.host_allow if each != ANY),
        is_host_open=ANY in docker.host_allow,
        egress_allow=None if docker.egress_allow is None else tuple(docker.egress_allow),
    )


def _plain(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def kept_port(fact: Callable[[str], str | None], configured: int) -> int:
    """The port of the last start, unless the operator has set another one since then; `fact` is what the store keeps under a name."""
    bound = fact(_PORT)
    return int(bound) if bound is not None and fact(_PORT_FOR) == str(configured) else configured


def _keep_port(tx: Tx, configured: int, bound: int) -> None:
    meta.put(tx, _PORT, str(bound))
    meta.put(tx, _PORT_FOR, str(configured))
