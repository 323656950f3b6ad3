"""The Driver protocol: what a run runs in. The engine knows only this."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from managedd.model.addresses import Way
    from managedd.model.logs import LogCursor, RawLine

Progress = Callable[[str], Awaitable[None]]
"""Says one line of progress in the run's log."""


class PullPolicy(StrEnum):
    """When to ask the registry for an image."""

    IF_NOT_PRESENT = "IfNotPresent"
    ALWAYS = "Always"
    NEVER = "Never"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """What to run: pure data, nothing of any engine. Sizes in bytes, times in seconds."""

    execution_id: str
    flow_run_id: str
    instance_id: str
    """This daemon's identity: it never touches another daemon's containers."""
    image: str
    pull_policy: PullPolicy = PullPolicy.IF_NOT_PRESENT
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Secret: holds the run's key. Never logged."""
    packages: tuple[str, ...] = field(default=(), repr=False)
    """Requirement specifiers to install before the engine starts; may hold URL credentials: never logged."""
    command: tuple[str, ...] = ("prefect", "flow-run", "execute")
    labels: Mapping[str, str] = field(default_factory=dict)
    memory_bytes: int | None = None
    cpus: float | None = None
    pids: int | None = None
    install_timeout_seconds: int = 600
    time_limit_seconds: float | None = None
    """Held by the engine above; a driver whose runs have a supervisor of their own holds it too, a little later, for a daemon that is down."""
    stop_grace_seconds: float = 10.0
    """Between SIGTERM and SIGKILL when such a supervisor acts by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handle:
    """How to find the run again: opaque to the engine, persisted, versioned by its driver."""

    driver: str
    version: int
    data: Mapping[str, Any]


class Liveness(StrEnum):
    """What `recover` found."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitStatus:
    """How the run's main process ended, with evidence. An exit code is data, not an exception."""

    exit_code: int | None
    """None: nobody knows (the container is gone)."""
    oom_killed: bool = False
    """The engine saw an out-of-memory kill in the run's cgroup, of the main process or of a child."""
    peak_memory_bytes: int | None = None
    started_at_us: int | None = None
    finished_at_us: int | None = None
    gone: bool = False
    """The container vanished without evidence."""
    host_restarted: bool = False
    """It was started before the host's last boot."""
    install_failed: bool = False
    """The shim reported that installing packages failed; `error` says how."""
    out_of_time: bool = False
    """The run's own supervisor ended it because its time was over."""
    installed_at_us: int | None = None
    """When the shim's installation phase ended (also with nothing to install)."""
    unsupported: tuple[str, ...] = ()
    """Limits that the run had on paper and nothing held: `cpu`, `pids`."""
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """One reading of a running container. Bytes; CPU in seconds since its start."""

    memory_bytes: int
    peak_memory_bytes: int | None
    cpu_seconds: float
    pids: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Something of ours that exists in the engine."""

    execution_id: str
    flow_run_id: str | None
    handle: Handle
    liveness: Liveness
    created_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverInfo:
    """What the engine under the driver is."""

    name: str
    version: str
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Enclosure:
    """What keeps runs from the host that they run on."""

    holds: bool
    """They reach nothing of it but what they were let in to."""
    reason: str
    """What holds it, or why nothing does."""
    mend: str | None = None


class Driver(Protocol):
    """Order for one execution: prepare, create, start, then wait and logs side by side, then remove.

    Every verb may be cancelled and called again. Failures are `ManagedError(DRIVER)` with the engine's words, or the two errors below.
    """

    name: str

    async def open(self) -> DriverInfo:
        """The engine answers and what runs share (network, caches) exists. Raises ManagedError(DRIVER) when not."""

    async def close(self) -> None:
        """Connections are closed; runs live on."""

    async def prepare(self, spec: RunSpec, progress: Progress) -> None:
        """The image (or environment) of `spec` is there. Shared between concurrent callers of the same image.

        Raises ImageError when it can't be.
        """

    async def create(self, spec: RunSpec) -> Handle:
        """A container of `spec` exists, not started. Idempotent: an existing one of that execution is adopted."""

    async def start(self, handle: Handle) -> None:
        """The container was started. Idempotent: one that runs or has ended already is left alone."""

    async def recover(self, handle: Handle) -> Liveness:
        """What became of it. Never raises for a missing container."""

    async def started_ago(self, handle: Handle) -> float | None:
        """How many seconds ago it was started, by the engine's own clock, whether it has ended since or not; None: never, or nobody knows."""

    async def wait(self, handle: Handle) -> ExitStatus:
        """Return when the main process has really ended, or the container is gone. Survives engine restarts and cut connections."""

    async def stop(self, handle: Handle, *, grace_seconds: float) -> None:
        """SIGTERM, at most `grace_seconds`, SIGKILL; the main process has ended afterwards. No error when it had.

        Raises ManagedError(DRIVER) when the engine could not kill it.
        """

    async def remove(self, handle: Handle) -> None:
        """Nothing of the execution is left in the engine. No error when nothing was."""

    def logs(self, handle: Handle, after: LogCursor) -> AbstractAsyncContextManager[AsyncIterator[RawLine]]:
        """The lines after `after`, following; ends when the container ended and every line was delivered. Whole lines, in order, once.

        Lines that an engine has passed over while it was followed come after the last, with cursors beyond it.
        """

    async def stats(self, handle: Handle) -> Usage | None:
        """One reading; None when it does not run."""

    async def disk(self, handle: Handle) -> int | None:
        """How many bytes of files it has written by now; None when it does not run, or when that can't be told."""

    async def list_owned(self, instance_id: str) -> list[Found]:
        """Everything of this daemon that exists in the engine, running or not."""

    async def api_host(self) -> str | None:
        """The host name or address under which a run reaches this host's listeners; None: use the configured URL."""

    async def bind_host(self) -> str | None:
        """The local address on which the runs' listener should listen (for Docker: the bridge's gateway); None: not on this host."""

    async def enclose(self, ways: Sequence[Way]) -> Enclosure | None:
        """Runs reach what the settings let them and `ways`, address (None: any) and port; asked again and again. None: nothing here can.

        Raises ManagedError(DRIVER) when what the settings demand can't be had: then nothing may be started.
        """


class ImageError(Exception):
    """The image could not be made ready; the message is for the run's owner."""
