"""Signing in with a key, which the browser forgets at once: what it keeps is a cookie that no script can read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlencode

import anyio
from aiohttp import web

from managedd.api import browser, sessions
from managedd.api.auth import Listener, authenticate
from managedd.errors import ErrorCode, ManagedError, forbidden
from managedd.ui.rendering import render

if TYPE_CHECKING:
    from collections.abc import Mapping

    from managedd.api.context import Services

PATH: Final = "/sign-in"
OUT_PATH: Final = "/sign-out"
MAX_FORM_BYTES: Final = 8192
FORM_SECONDS: Final = 10.0
MAX_WAY_CHARS: Final = 2000
WRONG: Final = "This key opens nothing here. It may have been revoked, or have ended."


def after(request: web.Request) -> str:
    """The query that brings whoever signs in back to this page."""
    return urlencode({"to": request.rel_url.raw_path_qs})


def form(to: str, problem: str = "") -> str:
    """The page; `to` is where to go on."""
    return render("sign_in.html", {"title": "Sign in", "problem": problem, "to": _way(to), "root": "./"})


async def enter(services: Services, request: web.Request, headers: Mapping[str, str]) -> web.Response:
    """Whoever posts a key that opens something has a session; else the page says what is wrong."""
    _check_form(request)
    sent = await _fields(request)
    key = sent.get("key", "").strip()
    try:
        actor = await authenticate(services, Listener.CLIENTS, key or " ", request.remote)
    except ManagedError as refusal:
        if refusal.code is not ErrorCode.TOO_MANY:
            raise
        return _again(sent, refusal.message, 429, headers)
    if actor is None or actor.kind == "operator":
        return _again(sent, WRONG, 401, headers)
    token = await sessions.begin(services, actor, key)
    response = web.Response(status=303, headers={**headers, "Location": f".{_way(sent.get('to', ''))}"})
    response.set_cookie(
        sessions.COOKIE,
        token,
        # Of the folder that this page is in, as the browser sees it: right behind a proxy's path prefix too.
        path="",
        max_age=round(services.settings.ui.session_hours * 3600),
        httponly=True,
        samesite="Lax",
        secure=request.scheme == "https",
    )
    return response


async def leave(services: Services, request: web.Request) -> web.Response:
    """The session is over, and so are the browser's cookie and everything that it had opened."""
    if request.method != "POST":
        raise ManagedError(ErrorCode.NOT_FOUND, "There is no such page.")
    await sessions.end(services, request)
    response = web.Response(status=303, headers={"Location": "./sign-in"})
    response.set_cookie(sessions.COOKIE, "", path="", max_age=0, httponly=True, samesite="Lax")
    return response


def _again(sent: Mapping[str, str], problem: str, status: int, headers: Mapping[str, str]) -> web.Response:
    text = form(sent.get("to", ""), problem)
    return web.Response(text=text, status=status, content_type="text/html", charset="utf-8", headers=dict(headers))


def _check_form(request: web.Request) -> None:
    """Nobody is signed in by a page that is not ours: they would work in another's workspace without knowing."""
    site = request.headers.get("Sec-Fetch-Site")
    if site not in (None, "same-origin") or ("Origin" in request.headers and not browser.is_same_origin(request)):
        raise forbidden("Only this daemon's own page signs anybody in")


async def _fields(request: web.Request) -> dict[str, str]:
    with anyio.move_on_after(FORM_SECONDS):
        body = b""
        while len(body) <= MAX_FORM_BYTES and (more := await request.content.read(MAX_FORM_BYTES + 1 - len(body))):
            body += more
        if len(body) > MAX_FORM_BYTES:
            raise ManagedError(ErrorCode.TOO_LARGE, f"The form is larger than {MAX_FORM_BYTES} bytes")
        return {name: values[0] for name, values in parse_qs(body.decode(errors="replace"), max_num_fields=8).items()}
    raise ManagedError(ErrorCode.BAD_REQUEST, f"The form took longer than {FORM_SECONDS:g} seconds")


def _way(text: str) -> str:
    """A path of our own, below the root: `//elsewhere` and the like are none."""
    is_ours = text.startswith("/") and not text.startswith(("//", "/\\")) and len(text) <= MAX_WAY_CHARS
    return text if is_ours and text.isprintable() and "\\" not in text else "/"
