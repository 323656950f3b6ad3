"""A driver without an engine: containers are values, their lives are planned. For tests of everything above a driver.

`FakeEngine` is what outlives the daemon: give the same one to a second `FakeDriver` and it finds what the first one left. Everything
that happens is a function of the plan, the clock and the calls; there is no chance and no task in the background.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import anyio

from managedd.clock import Clock, SystemClock
from managedd.errors import ErrorCode, ManagedError
from managedd.model.drivers import DriverInfo, ExitStatus, Found, Handle, ImageError, Liveness, PullPolicy, Usage
from managedd.model.logs import LogCursor, RawLine, Stream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

    from managedd.model.addresses import Way
    from managedd.model.drivers import Enclosure, Progress, RunSpec

NAME: Final = "fake"
LOOK_SECONDS: Final = 0.02
"""How often a waiter looks at a clock that a test turns by hand."""
SIGTERM_CODE: Final = 143
KILLED: Final = 137
INSTALL_FAILED: Final = 210


@dataclass(slots=True, kw_only=True)
class FakeRun:
    """How one container will live."""

    run_for_seconds: float | None = 0.0
    """None: until it is stopped or `FakeEngine.finish` ends it."""
    exit_code: int = 0
    oom: bool = False
    peak_memory_bytes: int | None = None
    pids: int = 1
    disk_bytes: int = 0
    """What it has written since its start."""
    lines: tuple[str | tuple[Stream, str], ...] = ()
    line_interval_seconds: float = 0.0
    """0: all at its start, with one timestamp."""
    pull_seconds: float = 0.0
    image_error: str | None = None
    create_error: str | None = None
    start_error: str | None = None
    stop_error: str | None = None
    """The engine cannot kill it."""
    remove_error: str | None = None
    install_seconds: float = 0.0
    install_error: str | None = None
    """It ends after `install_seconds` with the code and evidence of a failed installation."""
    vanish_after_seconds: float | None = None
    """Somebody removes it behind our back, so long after its start."""
    ignores_sigterm: bool = False
    sigterm_seconds: float = 0.0
    """How long it takes to end after SIGTERM."""
    host_restarted: bool = False
    out_of_time: bool = False
    """Its own supervisor ended it."""


@dataclass(slots=True, kw_only=True)
class FakeContainer:
    """A container that exists."""

    id: str
    spec: RunSpec
    run: FakeRun
    created_us: int
    started_us: int | None = None
    started: float | None = None
    ends: float | None = None
    """When it ends, on the clock's monotonic time; None: nobody knows yet."""
    exit_code: int = 0
    oom: bool = False
    install_failed: bool = False
    lines: list[tuple[int, Stream, str]] = field(default_factory=list)
    """Engine timestamp in microseconds, stream, text."""


class FakeEngine:
    """The world in which fake containers live."""

    def __init__(
        self, plan: Callable[[RunSpec], FakeRun] | FakeRun | None = None, *, clock: Clock | None = None
    ) -> None:
        self._plan = plan
        self.clock = clock or SystemClock()
        self.containers: dict[str, FakeContainer] = {}
        self.calls: list[tuple[str, str]] = []
        """(verb, execution id) in the order in which they came."""
        self.images: set[str] = set()
        self.pulls: list[str] = []
        self.down = False
        """True: the engine does not answer. Verbs fail; `wait` and `logs` hold out until it is back."""
        self._changed = anyio.Event()
        self._made = 0

    def plan(self, spec: RunSpec) -> FakeRun:
        """How the container of `spec` will live."""
        if isinstance(self._plan, FakeRun):
            return self._plan
        return self._plan(spec) if self._plan else FakeRun()

    def finish(self, execution_id: str, exit_code: int = 0, *, oom: bool = False) -> None:
        """The container's main process ends now."""
        container = self.containers[execution_id]
        self.end_at(container, self.clock.monotonic(), exit_code, oom=oom)

    def vanish(self, execution_id: str) -> None:
        """Somebody has removed the container."""
        self.containers.pop(execution_id, None)
        self.wake()

    def emit(self, execution_id: str, text: str, stream: Stream = Stream.STDOUT) -> None:
        """The container has printed a line."""
        self.containers[execution_id].lines.append((self.clock.now_us(), stream, text))
        self.wake()

    def new_id(self) -> str:
        self._made += 1
        return f"fake-{self._made}"

    def end_at(self, container: FakeContainer, moment: float, exit_code: int, *, oom: bool = False) -> None:
        """The container ends then, unless it ends earlier."""
        if container.ends is None or moment < container.ends:
            container.ends, container.exit_code, container.oom = moment, exit_code, oom
            container.install_failed = False
        self.wake()

    def liveness(self, execution_id: str, container_id: str) -> Liveness:
        """What the engine would say of it now."""
        container = self.containers.get(execution_id)
        now = self.clock.monotonic()
        if container is None or container.id != container_id:
            return Liveness.GONE
        if container.started is None:
            return Liveness.CREATED
        vanish = container.run.vanish_after_seconds
        if vanish is not None and now >= container.started + vanish:
            del self.containers[execution_id]
            return Liveness.GONE
        return Liveness.EXITED if container.ends is not None and now >= container.ends else Liveness.RUNNING

    def wake(self) -> None:
        """Whoever waits looks again."""
        self._changed.set()
        self._changed = anyio.Event()

    async def something(self) -> None:
        """Return when something was changed, or the clock may have moved."""
        with anyio.move_on_after(LOOK_SECONDS):
            await self._changed.wait()


class FakeDriver:
    """A `Driver` over a `FakeEngine`."""

    name = NAME

    def __init__(self, engine: FakeEngine | None = None) -> None:
        self.engine = engine or FakeEngine()
        self._pulling: dict[str, anyio.Lock] = {}

    async def open(self) -> DriverInfo:
        self._answer("open", "")
        return DriverInfo(name=NAME, version="1", detail={"gateway": "127.0.0.1", "is_local": True})

    async def close(self) -> None:
        pass

    async def prepare(self, spec: RunSpec, progress: Progress) -> None:
        self._answer("prepare", spec.execution_id)
        run = self.engine.plan(spec)
        async with self._pulling.setdefault(spec.image, anyio.Lock()):
            if spec.image in self.engine.images and spec.pull_policy is not PullPolicy.ALWAYS:
                return
            if spec.pull_policy is PullPolicy.NEVER:
                raise ImageError("it is not on this host, and the pull policy is Never")
            await progress(f"Pulling image {spec.image}")
            self.engine.pulls.append(spec.image)
            await self._sleep(run.pull_seconds)
            if run.image_error is not None:
                raise ImageError(run.image_error)
            self.engine.images.add(spec.image)
            await progress(f"Pulled image {spec.image}")

    async def create(self, spec: RunSpec) -> Handle:
        self._answer("create", spec.execution_id)
        run = self.engine.plan(spec)
        _raise(run.create_error)
        container = self.engine.containers.get(spec.execution_id)
        if container is None:
            container = FakeContainer(
                id=self.engine.new_id(), spec=spec, run=run, created_us=self.engine.clock.now_us()
            )
            self.engine.containers[spec.execution_id] = container
        return _handle(container)

    async def start(self, handle: Handle) -> None:
        self._answer("start", _execution_id(handle))
        container = self._find(handle)
        if container is None:
            raise ManagedError(ErrorCode.DRIVER, "The container could not be started: No such container")
        if container.started is not None:
            return
        run, clock = container.run, self.engine.clock
        _raise(run.start_error)
        container.started, container.started_us = clock.monotonic(), clock.now_us()
        installed = container.started + run.install_seconds
        if run.install_error is not None:
            self.engine.end_at(container, installed, INSTALL_FAILED)
            container.install_failed = True
        elif run.run_for_seconds is not None:
            self.engine.end_at(container, installed + run.run_for_seconds, run.exit_code, oom=run.oom)
        first = container.started_us + round(run.install_seconds * 1e6)
        for number, line in enumerate(run.lines):
            stream, text = line if isinstance(line, tuple) else (Stream.STDOUT, line)
            container.lines.append((first + round(number * run.line_interval_seconds * 1e6), stream, text))
        self.engine.wake()

    async def recover(self, handle: Handle) -> Liveness:
        self._answer("recover", _execution_id(handle))
        return self._liveness(handle)

    async def started_ago(self, handle: Handle) -> float | None:
        self._answer("started_ago", _execution_id(handle))
        container = self._find(handle)
        return (
            None
            if container is None or container.started is None
            else self.engine.clock.monotonic() - container.started
        )

    async def wait(self, handle: Handle) -> ExitStatus:
        self.engine.calls.append(("wait", _execution_id(handle)))
        while self.engine.down or self._liveness(handle) in {Liveness.CREATED, Liveness.RUNNING}:
            await self.engine.something()
        container = self._find(handle)
        if container is None or container.started_us is None or container.started is None or container.ends is None:
            return ExitStatus(exit_code=None, gone=True, error="it was removed while the run was under way")
        run = container.run
        return ExitStatus(
            exit_code=container.exit_code,
            oom_killed=container.oom,
            peak_memory_bytes=run.peak_memory_bytes,
            started_at_us=container.started_us,
            finished_at_us=container.started_us + round((container.ends - container.started) * 1e6),
            host_restarted=run.host_restarted,
            out_of_time=run.out_of_time,
            install_failed=container.install_failed,
            installed_at_us=container.started_us + round(run.install_seconds * 1e6),
            error=run.install_error if container.install_failed else None,
        )

    async def stop(self, handle: Handle, *, grace_seconds: float) -> None:
        self._answer("stop", _execution_id(handle))
        container = self._find(handle)
        if container is None or self._liveness(handle) is not Liveness.RUNNING:
            return
        run, now = container.run, self.engine.clock.monotonic()
        if not run.ignores_sigterm and run.sigterm_seconds <= grace_seconds:
            self.engine.end_at(container, now + run.sigterm_seconds, SIGTERM_CODE)
        elif run.stop_error is None:
            self.engine.end_at(container, now + grace_seconds, KILLED)
        while self._liveness(handle) is Liveness.RUNNING:
            if run.stop_error is not None and self.engine.clock.monotonic() >= now + grace_seconds:
                raise ManagedError(ErrorCode.DRIVER, f"The container could not be killed: {run.stop_error}")
            await self.engine.something()

    async def remove(self, handle: Handle) -> None:
        self._answer("remove", _execution_id(handle))
        container = self._find(handle)
        if container is not None:
            _raise(container.run.remove_error)
            self.engine.vanish(_execution_id(handle))

    @contextlib.asynccontextmanager
    async def logs(self, handle: Handle, after: LogCursor) -> AsyncIterator[AsyncIterator[RawLine]]:
        lines = self._lines(handle, after)
        async with contextlib.aclosing(lines):
            yield lines

    async def stats(self, handle: Handle) -> Usage | None:
        self._answer("stats", _execution_id(handle))
        container = self._find(handle)
        if container is None or container.started is None or self._liveness(handle) is not Liveness.RUNNING:
            return None
        peak = container.run.peak_memory_bytes
        return Usage(
            memory_bytes=peak or 1024 * 1024,
            peak_memory_bytes=peak,
            cpu_seconds=self.engine.clock.monotonic() - container.started,
            pids=container.run.pids,
        )

    async def disk(self, handle: Handle) -> int | None:
        self._answer("disk", _execution_id(handle))
        container = self._find(handle)
        if container is None or container.started is None or self._liveness(handle) is not Liveness.RUNNING:
            return None
        return container.run.disk_bytes

    async def list_owned(self, instance_id: str) -> list[Found]:
        self._answer("list_owned", "")
        found = []
        for execution_id, container in list(self.engine.containers.items()):
            liveness = self.engine.liveness(execution_id, container.id)
            if container.spec.instance_id == instance_id and liveness is not Liveness.GONE:
                found.append(
                    Found(
                        execution_id=execution_id,
                        flow_run_id=container.spec.flow_run_id,
                        handle=_handle(container),
                        liveness=liveness,
                        created_at_us=container.created_us,
                    )
                )
        return found

    async def api_host(self) -> str | None:
        return "127.0.0.1"

    async def bind_host(self) -> str | None:
        return "127.0.0.1"

    async def enclose(self, ways: Sequence[Way]) -> Enclosure | None:
        self._answer("enclose", "")
        return None

    async def _lines(self, handle: Handle, after: LogCursor) -> AsyncGenerator[RawLine, None]:
        told = after
        while True:
            # Looked at first: what is printed until the end is there when the end is seen.
            ended = not self.engine.down and self._liveness(handle) in {Liveness.EXITED, Liveness.GONE}
            container = self._find(handle)
            if container is not None and not self.engine.down:
                for line in self._printed(container):
                    if line.cursor > told:
                        told = line.cursor
                        yield line
            if ended:
                return
            await self.engine.something()

    def _printed(self, container: FakeContainer) -> list[RawLine]:
        """What it has printed by now; a line that was due after its end was never printed."""
        clock = self.engine.clock
        until = clock.now_us()
        if container.ends is not None and container.started is not None and container.started_us is not None:
            until = min(until, container.started_us + round((container.ends - container.started) * 1e6))
        printed: list[RawLine] = []
        last = LogCursor()
        for moment, stream, text in container.lines:
            if moment <= until:
                timestamp = max(moment * 1000, last.timestamp_ns)
                last = LogCursor(timestamp, last.ordinal + 1 if timestamp == last.timestamp_ns else 1)
                printed.append(RawLine(stream=stream, cursor=last, text=text))
        return printed

    def _liveness(self, handle: Handle) -> Liveness:
        return self.engine.liveness(_execution_id(handle), str(handle.data["id"]))

    def _find(self, handle: Handle) -> FakeContainer | None:
        container = self.engine.containers.get(_execution_id(handle))
        return container if container is not None and container.id == handle.data["id"] else None

    def _answer(self, verb: str, execution_id: str) -> None:
        self.engine.calls.append((verb, execution_id))
        if self.engine.down:
            raise ManagedError(ErrorCode.DRIVER, "The container engine can't be used: it does not answer")

    async def _sleep(self, seconds: float) -> None:
        until = self.engine.clock.monotonic() + seconds
        while self.engine.clock.monotonic() < until:
            await self.engine.something()


def _handle(container: FakeContainer) -> Handle:
    return Handle(driver=NAME, version=1, data={"id": container.id, "execution_id": container.spec.execution_id})


def _execution_id(handle: Handle) -> str:
    if handle.driver != NAME or handle.version != 1:
        raise ManagedError(
            ErrorCode.DRIVER,
            f"This is no handle of the fake driver: driver {handle.driver!r}, version {handle.version}",
        )
    return str(handle.data["execution_id"])


def _raise(error: str | None) -> None:
    if error is not None:
        raise ManagedError(ErrorCode.DRIVER, error)
