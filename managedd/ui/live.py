"""A page that somebody looks at is kept up to date: sent again when what may have changed it has.

One stream of server-sent events for each open page. Nothing is queued for a slow one: the next sending is of what is there then. What
wakes us is the whole daemon's business, so that nothing is sent but what this person's page shows. Events: `page`, its content, with a
mark of it as `id`; `gone`, it has to be asked for as a page; `beat`, nothing new; `version`, that of the scripts; `full`, why it is not
kept up to date.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import anyio
from aiohttp import web

from managedd.api.context import Actor
from managedd.api.errors import PASSING
from managedd.api.key_watch import holders
from managedd.api.operation import InvalidRequest
from managedd.errors import ManagedError
from managedd.ui import assets
from managedd.ui.making import Made
from managedd.ui.page import Sent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from managedd.ui.asking import Ask
    from managedd.ui.making import Look, Watched
    from managedd.ui.page import Page

TYPE: Final = "text/event-stream"
BEAT_SECONDS: Final = 15.0
"""A word is sent at least so often, but for what a page rests: proxies drop what is silent, and the browser shows what is lost."""
SEND_SECONDS: Final = 20.0
"""Who takes nothing for so long is gone."""
SEEN: Final = "seen"
"""The query's parameter with the mark of what the browser has."""
_HEADERS: Final = {"Content-Type": TYPE, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_LINE_ENDS: Final = re.compile("\r\n|\r|\n")
"""Of server-sent events; others belong to the text."""
_GONE: Final = b"event: gone\ndata:\n\n"
_LAST: Final = Made("gone", _GONE, is_last=True)
_BEAT: Final = b"event: beat\ndata:\n\n"


def is_wanted(request: web.Request) -> bool:
    """Whether the request is for the stream of a page, not for the page."""
    return TYPE in request.headers.get("Accept", "")


async def stream(ask: Ask, make: Callable[[], Awaitable[str]], page: Page, watched: Watched) -> web.StreamResponse:
    """The page's stream, until it is left, its credential ends, or the daemon stops."""
    request, services = ask.request, ask.services
    response = web.StreamResponse(headers=_HEADERS)
    with ExitStack() as held, anyio.CancelScope() as scope:
        try:
            held.enter_context(watched.person(_person(ask)))
            held.enter_context(ask.api.limits.socket(f"Too many open pages: {request.remote}"))
        except ManagedError as error:
            return _full(error.message)
        await response.prepare(request)
        held.enter_context(services.sockets.registered(_Stopped(scope)))
        for holder in holders(ask.actor.holder, ask.place.workspace):
            held.enter_context(services.keys.watching(holder, scope.cancel))
        look = held.enter_context(watched.looking(_asked(ask), services.bus, page.topics, page.every_seconds))
        try:
            await _send_news(ask, response, make, look, page.every_seconds)
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


def _person(ask: Ask) -> str | None:
    """On whose account a stream goes, whatever address it comes from; None: nobody has to say who they are."""
    return ask.actor.key_id or ask.actor.session_id


def as_any(actor: Actor) -> Actor:
    """Whoever may see the same: a page that is made once for all of them can't hold what only one of them should see."""
    return Actor(kind=actor.kind, level=actor.level, account_id=actor.account_id, workspace_id=actor.workspace_id)


def _asked(ask: Ask) -> Hashable:
    """All that a page's content depends on: what is asked for, and what who asks may see. Who has the same sees the same."""
    query = [each for each in ask.query.items() if each[0] != SEEN]
    return ask.request.rel_url.raw_path, tuple(query), as_any(ask.actor)


async def _send_news(
    ask: Ask, response: web.StreamResponse, make: Callable[[], Awaitable[str]], look: Look, every_seconds: float
) -> None:
    async def outcome() -> Made:
        return await _outcome(make)

    seen = ask.request.headers.get("Last-Event-ID") or ask.query.get(SEEN, "")
    await _send(response, f"event: version\ndata: {assets.version()}\n\n".encode())
    while True:
        await _wait(response, look.wait, every_seconds)
        made = await look.made(outcome)
        if made.event and made.mark != seen:
            await _send(response, made.event)
            seen = made.mark
        if made.is_last:
            return


async def _outcome(make: Callable[[], Awaitable[str]]) -> Made:
    try:
        text = await make()
    except ManagedError as error:
        if error.code in PASSING:
            return Made("busy", b"")
        return _LAST
    except (InvalidRequest, Sent):
        # What it was about is gone, or nobody may see it any more: asked for as a page, it says so.
        return _LAST
    named = mark(text)
    lines = "".join(f"data: {line}\n" for line in _LINE_ENDS.split(text))
    return Made(named, f"id: {named}\nevent: page\n{lines}\n".encode())


async def _wait(response: web.StreamResponse, wait: Callable[[float], Awaitable[bool]], at_most_seconds: float) -> None:
    left = at_most_seconds
    while left > 0:
        turn = min(left, BEAT_SECONDS)
        if await wait(turn):
            return
        left -= turn
        await _send(response, _BEAT)


async def _send(response: web.StreamResponse, data: bytes) -> None:
    with anyio.fail_after(SEND_SECONDS):
        await response.write(data)


def mark(text: str) -> str:
    """What tells one content of a page from another."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def signed_out() -> web.Response:
    """Whoever looked may not any more."""
    return web.Response(body=_GONE, headers=_HEADERS)


def _full(reason: str) -> web.Response:
    """The page is not kept up to date, and its reader is told why: of a status a script sees nothing."""
    text = " ".join(reason.split())
    return web.Response(body=f"event: full\ndata: {text}\n\n".encode(), headers=_HEADERS)
