"""The wish to stop, as the work that brings a container up meets it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from managedd.model.executions import EndCause

T = TypeVar("T")


class Unwanted(Exception):
    """The execution has to stop; the work that was under way was broken off."""

    def __init__(self, cause: EndCause) -> None:
        super().__init__(cause.value)
        self.cause = cause


class Interruption:
    """The wish to stop, as the work that brings a container up sees it.

    Work says itself where it may be broken off: between an engine's effect and our row for it, it may not.
    """

    def __init__(self) -> None:
        self._cause: EndCause | None = None
        self._scope: anyio.CancelScope | None = None
        self._looked = anyio.Event()

    def looked(self) -> None:
        """Somebody has asked the rows: what they had to say against the work by then is known."""
        self._looked.set()

    async def until_looked(self) -> None:
        """Returns when the rows were asked once."""
        await self._looked.wait()

    def wish(self, cause: EndCause) -> None:
        """The work is broken off, now or where it next may be."""
        self._cause = cause
        if self._scope is not None:
            self._scope.cancel()

    def check(self) -> None:
        """Raises Unwanted when somebody wishes so."""
        if self._cause is not None:
            raise Unwanted(self._cause)

    async def breakable(self, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` came to. Raises Unwanted when it was broken off."""
        self.check()
        try:
            with anyio.CancelScope() as self._scope:
                result = await work()
        finally:
            self._scope = None
        self.check()
        return result

    async def pausing(self, seconds: float) -> None:
        """Sleeps; a stop wakes."""
        await self.breakable(lambda: anyio.sleep(seconds))
