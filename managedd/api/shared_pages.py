"""Pages that several sockets ask for are read once: a thousand who follow one run read like one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from managedd.errors import ManagedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from managedd.store.tails import Page

    Read = Callable[[int, int], Awaitable[Page]]
    """Gives what lies behind one cursor, up to and with another."""

HELD_BYTES: Final = 4 * 1024 * 1024
HELD_PAGES: Final = 64


class _Held:
    """A page that is read, or was."""

    __slots__ = ("done", "failure", "page")

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.page: Page | None = None
        self.failure: ManagedError | None = None


class SharedPages:
    """The last few pages, the oldest first. Belongs to the event loop."""

    def __init__(self) -> None:
        self._held: dict[Hashable, _Held] = {}
        self._sizes: dict[Hashable, int] = {}
        self._size_bytes = 0

    def shared(self, asked: Hashable, read: Read) -> Read:
        """`read` such that of those who ask for the same, one reads what lies between two cursors.

        `asked` must say all that a page depends on but its cursors.
        """

        def page(after: int, until: int) -> Awaitable[Page]:
            return self.page((asked, after, until), lambda: read(after, until))

        return page

    async def page(self, key: Hashable, read: Callable[[], Awaitable[Page]]) -> Page:
        """The page of that key, by `read` unless somebody else reads it or has. Raises what `read` raises."""
        while (held := self._held.get(key)) is not None:
            await held.done.wait()
            if held.failure is not None:
                raise ManagedError(
                    held.failure.code, held.failure.message, retry_after_seconds=held.failure.retry_after_seconds
                )
            if held.page is not None:
                return held.page
            # Who read it went away meanwhile.
        held = self._held[key] = _Held()
        try:
            held.page = await read()
        except ManagedError as error:
            held.failure = error
            raise
        finally:
            held.done.set()
            if held.page is None:
                del self._held[key]
        self._keep(key, held.page)
        return held.page

    def _keep(self, key: Hashable, page: Page) -> None:
        size = sum(map(len, page.frames))
        self._sizes[key] = size
        self._size_bytes += size
        while self._size_bytes > HELD_BYTES or len(self._sizes) > HELD_PAGES:
            oldest = next(iter(self._sizes))
            self._size_bytes -= self._sizes.pop(oldest)
            del self._held[oldest]
