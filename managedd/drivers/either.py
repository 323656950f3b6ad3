"""What runs run in, chosen at the start: containers or processes, and the other one for what an earlier start has left running in it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final, Literal

import anyio
import structlog

from managedd.errors import ErrorCode, ManagedError
from managedd.model.drivers import ExitStatus, Liveness

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from managedd.model.addresses import Way
    from managedd.model.drivers import Driver, DriverInfo, Enclosure, Found, Handle, Progress, RunSpec, Usage
    from managedd.model.logs import LogCursor, RawLine

GIVE_UP_SECONDS: Final = 600.0
"""So long an engine that new runs don't need is asked for those that ran in it before they count as lost."""

_log = structlog.get_logger(__name__)


class Part:
    """A `Driver` that is opened when it is first needed. Runs in one that never answers are gone after a while, with that reason."""

    def __init__(self, driver: Driver, *, give_up_seconds: float = GIVE_UP_SECONDS) -> None:
        self.driver = driver
        self.name = driver.name
        self.is_open = False
        self.is_needed = False
        self._give_up_seconds = give_up_seconds
        self._asked_at: float | None = None
        self._problem = ""
        self._lock = anyio.Lock()

    async def open(self) -> DriverInfo:
        """It is open."""
        async with self._lock:
            info = await self.driver.open()
            self.is_open = True
            return info

    async def close(self) -> None:
        """Its connections are closed."""
        if self.is_open:
            await self.driver.close()

    async def _there(self) -> Driver | None:
        """The driver, open; None when it was given up. Raises ManagedError(DRIVER) while there is hope."""
        if self.is_open:
            return self.driver
        now = anyio.current_time()
        self._asked_at = now if self._asked_at is None else self._asked_at
        try:
            await self.open()
        except ManagedError as error:
            self._problem = error.message
            if now - self._asked_at < self._give_up_seconds:
                raise
            return None
        return self.driver

    async def _must(self) -> Driver:
        driver = await self._there()
        if driver is None:
            raise ManagedError(ErrorCode.DRIVER, self._problem)
        return driver

    async def prepare(self, spec: RunSpec, progress: Progress) -> None:
        await (await self._must()).prepare(spec, progress)

    async def create(self, spec: RunSpec) -> Handle:
        return await (await self._must()).create(spec)

    async def start(self, handle: Handle) -> None:
        await (await self._must()).start(handle)

    async def recover(self, handle: Handle) -> Liveness:
        driver = await self._there()
        return Liveness.GONE if driver is None else await driver.recover(handle)

    async def started_ago(self, handle: Handle) -> float | None:
        driver = await self._there()
        return None if driver is None else await driver.started_ago(handle)

    async def wait(self, handle: Handle) -> ExitStatus:
        driver = await self._there()
        if driver is None:
            reason = f"it ran in {self.name}, which has not answered since this daemon's start ({self._problem})"
            return ExitStatus(exit_code=None, gone=True, error=reason)
        return await driver.wait(handle)

    async def stop(self, handle: Handle, *, grace_seconds: float) -> None:
        driver = await self._there()
        if driver is not None:
            await driver.stop(handle, grace_seconds=grace_seconds)

    async def remove(self, handle: Handle) -> None:
        driver = await self._there()
        if driver is not None:
            await driver.remove(handle)

    @contextlib.asynccontextmanager
    async def logs(self, handle: Handle, after: LogCursor) -> AsyncIterator[AsyncIterator[RawLine]]:
        driver = await self._there()
        if driver is None:
            nothing = _nothing()
            async with contextlib.aclosing(nothing):
                yield nothing
            return
        async with driver.logs(handle, after) as lines:
            yield lines

    async def stats(self, handle: Handle) -> Usage | None:
        driver = await self._there()
        return None if driver is None else await driver.stats(handle)

    async def disk(self, handle: Handle) -> int | None:
        driver = await self._there()
        return None if driver is None else await driver.disk(handle)

    async def list_owned(self, instance_id: str) -> list[Found]:
        driver = await self._there()
        return [] if driver is None else await driver.list_owned(instance_id)

    async def api_host(self) -> str | None:
        return await (await self._must()).api_host()

    async def bind_host(self) -> str | None:
        return await (await self._must()).bind_host()

    async def enclose(self, ways: Sequence[Way]) -> Enclosure | None:
        return await (await self._must()).enclose(ways)


class Either:
    """A `Driver` that is one of two: the one that was wanted, or for `auto` containers where an engine answers, else processes."""

    def __init__(
        self,
        docker: Driver,
        process: Driver,
        *,
        wanted: Literal["auto", "docker", "process"],
        refusal: str | None = None,
        give_up_seconds: float = GIVE_UP_SECONDS,
    ) -> None:
        self._docker = Part(docker, give_up_seconds=give_up_seconds)
        self._process = Part(process, give_up_seconds=give_up_seconds)
        self._wanted = wanted
        self._refusal = refusal
        """Why `auto` may not mean processes."""
        self._chosen = {"docker": self._docker, "process": self._process}.get(wanted)
        self.name = (self._chosen or self._docker).name
        """The one that new runs get; before the choice, the one that is tried first."""

    def part(self, name: str) -> Driver | None:
        """The one of that name, for what an earlier start has left in it."""
        for part in (self._docker, self._process):
            if part.name == name:
                part.is_needed = True
                return part
        return None

    async def open(self) -> DriverInfo:
        """What new runs get is chosen for this daemon's life, and open. Raises ManagedError(DRIVER) as long as none can be."""
        if self._chosen is None:
            try:
                info = await self._docker.open()
            except ManagedError as error:
                self._may_be_processes(error)
                info = await self._process.open()
                _log.info("driver.chosen", driver=self._process.name, reason=error.message)
                self._chosen = self._process
            else:
                self._chosen = self._docker
            self.name = self._chosen.name
        else:
            info = await self._chosen.open()
        if info.detail.get("isolation") == "none":
            _log.warning("runs.not_isolated", driver=info.name, reason=info.detail.get("warning"))
        return info

    def _may_be_processes(self, error: ManagedError) -> None:
        """Returns when `auto` may mean processes."""
        if self._refusal is not None:
            raise ManagedError(
                ErrorCode.DRIVER, f"{error.message}. Runs as processes are refused: {self._refusal}"
            ) from error

    async def keep(self) -> None:
        """What the other one and this one keep for their runs is tidied now and then, until cancelled."""
        keep = getattr(self._process.driver, "keep", None)
        if keep is not None and self._process.is_open:
            await keep()
        else:
            await anyio.sleep_forever()

    async def close(self) -> None:
        """Connections are closed; runs live on."""
        await self._docker.close()
        await self._process.close()

    async def other_bind_host(self) -> str | None:
        """Where runs of the other one reach this host, as long as there are any that it may still know of."""
        other = self._other()
        if other is None or not other.is_needed or not other.is_open:
            return None
        return await other.bind_host()

    def _other(self) -> Part | None:
        if self._chosen is None:
            return None
        return self._process if self._chosen is self._docker else self._docker

    def _now(self) -> Part:
        return self._chosen or self._docker

    def _of(self, handle: Handle) -> Driver:
        return next((part for part in (self._docker, self._process) if part.name == handle.driver), self._now())

    async def prepare(self, spec: RunSpec, progress: Progress) -> None:
        await self._now().prepare(spec, progress)

    async def create(self, spec: RunSpec) -> Handle:
        return await self._now().create(spec)

    async def start(self, handle: Handle) -> None:
        await self._of(handle).start(handle)

    async def recover(self, handle: Handle) -> Liveness:
        return await self._of(handle).recover(handle)

    async def started_ago(self, handle: Handle) -> float | None:
        return await self._of(handle).started_ago(handle)

    async def wait(self, handle: Handle) -> ExitStatus:
        return await self._of(handle).wait(handle)

    async def stop(self, handle: Handle, *, grace_seconds: float) -> None:
        await self._of(handle).stop(handle, grace_seconds=grace_seconds)

    async def remove(self, handle: Handle) -> None:
        await self._of(handle).remove(handle)

    @contextlib.asynccontextmanager
    async def logs(self, handle: Handle, after: LogCursor) -> AsyncIterator[AsyncIterator[RawLine]]:
        async with self._of(handle).logs(handle, after) as lines:
            yield lines

    async def stats(self, handle: Handle) -> Usage | None:
        return await self._of(handle).stats(handle)

    async def disk(self, handle: Handle) -> int | None:
        return await self._of(handle).disk(handle)

    async def list_owned(self, instance_id: str) -> list[Found]:
        """Everything of this daemon in the chosen one, and in the other where that can be told."""
        found = await self._now().list_owned(instance_id)
        other = self._other()
        if other is not None and (other.is_needed or other.is_open):
            with contextlib.suppress(ManagedError):
                found += await other.list_owned(instance_id)
        return found

    async def api_host(self) -> str | None:
        return await self._now().api_host()

    async def bind_host(self) -> str | None:
        return await self._now().bind_host()

    async def enclose(self, ways: Sequence[Way]) -> Enclosure | None:
        other = self._other()
        if other is not None and other.is_needed and other.is_open:
            # Runs that live on there are kept where they are too; that it can't be done stops none of the new ones.
            with contextlib.suppress(ManagedError):
                await other.enclose(ways)
        return await self._now().enclose(ways)


async def _nothing() -> AsyncGenerator[RawLine, None]:
    """No line."""
    return
    yield
