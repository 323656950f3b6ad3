"""The process driver: each execution is a family of processes on this host, held by a supervisor of its own.

The supervisor outlives the daemon; what the daemon knows of a run it reads from the run's folder. That it lives is told by a lock, news
of it by a socket, its end by the end of that connection: nothing is asked over and over. It holds limits, and it does not isolate: a run
can do whatever the daemon's user can.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread
import structlog

from managedd.drivers import process_cgroup, run_tree
from managedd.drivers.docker_logs import FrameError, LogReader
from managedd.drivers.docker_spec import DockerSettings, environment, own_files, shared_files
from managedd.drivers.process_env import Environments, uv_program
from managedd.drivers.process_files import OutputFiles, RunFolder
from managedd.errors import ErrorCode, ManagedError
from managedd.model.drivers import DriverInfo, ExitStatus, Found, Handle, Liveness, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence
    from pathlib import Path

    from anyio.abc import SocketStream

    from managedd.model.addresses import Way
    from managedd.model.drivers import Enclosure, Progress, RunSpec
    from managedd.model.logs import LogCursor, RawLine

NAME: Final = "process"
HANDLE_VERSION: Final = 1
LOOPBACK: Final = "127.0.0.1"
KILL_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 5.0
DEAF_SECONDS: Final = 0.2
"""How often a supervisor that lives and does not answer is looked at."""
CREATED_SECONDS: Final = 0.1
KEEP_SECONDS: Final = 6 * 3600.0
"""How often environments that nobody uses are looked for."""
WARNING: Final = (
    "runs are processes of this host's user: nothing isolates them from the host, from the daemon, or from each other"
)
GONE: Final = ExitStatus(exit_code=None, gone=True, error="its folder was removed while the run was under way")
_EXECUTION_ID: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{0,63}")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSettings:
    """What the operator decides for every run."""

    runs_dir: Path
    env_dir: Path
    python: str | None = None
    """The usual interpreter, a path or a version; None: the first on this host that Prefect can use."""
    path: str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    """PATH of the runs, behind the commands of their environment."""
    env_retention_days: float = 14.0
    output_max_bytes: int = 50 * 1024 * 1024
    output_max_files: int = 2
    control_groups: bool = True
    """Used where the host allows it; else memory is watched."""
    late_seconds: float = 5.0
    """How much later than the daemon a supervisor ends a run that is over its time."""
    shared: DockerSettings = field(default_factory=DockerSettings)
    """What holds for runs in containers too: proxies, package index, authorities, the length of a line."""


class ProcessDriver:
    """A `Driver` over this host's own processes."""

    name = NAME

    def __init__(self, instance_id: str, settings: ProcessSettings) -> None:
        self._instance_id = instance_id
        self._settings = settings
        self._groups = process_cgroup.Groups()
        self._environments: Environments | None = None

    async def open(self) -> DriverInfo:
        """The folders are there and what holds limits is known."""
        if not sys.platform.startswith("linux"):
            raise ManagedError(
                ErrorCode.DRIVER, "Runs without a container engine need Linux; use runs.driver = 'docker'"
            )
        return await anyio.to_thread.run_sync(self._open)

    def _open(self) -> DriverInfo:
        settings = self._settings
        shared = environment_of_settings(settings.shared)
        made = Environments(
            settings.env_dir,
            uv=uv_program(),
            python=settings.python,
            settings=shared,
            ca_bundle=settings.shared.ca_bundle,
        )
        version = made.open()
        try:
            settings.runs_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ManagedError(ErrorCode.DRIVER, f"{settings.runs_dir} can't be made: {error.strerror}") from error
        self._environments = made
        self._groups = process_cgroup.find(self._instance_id) if settings.control_groups else process_cgroup.Groups()
        held = self._groups.parents
        return DriverInfo(
            name=NAME,
            version=f"(uv {version})",
            detail={
                "isolation": "none",
                "warning": WARNING,
                "limits": {
                    "memory": "control group"
                    if "memory" in held
                    else "watched: the sum of resident memory, shared pages once near the limit",
                    "time": "supervisor",
                    "disk": "weighed: the run's own folder",
                    **{name: "control group" for name in ("pids", "cpu") if name in held},
                },
                "unsupported": self.unsupported(),
                "runs_dir": str(settings.runs_dir),
                "env_dir": str(settings.env_dir),
                "is_local": True,
            },
        )

    def unsupported(self) -> list[str]:
        """The limits that this host can't hold for processes."""
        return [name for name in ("pids", "cpu") if name not in self._groups.parents]

    async def close(self) -> None:
        """Runs live on, with their groups; a place for groups that is empty goes."""
        self._groups.leave()

    async def keep(self) -> None:
        """Environments that nobody uses are removed now and then, until cancelled."""
        while True:
            await self.remove_unused()
            await anyio.sleep(KEEP_SECONDS)

    async def remove_unused(self) -> None:
        """Environments that no run has used for as long as the settings say are gone."""
        if self._environments is not None:
            seconds = self._settings.env_retention_days * 86_400
            for name in await anyio.to_thread.run_sync(self._environments.remove_unused, seconds):
                _log.info("environment.removed", name=name)

    async def prepare(self, spec: RunSpec, progress: Progress) -> None:
        """The environment is there."""
        await self._opened().prepare(spec.image, spec.pull_policy, progress)
        not_held = [name for name in _by_group(spec) if name not in self._groups.parents]
        if not_held:
            await progress(
                f"This host can't hold these limits of a run without a container engine: {', '.join(not_held)}"
            )

    async def create(self, spec: RunSpec) -> Handle:
        """The folder exists with its files in it; one that this execution has already is adopted."""
        folder = self._folder(spec.execution_id)
        with doing("The run's folder could not be made"):
            await anyio.to_thread.run_sync(self._place, folder, spec)
        return _handle(spec.execution_id)

    def _place(self, folder: RunFolder, spec: RunSpec) -> None:
        there = folder.spec()
        if there is not None:
            if there.get("instance_id") != spec.instance_id:
                raise ManagedError(ErrorCode.DRIVER, f"{folder.path} is another daemon's run")
            return
        environments = self._opened()
        base = environments.find(spec.image)
        if base is None:
            raise ManagedError(ErrorCode.DRIVER, f"The environment for image {spec.image} is gone")
        files = {**shared_files(self._settings.shared), **own_files(spec)}
        folder.place(files, base, lambda made: self._written(made, spec), environments.installer_environment())

    def _written(self, folder: RunFolder, spec: RunSpec) -> dict[str, Any]:
        """What the supervisor reads: the only place where the run's environment, and with it its key, is on disk."""
        settings = self._settings
        given = {**folder.base_environment(settings.path), **environment(spec, settings.shared)}
        given["PATH"] = f"{folder.path / 'env' / 'bin'}{os.pathsep}{given['PATH']}"
        given[run_tree.MARK] = spec.execution_id
        given.pop("TINI_SUBREAPER", None)
        limit = spec.time_limit_seconds
        shim = [
            folder.python(), "-IS", str(folder.path / "shim.py"), "--installer", str(folder.path / "run_environment.py"),
            "--install-timeout-seconds", str(spec.install_timeout_seconds), "--", *spec.command,
        ]  # fmt: skip
        return {
            "version": 1,
            "execution_id": spec.execution_id,
            "flow_run_id": spec.flow_run_id,
            "instance_id": spec.instance_id,
            "shim": shim,
            "env": given,
            "memory_bytes": spec.memory_bytes,
            "time_limit_seconds": None if limit is None else limit + settings.late_seconds,
            "stop_grace_seconds": spec.stop_grace_seconds,
            "output_max_bytes": settings.output_max_bytes,
            "output_max_files": settings.output_max_files,
            "groups": dict(self._groups.parents),
            "group_limits": self._groups.limits(spec),
            "limits_by_group": _by_group(spec),
        }

    async def start(self, handle: Handle) -> None:
        """The supervisor was started."""
        folder = self._folder_of(handle)
        what = "The run's process could not be started"
        if await self._look(folder) in {Liveness.RUNNING, Liveness.EXITED}:
            return
        with doing(what):
            if not folder.path.is_dir():
                raise ManagedError(ErrorCode.DRIVER, f"{what}: its folder is gone")
            # Its end is the end of the launcher alone: the supervisor has left by then.
            done = await anyio.run_process(
                [folder.python(), "-IS", str(folder.path / "supervisor.py")],
                stdin=subprocess.DEVNULL,
                env={"PATH": self._settings.path, "LANG": "C.UTF-8", run_tree.MARK: folder.execution_id},
                start_new_session=True,
                check=False,
            )
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise ManagedError(ErrorCode.DRIVER, f"{what}: {said[-1] if said else f'exit code {done.returncode}'}")

    async def recover(self, handle: Handle) -> Liveness:
        """What became of the run."""
        return await self._look(self._folder_of(handle))

    async def started_ago(self, handle: Handle) -> float | None:
        """By what its supervisor has written down."""
        folder = self._folder_of(handle)
        with doing("The run's folder could not be looked at"):
            return await anyio.to_thread.run_sync(folder.started_ago)

    async def wait(self, handle: Handle) -> ExitStatus:
        """The run has ended, or is gone."""
        folder = self._folder_of(handle)
        while True:
            liveness = await self._look(folder)
            if liveness is Liveness.GONE:
                # Its processes may live on without their folder.
                await self._kill(folder)
                return GONE
            if liveness is Liveness.EXITED:
                return await anyio.to_thread.run_sync(_buried, folder)
            if liveness is Liveness.CREATED:
                await anyio.sleep(CREATED_SECONDS)
                continue
            async with self._talk(folder, "wait") as line:
                if line is None:
                    await anyio.sleep(DEAF_SECONDS)
                    continue
                while await _hear(line) is not None:
                    pass

    async def stop(self, handle: Handle, *, grace_seconds: float) -> None:
        """The run has ended: by itself after SIGTERM within the grace, or killed."""
        folder = self._folder_of(handle)
        if await self._look(folder) is not Liveness.RUNNING:
            return
        with anyio.move_on_after(grace_seconds + KILL_SECONDS):
            async with self._talk(folder, f"stop {grace_seconds:f}") as line:
                while line is not None and await _hear(line) is not None:
                    pass
        if await self._look(folder) is Liveness.RUNNING and not await self._kill(folder):
            raise ManagedError(ErrorCode.DRIVER, "The run's processes could not be killed")

    async def remove(self, handle: Handle) -> None:
        """No process and no file of the run is left."""
        folder = self._folder_of(handle)
        if not await self._kill(folder):
            raise ManagedError(ErrorCode.DRIVER, "The run's processes could not be killed")
        with doing("The run's folder could not be removed"):
            await anyio.to_thread.run_sync(folder.remove)
        if self._environments is not None:
            await anyio.to_thread.run_sync(self._environments.forget, folder.path.name)

    @contextlib.asynccontextmanager
    async def logs(self, handle: Handle, after: LogCursor) -> AsyncIterator[AsyncIterator[RawLine]]:
        """The run's lines after `after`."""
        reader = LogReader(after, line_bytes=self._settings.shared.line_bytes)
        lines = self._follow(self._folder_of(handle), reader)
        async with contextlib.aclosing(lines):
            yield lines

    async def stats(self, handle: Handle) -> Usage | None:
        """One reading, when it runs."""
        folder = self._folder_of(handle)
        if await self._look(folder) is not Liveness.RUNNING:
            return None
        async with self._talk(folder, "usage") as line:
            said = None if line is None else await _hear(line)
        if not said:
            return None
        with contextlib.suppress(ValueError, LookupError, TypeError):
            found = json.loads(said)
            return Usage(
                memory_bytes=int(found["memory_bytes"]),
                peak_memory_bytes=int(found["peak_memory_bytes"]),
                cpu_seconds=float(found["cpu_seconds"]),
                pids=int(found["tasks"]),
            )
        return None

    async def disk(self, handle: Handle) -> int | None:
        """The size of the run's own folder, while it runs; what it writes elsewhere nobody can tell from others' files."""
        folder = self._folder_of(handle)
        if await self._look(folder) is not Liveness.RUNNING:
            return None
        return await anyio.to_thread.run_sync(folder.written_bytes)

    async def list_owned(self, instance_id: str) -> list[Found]:
        """Every run's folder of that daemon, half-made ones too."""
        with doing("The runs' folders could not be listed"):
            return await anyio.to_thread.run_sync(self._listed, instance_id)

    def _listed(self, instance_id: str) -> list[Found]:
        found = []
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self._settings.runs_dir):
                if _EXECUTION_ID.fullmatch(name) is None:
                    continue
                folder = RunFolder(self._settings.runs_dir, name)
                spec = folder.spec() or {}
                if spec.get("instance_id", self._instance_id) != instance_id:
                    continue
                with contextlib.suppress(FileNotFoundError):
                    # The folder's own time is that of the last file made or removed in it.
                    made = (folder.path / "lock") if spec else folder.path
                    created_us = made.stat().st_mtime_ns // 1000
                    liveness = folder.liveness() if spec else Liveness.CREATED
                    found.append(
                        Found(
                            execution_id=name,
                            flow_run_id=spec.get("flow_run_id"),
                            handle=_handle(name),
                            liveness=liveness,
                            created_at_us=created_us,
                        )
                    )
        return found

    async def api_host(self) -> str | None:
        """This host."""
        return LOOPBACK

    async def bind_host(self) -> str | None:
        """Nobody else is let in."""
        return LOOPBACK

    async def enclose(self, ways: Sequence[Way]) -> Enclosure | None:
        """Nothing keeps a process of this host from it."""
        return None

    # --- one run ---------------------------------------------------------------------------------------------------------

    def _opened(self) -> Environments:
        if self._environments is None:
            raise ManagedError(ErrorCode.DRIVER, "The process driver was not opened")
        return self._environments

    def _folder(self, execution_id: str) -> RunFolder:
        if _EXECUTION_ID.fullmatch(execution_id) is None:
            raise ManagedError(ErrorCode.DRIVER, f"{execution_id!r} is no execution's id")
        return RunFolder(self._settings.runs_dir, execution_id, self._groups.parents.values())

    def _folder_of(self, handle: Handle) -> RunFolder:
        execution_id = handle.data.get("id")
        if handle.driver != NAME or handle.version != HANDLE_VERSION or not isinstance(execution_id, str):
            raise ManagedError(
                ErrorCode.DRIVER,
                f"This is no handle of the process driver: driver {handle.driver!r}, version {handle.version}",
            )
        return self._folder(execution_id)

    async def _look(self, folder: RunFolder) -> Liveness:
        with doing("The run's folder could not be looked at"):
            return folder.liveness()

    async def _kill(self, folder: RunFolder) -> bool:
        return await anyio.to_thread.run_sync(folder.kill, KILL_SECONDS)

    @contextlib.asynccontextmanager
    async def _talk(self, folder: RunFolder, request: str) -> AsyncIterator[SocketStream | None]:
        """A connection to the run's supervisor that was asked for something; None when nobody answers."""
        line: SocketStream | None = None
        with contextlib.suppress(OSError, TimeoutError, anyio.BrokenResourceError):
            # By the folder's descriptor: its path may be longer than a socket's address can be.
            place = os.open(folder.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                with anyio.fail_after(ANSWER_SECONDS):
                    line = await anyio.connect_unix(f"/proc/self/fd/{place}/s")
                    await line.send(f"{request}\n".encode())
            finally:
                os.close(place)
        try:
            yield line
        finally:
            if line is not None:
                with anyio.CancelScope(shield=True):
                    await line.aclose()

    async def _follow(self, folder: RunFolder, reader: LogReader) -> AsyncGenerator[RawLine, None]:
        """The lines, over every silence that is not the end of the run."""
        files = OutputFiles(folder.path / "output")
        try:
            while True:
                # Asked before reading: of a run that had ended by now, this reading is the last.
                liveness = await self._look(folder)
                if liveness is Liveness.GONE:
                    break
                if liveness is Liveness.CREATED:
                    await anyio.sleep(CREATED_SECONDS)
                    continue
                if liveness is Liveness.EXITED:
                    while (lines := await _more(files, reader)) is not None:
                        for line in lines:
                            yield line
                    break
                async with self._talk(folder, "follow") as news:
                    while True:
                        while (lines := await _more(files, reader)) is not None:
                            for line in lines:
                                yield line
                        if news is None or await _hear(news) is None:
                            break
                    if news is None:
                        await anyio.sleep(DEAF_SECONDS)
        finally:
            files.close()
        for line in reader.finish():
            yield line


@contextlib.contextmanager
def doing(what: str) -> Any:
    """Whatever fails on this host inside the block is a ManagedError(DRIVER) that begins with `what`."""
    try:
        yield
    except (OSError, shutil.Error, FrameError) as error:
        raise ManagedError(ErrorCode.DRIVER, f"{what}: {error}") from error


def environment_of_settings(shared: DockerSettings) -> dict[str, str]:
    """The settings that say how packages are reached, as an installer reads them."""
    found: dict[str, str] = {}
    for name, value in (
        ("http_proxy", shared.http_proxy),
        ("https_proxy", shared.https_proxy),
        ("no_proxy", shared.no_proxy),
    ):
        if value is not None:
            found |= {name: value, name.upper(): value}
    if shared.package_index_url is not None:
        found["UV_DEFAULT_INDEX"] = shared.package_index_url
    if shared.package_extra_index_urls:
        found["UV_INDEX"] = " ".join(shared.package_extra_index_urls)
    return found


async def _more(files: OutputFiles, reader: LogReader) -> list[RawLine] | None:
    """The lines that the next bytes complete; None when there are no more bytes now."""
    with doing("The run's output could not be read"):
        data = await anyio.to_thread.run_sync(files.read)
        return reader.feed(data) if data else None


async def _hear(line: SocketStream) -> bytes | None:
    """What came on the connection; None at its end."""
    try:
        return await line.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError, OSError):
        return None


def _buried(folder: RunFolder) -> ExitStatus:
    folder.bury(KILL_SECONDS)
    return folder.status()


def _by_group(spec: RunSpec) -> list[str]:
    """The limits of the run that a control group alone can hold."""
    return [name for name, limit in (("cpu", spec.cpus), ("pids", spec.pids)) if limit is not None]


def _handle(execution_id: str) -> Handle:
    return Handle(driver=NAME, version=HANDLE_VERSION, data={"id": execution_id})
