"""A page that somebody looks at is kept up to date: made again after what may have changed it, and sent when it has.

One stream of server-sent events for each open page. Nothing is queued for a slow one: the next sending is of what is there then. What
wakes us is the whole daemon's business, so that nothing is sent but what this person's page shows.
"""

from __future__ import annotations

import hashlib
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

import anyio
from aiohttp import web

from managedd.api.key_watch import holders
from managedd.api.operation import InvalidRequest
from managedd.errors import ManagedError
from managedd.ui.page import Sent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from managedd.ui.asking import Ask
    from managedd.ui.page import Page

TYPE: Final = "text/event-stream"
PACE_SECONDS: Final = 1.0
"""Between two makings of one page at least."""
SLOWEST_SECONDS: Final = 15.0
"""And at most, however many pages are looked at: with a beat's time it is less than what a browser takes for a loss."""
SHARE: Final = 0.2
"""Of a processor: what making pages again takes, all of them together. The rest is for runs."""
BEAT_SECONDS: Final = 15.0
"""A word is sent at least so often: proxies drop what is silent, and the browser shows what is lost."""
SEND_SECONDS: Final = 20.0
"""Who takes nothing for so long is gone."""
_STREAMS: Final = "live pages"


def is_wanted(request: web.Request) -> bool:
    """Whether the request is for the stream of a page, not for the page."""
    return TYPE in request.headers.get("Accept", "")


class Watched:
    """The pages that are looked at. Belongs to the event loop."""

    def __init__(self) -> None:
        self._count = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """One more, as long as the block lasts."""
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1

    def pace_seconds(self, took_seconds: float) -> float:
        """How long a page that took so much of a processor to make is left as it is."""
        return max(PACE_SECONDS, min(SLOWEST_SECONDS, took_seconds * self._count / SHARE))


async def stream(ask: Ask, make: Callable[[], Awaitable[str]], page: Page, watched: Watched) -> web.StreamResponse:
    """The page's stream, until it is left, its credential ends, or the daemon stops."""
    request, services = ask.request, ask.services
    response = web.StreamResponse(
        headers={"Content-Type": TYPE, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )
    with ask.api.limits.socket(f"{_STREAMS} of {request.remote}"):
        await response.prepare(request)
        with anyio.CancelScope() as scope, services.sockets.registered(_Stopped(scope)), ExitStack() as held:
            held.enter_context(watched.one())
            for holder in holders(ask.actor.holder, ask.place.workspace):
                held.enter_context(services.keys.watching(holder, scope.cancel))
            try:
                await _send_news(ask, response, make, page, watched)
            except (ConnectionError, TimeoutError):
                # Whoever looked has gone, or takes nothing any more; that is nobody's failure.
                if request.transport is not None:
                    request.transport.abort()
        return response


class _Stopped:
    """How the daemon ends a stream: the browser then looks for the next one by itself."""

    def __init__(self, scope: anyio.CancelScope) -> None:
        self._scope = scope

    def stop(self, code: int, reason: str) -> None:
        """The stream ends."""
        self._scope.cancel()


async def _send_news(
    ask: Ask, response: web.StreamResponse, make: Callable[[], Awaitable[str]], page: Page, watched: Watched
) -> None:
    seen = ask.request.headers.get("Last-Event-ID") or ask.query.get("seen", "")
    with ask.services.bus.subscribe(*page.topics) as woken:
        while True:
            # Not the time that passes: where others keep the processors busy, that says nothing of the page.
            began = time.process_time()
            try:
                text = await make()
            except (ManagedError, InvalidRequest, Sent):
                # What it was about is gone, or nobody may see it any more: asked for as a page, it says so.
                await _send(response, "event: gone\ndata:\n\n")
                return
            took = time.process_time() - began
            now = mark(text)
            if now != seen:
                await _send(response, _message(now, text))
                seen = now
            await anyio.sleep(watched.pace_seconds(took))
            await _wait(response, woken.wait, page.every_seconds)


async def _wait(
    response: web.StreamResponse, wait: Callable[[float | None], Awaitable[bool]], at_most_seconds: float
) -> None:
    left = at_most_seconds
    while left > 0:
        turn = min(left, BEAT_SECONDS)
        if await wait(turn):
            return
        left -= turn
        await _send(response, "event: beat\ndata:\n\n")


async def _send(response: web.StreamResponse, text: str) -> None:
    with anyio.fail_after(SEND_SECONDS):
        await response.write(text.encode())


def _message(name: str, text: str) -> str:
    lines = "".join(f"data: {line}\n" for line in text.splitlines())
    return f"id: {name}\nevent: page\n{lines}\n"


def mark(text: str) -> str:
    """What tells one content of a page from another."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def signed_out() -> web.Response:
    """Whoever looked may not any more."""
    return web.Response(text="event: gone\ndata:\n\n", content_type=TYPE, headers={"Cache-Control": "no-store"})
