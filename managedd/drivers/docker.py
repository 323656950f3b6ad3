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
from managedd.drivers.docker_images import Images
from managedd.drivers.docker_logs import FrameError, LogReader
from managedd.drivers.docker_network import Network, gateway_of, is_address_of_this_host
from managedd.drivers.docker_spec import (
    LABEL_EXECUTION,
    LABEL_FLOW_RUN,
    LABEL_INSTANCE,
    REPORT,
    DockerSettings,
    archive,
    container_body,
    name_of,
    network_name,
    run_files,
    user_of,
)
from managedd.errors import ErrorCode, ManagedError
from managedd.model.drivers import DriverInfo, ExitStatus, Found, Handle, Liveness, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping

    from managedd.model.drivers import Progress, RunSpec
    from managedd.model.logs import LogCursor, RawLine

NAME: Final = "docker"
HANDLE_VERSION: Final = 1
SWEEP_SECONDS: Final = 15.0
"""How long an answer to `wait` is trusted to come by itself: some engines miss the end of a short container."""
EARLY_SWEEP_SECONDS: Final = 3.0
"""The same in the first `EARLY_SECONDS`."""
EARLY_SECONDS: Final = 30.0
SETTLE_SECONDS: Final = 1.0
"""How late the engine may write down that a container ran out of memory (control groups v2)."""
KILL_SECONDS: Final = 10.0
REMOVE_ATTEMPTS: Final = 10
LOG_ATTEMPTS: Final = 5
PASSWD_MAX_BYTES: Final = 1024 * 1024
GONE: Final = ExitStatus(exit_code=None, gone=True, error="it was removed while the run was under way")
_LIVENESS: Final = {
    "created": Liveness.CREATED,
    "initialized": Liveness.CREATED,
    "configured": Liveness.CREATED,
    "running": Liveness.RUNNING,
    "paused": Liveness.RUNNING,
    "restarting": Liveness.RUNNING,
    "stopping": Liveness.RUNNING,
    "removing": Liveness.EXITED,
    "exited": Liveness.EXITED,
    "stopped": Liveness.EXITED,
    "dead": Liveness.EXITED,
}

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

    async def open(self) -> DriverInfo:
        """The engine answers and this daemon's network is there."""
        try:
            await self._engine.open()
            with doing("Asking the container engine about itself failed"):
                info = await self._engine.docker.system.info()
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
        name, body = name_of(spec), container_body(spec, self._settings)
        await self._network.ensure()
        doing_this = "The container could not be created"
        with doing(doing_this):
            try:
                await self._engine.docker.containers.create(body, name=name)
            except FAULTS as error:
                # 409: it is there. Any other failure may have come after it was made.
                if is_status(error, 400, 404):
                    raise
                container = await self._look_up(name)
                if container is None:
                    raise
            else:
                container = await self._look_up(name)
        if container is None:
            raise ManagedError(ErrorCode.DRIVER, f"{doing_this}: it vanished at once")
        labels = container["Config"].get("Labels") or {}
        if (labels.get(LABEL_INSTANCE), labels.get(LABEL_EXECUTION)) != (spec.instance_id, spec.execution_id):
            raise ManagedError(ErrorCode.DRIVER, f"{doing_this}: another one has its name, {name}")
        if _liveness(container) is Liveness.CREATED:
            with doing("The run's files could not be placed in its container"):
                uid, gid = await self._user(container)
                packed = archive(run_files(spec, self._settings), uid=uid, gid=gid)
                await self._engine.upload(f"containers/{container['Id']}/archive", {"path": "/"}, packed)
        return _handle(container["Id"], name)

    async def start(self, handle: Handle) -> None:
        """The container was started."""
        container_id = _id(handle)
        with doing("The container could not be started"):
            # An engine would start an ended container once more.
            container = await self._inspect(container_id)
            if container is not None and _was_started(container):
                return
            try:
                await self._engine.call("POST", f"containers/{container_id}/start")
            except FAULTS as error:
                # A lost answer is no failed start.
                container = await self._inspect(container_id)
                if container is None or not _was_started(container):
                    raise error from None

    async def recover(self, handle: Handle) -> Liveness:
        """What became of the container."""
        with doing("The container could not be looked at"):
            container = await self._inspect(_id(handle))
        return Liveness.GONE if container is None else _liveness(container)

    async def started_ago(self, handle: Handle) -> float | None:
        """By the engine's own two readings: its clock may be another host's."""
        with doing("The container's start could not be looked at"):
            container = await self._inspect(_id(handle))
            info: Any = {} if container is None else await self._engine.docker._query_json("info")
        state = {} if container is None else container["State"]
        started, now = (docker_end.timestamp_us(text) for text in (state.get("StartedAt"), info.get("SystemTime")))
        return None if started is None or now is None else max(0, now - started) / 1_000_000

    async def wait(self, handle: Handle) -> ExitStatus:
        """The container has ended, or is gone."""
        container_id = _id(handle)
        began = anyio.current_time()
        while True:
            container = await self._inspect_patiently(container_id)
            if container is None:
                return GONE
            liveness = _liveness(container)
            if liveness is Liveness.EXITED:
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
        failure: BaseException | None = None
        for attempt in range(REMOVE_ATTEMPTS):
            try:
                await self._engine.call("DELETE", f"containers/{container_id}", {"force": "true", "v": "true"})
            except FAULTS as error:
                # 409: it is being removed; 500: its file system is still busy.
                failure = error
            with contextlib.suppress(*FAULTS):
                if await self._inspect(container_id) is None:
                    return
            await anyio.sleep(BACKOFF_SECONDS[min(attempt, len(BACKOFF_SECONDS) - 1)])
        raise failed("The container could not be removed", failure or TimeoutError())

    @contextlib.asynccontextmanager
    async def logs(self, handle: Handle, after: LogCursor) -> AsyncIterator[AsyncIterator[RawLine]]:
        """The container's lines after `after`."""
        lines = self._follow(_id(handle), LogReader(after, line_bytes=self._settings.line_bytes))
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
            return int(written) if written is not None and _liveness(found) is Liveness.RUNNING else None

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
                    liveness=_LIVENESS.get(str(entry.get("State")).lower(), Liveness.RUNNING),
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

    async def _user(self, container: Mapping[str, Any]) -> tuple[int, int]:
        """Who will run in the container: its files must be theirs, the requirements are readable by nobody else."""
        user = str(container["Config"].get("User") or "")
        if user in {"", "root", "0", "0:0"}:
            return 0, 0
        with contextlib.suppress(DockerError):
            packed = await self._engine.download(
                f"containers/{container['Id']}/archive", {"path": "/etc/passwd"}, max_bytes=PASSWD_MAX_BYTES
            )
            passwd = docker_end.content_of(packed, max_bytes=PASSWD_MAX_BYTES)
            return user_of(user, passwd.decode(errors="replace") if passwd else "")
        return user_of(user, "")

    async def _look_up(self, name: str) -> dict[str, Any] | None:
        """The container of that name, asked until the engine answers: a creation must not be left dangling."""
        with anyio.fail_after(self._settings.control_timeout_seconds):
            return await self._inspect_patiently(name)

    async def _inspect(self, container_id: str) -> dict[str, Any] | None:
        try:
            return await self._engine.docker.containers.container(container_id).show()
        except DockerError as error:
            if is_status(error, 404):
                return None
            raise

    async def _inspect_patiently(self, container_id: str) -> dict[str, Any] | None:
        attempt = 0
        while True:
            try:
                return await self._inspect(container_id)
            except FAULTS as error:
                if is_status(error, 400, 401, 403):
                    raise failed("The container could not be looked at", error) from error
            await anyio.sleep(BACKOFF_SECONDS[min(attempt, len(BACKOFF_SECONDS) - 1)])
            await self._engine.until_it_answers()
            attempt += 1

    async def _ended_within(self, container_id: str, seconds: float) -> bool:
        deadline = anyio.current_time() + seconds
        while True:
            with contextlib.suppress(*FAULTS):
                container = await self._inspect(container_id)
                if container is None or _liveness(container) is not Liveness.RUNNING:
                    return True
            if anyio.current_time() >= deadline:
                return False
            await anyio.sleep(0.2)

    async def _end(self, container: dict[str, Any]) -> ExitStatus:
        container_id = container["Id"]
        report, oom_event = docker_end.Report(), False
        # Evidence that cannot be had is missing, and no reason not to have an end.
        with contextlib.suppress(*FAULTS):
            packed = await self._engine.download(
                f"containers/{container_id}/archive", {"path": REPORT}, max_bytes=2 * docker_end.REPORT_MAX_BYTES
            )
            report = docker_end.report_of(packed)
        state = container["State"]
        if state.get("ExitCode") == docker_end.KILLED and not state.get("OOMKilled") and report.exit_code is None:
            # The shim was killed too: for want of memory, which may be written down late, or by somebody who removes the container next.
            await anyio.sleep(SETTLE_SECONDS)
            with contextlib.suppress(*FAULTS):
                settled = await self._inspect(container_id)
                if settled is None:
                    return GONE
                container, oom_event = settled, await self._ran_out_of_memory(settled)
        return docker_end.status_of(
            container, report, oom_event=oom_event, booted_us=_booted_us() if self._engine.is_local else None
        )

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

    async def _follow(self, container_id: str, reader: LogReader) -> AsyncGenerator[RawLine, None]:
        """The lines, over every end of a stream that is not the end of the container."""
        quiet = failures = 0
        while True:
            # Asked before reading: of a container that had ended by now, this reading is the last.
            container = await self._inspect_patiently(container_id)
            if container is None:
                break
            liveness = _liveness(container)
            if liveness is Liveness.CREATED:
                await anyio.sleep(0.1)
                continue
            whole, heard = False, False
            params = {
                "stdout": "true",
                "stderr": "true",
                "timestamps": "true",
                "follow": str(liveness is Liveness.RUNNING).lower(),
            }
            if reader.since is not None:
                params["since"] = reader.since
            try:
                async with self._engine.stream("GET", f"containers/{container_id}/logs", params) as response:
                    chunks = response.content.iter_any()
                    while (chunk := await self._next_chunk(container_id, chunks)) is not None:
                        for line in reader.feed(chunk):
                            heard = True
                            yield line
                whole, failures = True, 0
            except (*FAULTS, FrameError) as error:
                failures += 1
                if is_status(error, 409) and liveness is Liveness.EXITED:
                    break  # it is being removed: there is nothing more to be had
                if isinstance(error, FrameError) or (isinstance(error, DockerError) and failures >= LOG_ATTEMPTS):
                    raise failed("The container's output could not be read", error) from error
                _log.debug("engine.logs_interrupted", error=words(error))
            if whole and liveness is Liveness.EXITED:
                break
            reader.reconnect()
            quiet = 0 if heard else quiet + 1
            if quiet:
                await anyio.sleep(BACKOFF_SECONDS[min(quiet, len(BACKOFF_SECONDS)) - 1])
        for line in reader.finish():
            yield line

    async def _next_chunk(self, container_id: str, chunks: AsyncIterator[bytes]) -> bytes | None:
        """What the stream brings next; None at its end, and when it is silent although the container has ended."""
        while True:
            with anyio.move_on_after(SWEEP_SECONDS):
                return await anext(chunks, None)
            container = await self._inspect_patiently(container_id)
            if container is None or _liveness(container) is not Liveness.RUNNING:
                return None


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


def _liveness(container: Mapping[str, Any]) -> Liveness:
    status = str(container["State"].get("Status")).lower()
    # A state that we do not know is not an end.
    return _LIVENESS.get(status, Liveness.RUNNING if container["State"].get("Running", True) else Liveness.EXITED)


def _was_started(container: Mapping[str, Any]) -> bool:
    return (
        _liveness(container) is not Liveness.CREATED
        and docker_end.timestamp_us(container["State"].get("StartedAt")) is not None
    )


def _booted_us() -> int | None:
    """When this host started; None where it does not say."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        line = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
        return int(line.split()[1]) * 1_000_000
    return None
