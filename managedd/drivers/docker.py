"""The Docker driver: each execution is a container on a network of this daemon's own.

Nothing the engine says is taken for more than it is: the end of a stream is not the end of a container, a failed request may have
succeeded, exit code 0 is not success, and 137 is not out of memory. Inspection by id decides.
"""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import structlog
from aiodocker.exceptions import DockerError

from managedd.drivers import docker_end
from managedd.drivers.docker_engine import BACKOFF_SECONDS, FAULTS, Engine, doing, failed, is_status, words
from managedd.drivers.docker_follow import Followers, follow, stamps_each_entry
from managedd.drivers.docker_guard import Guard
from managedd.drivers.docker_images import Images
from managedd.drivers.docker_logs import LogReader
from managedd.drivers.docker_look import LIVENESS, inspect, inspect_patiently, liveness_of, was_started
from managedd.drivers.docker_network import Network, gateway_of, is_address_of_this_host
from managedd.drivers.docker_spec import (
    FOLDERS,
    LABEL_EXECUTION,
    LABEL_FLOW_RUN,
    LABEL_INSTANCE,
    REPORT,
    REPORT_LINK,
    DockerSettings,
    archive,
    container_body,
    is_runtime_there,
    name_of,
    network_name,
    own_files,
    shared_files,
    user_of,
)
from managedd.drivers.docker_volume import Volume
from managedd.errors import ErrorCode, ManagedError
from managedd.model.drivers import DriverInfo, ExitStatus, Found, Handle, Liveness, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from managedd.model.addresses import Way
    from managedd.model.drivers import Enclosure, Progress, RunSpec
    from managedd.model.logs import LogCursor, RawLine

NAME: Final = "docker"
HANDLE_VERSION: Final = 1
CREATING: Final = "The container could not be created"
CREATE_ATTEMPTS: Final = 3
"""How often a volume is made anew that vanishes between its making and the first container in it."""
SWEEP_SECONDS: Final = 15.0
"""How long an answer to `wait` is trusted to come by itself: some engines miss the end of a short container."""
EARLY_SWEEP_SECONDS: Final = 3.0
"""The same in the first `EARLY_SECONDS`."""
EARLY_SECONDS: Final = 30.0
SETTLE_SECONDS: Final = 1.0
"""How late the engine may write down that a container ran out of memory (control groups v2)."""
KILL_SECONDS: Final = 10.0
REMOVE_ATTEMPTS: Final = 10
PASSWD_MAX_BYTES: Final = 1024 * 1024
GONE: Final = ExitStatus(exit_code=None, gone=True, error="it was removed while the run was under way")
_log = structlog.get_logger(__name__)


class DockerDriver:
    """A `Driver` over a Docker-compatible engine. `url` None: where the usual client would look (DOCKER_HOST, context, sockets)."""

    name = NAME

    def __init__(self, instance_id: str, settings: DockerSettings | None = None, *, url: str | None = None) -> None:
        self._instance_id = instance_id
        self._settings = settings or DockerSettings()
        self._engine = Engine(url, control_timeout_seconds=self._settings.control_timeout_seconds)
        self._images = Images(self._engine, stall_seconds=self._settings.pull_stall_seconds)
        self._network = Network(self._engine, instance_id)
        self._volume = Volume(self._engine, instance_id, shared_files(self._settings))
        self._guard = Guard(instance_id, self._settings)
        self._ways: tuple[Way, ...] | None = None
        self._enclosed: str | None = None
        """The network that was enclosed last."""
        self._runtimes: frozenset[str] = frozenset()
        self._followers = Followers()
        self._unstarted: set[str] = set()
        """Containers that this driver has made and nobody was asked to start: they need no look before that."""

    async def open(self) -> DriverInfo:
        """The engine answers and this daemon's network is there."""
        try:
            await self._engine.open()
            with doing("Asking the container engine about itself failed"):
                info = await self._engine.docker.system.info()
            options = [str(each) for each in info.get("SecurityOptions") or ()]
            if not any("seccomp" in each and "unconfined" not in each for each in options):
                _log.warning("engine.no_seccomp", mend="see seccomp in `managedd doctor`")
            self._runtimes = frozenset(info.get("Runtimes") or ())
            network = await self._network.ensure()
        except BaseException:
            await self.close()
            raise
        version = self._engine.version
        return DriverInfo(
            name=NAME,
            version=str(version.get("Version")),
            detail={
                "api_version": self._engine.docker.api_version,
                "cgroup_version": info.get("CgroupVersion"),
                "storage_driver": info.get("Driver"),
                "live_restore": bool(info.get("LiveRestoreEnabled")),
                "memory_bytes": info.get("MemTotal"),
                "directory": info.get("DockerRootDir") if self._engine.is_local else None,
                "cpus": info.get("NCPU"),
                "operating_system": info.get("OperatingSystem"),
                "security_options": info.get("SecurityOptions") or [],
                "network": network_name(self._instance_id),
                "gateway": gateway_of(network),
                "is_local": self._engine.is_local,
            },
        )

    async def close(self) -> None:
        """Connections are closed; containers and the network live on."""
        await self._engine.close()

    async def prepare(self, spec: RunSpec, progress: Progress) -> None:
        """The image is there."""
        await self._images.prepare(spec.image, spec.pull_policy, progress)

    async def create(self, spec: RunSpec) -> Handle:
        """The container exists with its files in it; one that this execution has already is adopted."""
        for _ in range(CREATE_ATTEMPTS):
            volume = await self._volume.ensure(spec.image)
            container_id, found = await self._made(spec, volume)
            handle = _handle(container_id, name_of(spec))
            if found is not None and liveness_of(found) is not Liveness.CREATED:
                return handle
            if (found is None or _is_in(found, volume)) and await self._volume.is_whole(volume):
                await self._place(spec, container_id)
                return handle
            # The volume was removed before the container held it, or the container is of an earlier version: nothing has run in it.
            await self.remove(handle)
        raise ManagedError(ErrorCode.DRIVER, f"{CREATING}: the volume with its files is removed again and again")

    async def start(self, handle: Handle) -> None:
        """The container was started."""
        container_id = _id(handle)
        if self._ways is not None and self._network.id != self._enclosed:
            # It was made anew since.
            await self._enclose()
        with doing("The container could not be started"):
            if container_id in self._unstarted:
                self._unstarted.discard(container_id)
            else:
                # An engine would start an ended container once more.
                container = await inspect(self._engine, container_id)
                if container is not None and was_started(container):
                    return
            for is_last in (False, True):
                try:
                    await self._engine.call("POST", f"containers/{container_id}/start")
                    return
                except FAULTS:
                    # A lost answer is no failed start.
                    container = await inspect(self._engine, container_id)
                    if container is not None and was_started(container):
                        return
                    if container is None or is_last or not await self._network.mend():
                        raise
                    if self._ways is not None:
                        await self._enclose()

    async def recover(self, handle: Handle) -> Liveness:
        """What became of the container."""
        with doing("The container could not be looked at"):
            container = await inspect(self._engine, _id(handle))
        return Liveness.GONE if container is None else liveness_of(container)

    async def started_ago(self, handle: Handle) -> float | None:
        """By the engine's own two readings: its clock may be another host's."""
        with doing("The container's start could not be looked at"):
            container = await inspect(self._engine, _id(handle))
            info: Any = {} if container is None else await self._engine.docker._query_json("info")
        state = {} if container is None else container["State"]
        started, now = (docker_end.timestamp_us(text) for text in (state.get("StartedAt"), info.get("SystemTime")))
        return None if started is None or now is None else max(0, now - started) / 1_000_000

    async def wait(self, handle: Handle) -> ExitStatus:
        """The container has ended, or is gone."""
        container_id = _id(handle)
        began = anyio.current_time()
        while True:
            container = await inspect_patiently(self._engine, container_id)
            if container is None:
                self._followers.ended(container_id)
                return GONE
            liveness = liveness_of(container)
            if liveness is Liveness.EXITED:
                self._followers.ended(container_id)
                return await self._end(container)
            if liveness is Liveness.CREATED:
                await anyio.sleep(0.2)
                continue
            is_early = anyio.current_time() - began < EARLY_SECONDS
            with anyio.move_on_after(EARLY_SWEEP_SECONDS if is_early else SWEEP_SECONDS):
                try:
                    await self._engine.waiting.containers.container(container_id).wait()
                except FAULTS as error:
                    # The engine restarts, or the connection was cut: neither says anything about the container.
                    if not is_status(error, 404):
                        _log.debug("engine.wait_interrupted", error=words(error))
                        await anyio.sleep(BACKOFF_SECONDS[0])

    async def stop(self, handle: Handle, *, grace_seconds: float) -> None:
        """The container has ended: by itself after SIGTERM within the grace, or killed."""
        container_id = _id(handle)
        failure: BaseException | None = None
        try:
            params = {"t": str(math.ceil(grace_seconds))}
            await self._engine.call(
                "POST", f"containers/{container_id}/stop", params, timeout_seconds=grace_seconds + KILL_SECONDS
            )
        except FAULTS as error:
            failure = error
        for _ in range(2):
            if await self._ended_within(container_id, 0.0):
                return
            try:
                await self._engine.call("POST", f"containers/{container_id}/kill", timeout_seconds=KILL_SECONDS)
            except FAULTS as error:
                failure = error
            if await self._ended_within(container_id, KILL_SECONDS):
                return
        raise failed("The container could not be killed", failure or TimeoutError())

    async def remove(self, handle: Handle) -> None:
        """The container is gone, with its anonymous volumes."""
        container_id = _id(handle)
        self._unstarted.discard(container_id)
        failure: BaseException | None = None
        for attempt in range(REMOVE_ATTEMPTS):
            try:
                await self._engine.call("DELETE", f"containers/{container_id}", {"force": "true", "v": "true"})
            except FAULTS as error:
                # 409: it is being removed; 500: its file system is still busy.
                failure = error
            with contextlib.suppress(*FAULTS):
                if await inspect(self._engine, container_id) is None:
                    await self._volume.tidy()
                    return
            await anyio.sleep(BACKOFF_SECONDS[min(attempt, len(BACKOFF_SECONDS) - 1)])
        raise failed("The container could not be removed", failure or TimeoutError())

    @contextlib.asynccontextmanager
    async def logs(self, handle: Handle, after: LogCursor) -> AsyncIterator[AsyncIterator[RawLine]]:
        """The container's lines after `after`."""
        stamps_each = stamps_each_entry(self._engine.version)
        reader = LogReader(after, line_bytes=self._settings.line_bytes, stamps_each=stamps_each)
        container_id, file_bytes = _id(handle), self._settings.log_max_bytes
        with self._followers.one_of(container_id) as patience:
            lines = follow(self._engine, container_id, reader, patience, file_bytes=file_bytes)
            async with contextlib.aclosing(lines):
                yield lines

    async def stats(self, handle: Handle) -> Usage | None:
        """One reading, when it runs."""
        with doing("The container's use of memory and processors could not be read"):
            try:
                found: Any = await self._engine.docker._query_json(
                    f"containers/{_id(handle)}/stats", params={"stream": "false", "one-shot": "true"}
                )
            except DockerError as error:
                if is_status(error, 404, 409):
                    return None
                raise
            memory = found.get("memory_stats") or {}
            if not memory.get("usage"):
                return None
            detail = memory.get("stats") or {}
            cache = detail.get("inactive_file", detail.get("total_inactive_file", 0))
            return Usage(
                memory_bytes=max(0, int(memory["usage"]) - int(cache)),
                peak_memory_bytes=int(memory["max_usage"]) if memory.get("max_usage") else None,
                cpu_seconds=int(found["cpu_stats"]["cpu_usage"]["total_usage"]) / 1e9,
                pids=int((found.get("pids_stats") or {}).get("current") or 0),
            )

    async def disk(self, handle: Handle) -> int | None:
        """The size of the container's own layer, while it runs."""
        with doing("The size of the container's files could not be read"):
            try:
                found: Any = await self._engine.docker._query_json(
                    f"containers/{_id(handle)}/json", params={"size": "true"}
                )
            except DockerError as error:
                if is_status(error, 404):
                    return None
                raise
            written = found.get("SizeRw")
            return int(written) if written is not None and liveness_of(found) is Liveness.RUNNING else None

    async def list_owned(self, instance_id: str) -> list[Found]:
        """Every container of that daemon."""
        with doing("The containers could not be listed"):
            listed: list[dict[str, Any]] = await self._engine.docker._query_json(
                "containers/json", params={"all": "true", "filters": _filters(label=f"{LABEL_INSTANCE}={instance_id}")}
            )
            return [
                Found(
                    execution_id=labels[LABEL_EXECUTION],
                    flow_run_id=labels.get(LABEL_FLOW_RUN),
                    handle=_handle(entry["Id"], entry["Names"][0].lstrip("/")),
                    liveness=LIVENESS.get(str(entry.get("State")).lower(), Liveness.RUNNING),
                    created_at_us=int(entry["Created"]) * 1_000_000,
                )
                for entry in listed
                if LABEL_EXECUTION in (labels := entry.get("Labels") or {}) and entry.get("Names")
            ]

    async def api_host(self) -> str | None:
        """The address of this daemon's network that is on the engine's host."""
        return gateway_of(await self._network.ensure())

    async def bind_host(self) -> str | None:
        """The same address, when that host is this one."""
        gateway = gateway_of(await self._network.ensure())
        return gateway if gateway is not None and is_address_of_this_host(gateway) else None

    async def enclose(self, ways: Sequence[Way]) -> Enclosure:
        """The firewall stands, or is said to be missing; the runtime is there."""
        self._ways = tuple(ways)
        await self._runtime_is_known()
        return await self._enclose()

    async def _enclose(self) -> Enclosure:
        network = await self._network.ensure()
        found = await self._guard.stand(network, self._ways or ())
        self._enclosed = self._network.id
        return found

    async def _runtime_is_known(self) -> None:
        runtime = self._settings.runtime
        if runtime is None or is_runtime_there(runtime, self._runtimes):
            return
        with doing("Asking the container engine about itself failed"):
            info = await self._engine.docker.system.info()
        self._runtimes = frozenset(info.get("Runtimes") or ())
        if not is_runtime_there(runtime, self._runtimes):
            raise ManagedError(
                ErrorCode.DRIVER,
                f"docker.runtime is {runtime!r}, and the engine has {', '.join(sorted(self._runtimes)) or 'none'}: install it and name it under "
                "runtimes in the engine's daemon.json, or take docker.runtime out",
            )

    async def _made(self, spec: RunSpec, volume: str) -> tuple[str, dict[str, Any] | None]:
        """The id of this execution's container, and what the engine says of it when it was there before."""
        name, body = name_of(spec), container_body(spec, self._settings, volume)
        with doing(CREATING):
            for is_last in (False, True):
                try:
                    made = await self._engine.docker.containers.create(body, name=name)
                except FAULTS as error:
                    # 409: it is there. Any other failure may have come after it was made.
                    found = None if is_status(error, 400, 404) else await self._look_up(name)
                    if found is not None:
                        break
                    # Some engines miss a network now, others when the container is started.
                    if is_last or not await self._network.mend():
                        raise
                else:
                    self._unstarted.add(made.id)
                    return made.id, None
        assert found is not None
        labels = found["Config"].get("Labels") or {}
        if (labels.get(LABEL_INSTANCE), labels.get(LABEL_EXECUTION)) != (spec.instance_id, spec.execution_id):
            raise ManagedError(ErrorCode.DRIVER, f"{CREATING}: another one has its name, {name}")
        return found["Id"], found

    async def _place(self, spec: RunSpec, container_id: str) -> None:
        """What only this run has is in its container."""
        files = own_files(spec)
        if not files:
            return
        with doing("The run's files could not be placed in its container"):
            container = await self._look_up(container_id)
            if container is None:
                raise ManagedError(ErrorCode.DRIVER, f"{CREATING}: it vanished at once")
            uid, gid = await self._user(container)
            packed = archive(files, FOLDERS[0], uid=uid, gid=gid)
            await self._engine.upload(f"containers/{container_id}/archive", {"path": "/"}, packed)

    async def _user(self, container: Mapping[str, Any]) -> tuple[int, int]:
        """Who will run in the container: its files must be theirs, the requirements are readable by nobody else."""
        user = str(container["Config"].get("User") or "")
        if user in {"", "root", "0", "0:0"}:
            return 0, 0
        with contextlib.suppress(DockerError):
            packed = await self._engine.file(container["Id"], "/etc/passwd", max_bytes=PASSWD_MAX_BYTES)
            passwd = docker_end.content_of(packed, max_bytes=PASSWD_MAX_BYTES)
            return user_of(user, passwd.decode(errors="replace") if passwd else "")
        return user_of(user, "")

    async def _look_up(self, name: str) -> dict[str, Any] | None:
        """The container of that name, asked until the engine answers: a creation must not be left dangling."""
        with anyio.fail_after(self._settings.control_timeout_seconds):
            return await inspect_patiently(self._engine, name)

    async def _ended_within(self, container_id: str, seconds: float) -> bool:
        deadline = anyio.current_time() + seconds
        while True:
            with contextlib.suppress(*FAULTS):
                container = await inspect(self._engine, container_id)
                if container is None or liveness_of(container) is not Liveness.RUNNING:
                    return True
            if anyio.current_time() >= deadline:
                return False
            await anyio.sleep(0.2)

    async def _end(self, container: dict[str, Any]) -> ExitStatus:
        container_id = container["Id"]
        report, oom_event = docker_end.Report(), False
        # Evidence that cannot be had is missing, and no reason not to have an end.
        with contextlib.suppress(*FAULTS):
            report = await self._report(container_id)
        state = container["State"]
        if state.get("ExitCode") == docker_end.KILLED and not state.get("OOMKilled") and report.exit_code is None:
            # The shim was killed too: for want of memory, which may be written down late, or by somebody who removes the container next.
            await anyio.sleep(SETTLE_SECONDS)
            with contextlib.suppress(*FAULTS):
                settled = await inspect(self._engine, container_id)
                if settled is None:
                    return GONE
                container, oom_event = settled, await self._ran_out_of_memory(settled)
        return docker_end.status_of(
            container, report, oom_event=oom_event, booted_us=_booted_us() if self._engine.is_local else None
        )

    async def _report(self, container_id: str) -> docker_end.Report:
        """What the shim has written, where it could; empty when there is nothing."""
        for folder in FOLDERS:
            report = docker_end.brief_of(await self._engine.stat(container_id, f"{folder}/{REPORT_LINK}"))
            if report is not None:
                return report
            packed = await self._engine.file(
                container_id, f"{folder}/{REPORT}", max_bytes=2 * docker_end.REPORT_MAX_BYTES
            )
            if packed is not None:
                return docker_end.report_of(packed)
        return docker_end.Report()

    async def _ran_out_of_memory(self, container: Mapping[str, Any]) -> bool:
        """Whether the engine's memory of its events has an `oom` of this container."""
        now: Any = await self._engine.docker._query_json("info")
        started, until = (
            docker_end.timestamp_us(text) for text in (container["State"].get("StartedAt"), now.get("SystemTime"))
        )
        params = {
            "since": _seconds(started or 0),
            "until": _seconds(until or 0),
            "filters": _filters(container=container["Id"], event="oom"),
        }
        events = await self._engine.download("events", params, max_bytes=1024 * 1024)
        return any(json.loads(line).get("Action") == "oom" for line in (events or b"").splitlines() if line.strip())


def _is_in(container: Mapping[str, Any], volume: str) -> bool:
    return any(mount.get("Name") == volume for mount in container.get("Mounts") or ())


def _filters(**values: str) -> str:
    return json.dumps({name: [value] for name, value in values.items()})


def _seconds(us: int) -> str:
    return f"{us // 1_000_000}.{us % 1_000_000:06d}"


def _handle(container_id: str, name: str) -> Handle:
    return Handle(driver=NAME, version=HANDLE_VERSION, data={"id": container_id, "name": name})


def _id(handle: Handle) -> str:
    container_id = handle.data.get("id")
    if (
        handle.driver != NAME
        or handle.version != HANDLE_VERSION
        or not isinstance(container_id, str)
        or not container_id.isalnum()
    ):
        raise ManagedError(
            ErrorCode.DRIVER,
            f"This is no handle of the Docker driver: driver {handle.driver!r}, version {handle.version}",
        )
    return container_id


def _booted_us() -> int | None:
    """When this host started; None where it does not say."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        line = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
        return int(line.split()[1]) * 1_000_000
    return None
