"""What every runner works with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC
from typing import TYPE_CHECKING, Final, TypeVar

import anyio

from managedd.errors import ErrorCode, ManagedError
from managedd.observe import get_log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import tzinfo

    from managedd.bus import Bus
    from managedd.clock import Clock
    from managedd.config import RunsSection
    from managedd.engine.log_writer import LogWriter
    from managedd.model.drivers import Driver, RunSpec
    from managedd.model.executions import Execution
    from managedd.store.database import Database, Tx

T = TypeVar("T")

log = get_log("runner")

VERB_SECONDS: Final = 60.0
"""An engine that takes longer for one request does not answer."""
PAUSE_SECONDS: Final = (0.2, 5.0)
REFUSALS: Final = 2
"""One that answers has refused only when it has done so twice: it may have come back between the request and the question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to run, and what the run's log shall say of it."""

    execution: Execution
    """With the image and the limits that it has from now on."""
    spec: RunSpec
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What every runner works with, and the two patiences: for our store, and for an engine that restarts."""

    db: Database
    bus: Bus
    clock: Clock
    driver: Driver
    log_writer: LogWriter
    settings: RunsSection
    instance_id: str
    job: Callable[[Execution], Awaitable[Job]]
    """What to run. Raises ManagedError(INVALID or NOT_FOUND) when the job variables can't be used."""
    zone: tzinfo = UTC
    """Of whose months compute time is counted."""
    others: Callable[[str], Driver | None] = lambda _name: None
    """By name, the drivers in which runs of an earlier start may still be."""

    def of(self, driver: str) -> Means:
        """The same for an execution of that driver."""
        other = None if driver == self.driver.name else self.others(driver)
        return self if other is None else replace(self, driver=other)

    async def write(self, body: Callable[[Tx], T]) -> T:
        """What `body` returned, committed; a store that is busy or full is waited for.

        A transaction that has begun is finished even when the caller is cancelled; the waiting is not shielded, so that a daemon whose
        disk is full can stop.
        """
        while True:
            try:
                with anyio.CancelScope(shield=True):
                    return await self.db.write(body)
            except ManagedError as error:
                if error.code is not ErrorCode.UNAVAILABLE:
                    raise
                log.warning("write.postponed", reason=error.message)
                await anyio.sleep(error.retry_after_seconds or 1.0)

    async def engine_answers(self) -> bool:
        """Whether the container engine answers at all."""
        try:
            with anyio.fail_after(VERB_SECONDS):
                await self.driver.list_owned(self.instance_id)
        except (ManagedError, TimeoutError):
            return False
        return True

    async def insist(
        self,
        verb: Callable[[], Awaitable[T]],
        pausing: Callable[[float], Awaitable[object]] = anyio.sleep,
        *,
        seconds: float | None = VERB_SECONDS,
    ) -> T:
        """What the engine did; while it does not answer it is asked again. Raises its refusal, ManagedError(DRIVER)."""
        refused, pause = 0, PAUSE_SECONDS[0]
        while True:
            try:
                with anyio.fail_after(seconds):
                    return await verb()
            except TimeoutError:
                failure = ManagedError(ErrorCode.DRIVER, f"the container engine did not answer within {seconds} s")
            except ManagedError as error:
                if error.code is not ErrorCode.DRIVER:
                    raise
                failure = error
            refused = refused + 1 if await self.engine_answers() else 0
            if refused >= REFUSALS:
                raise failure
            log.warning("engine.asked_again", reason=failure.message)
            await pausing(pause)
            pause = min(PAUSE_SECONDS[1], pause * 2)
