"""All that is no API on the clients' listener: from a request to a page, a file, or the way to sign in."""

from __future__ import annotations

import gzip
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from markupsafe import Markup

from managedd import ids
from managedd.api import browser, sessions
from managedd.api.auth import authenticate, credential, enter
from managedd.api.context import ANONYMOUS
from managedd.api.errors import STATUS
from managedd.api.operation import InvalidRequest
from managedd.api.routing import MethodNotAllowed
from managedd.errors import ErrorCode, ManagedError
from managedd.ui import assets, live, page, sign_in
from managedd.ui.asking import Ask, Place
from managedd.ui.making import Watched
from managedd.ui.page import Sent
from managedd.ui.rendering import render

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from managedd.api.app import Api
    from managedd.api.context import Actor, Services
    from managedd.ui.page import Page

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Vary": "Accept, Accept-Encoding, Cookie, Authorization",
}
FOR_GOOD: Final = "public, max-age=31536000, immutable"
PACKED_FROM_BYTES: Final = 1024
OTHER_WORKSPACE: Final = "There is no such workspace for you: your key opens another one."
NO_WORKSPACE: Final = "There is no such workspace. It may be deleted."
NO_PAGE: Final = "This key opens no page. It may be wrong, revoked, or have ended; and what a run has been given is for the API alone."


class Site:
    """Answers what is not below /api."""

    def __init__(self, services: Services, api: Api) -> None:
        self._services = services
        self._api = api
        self._watched = Watched()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """The page, the file, or what else there is at that path; failures are pages too."""
        try:
            return await self._answer(request)
        except ManagedError as error:
            return self._failure(request, STATUS[error.code], error.message)
        except InvalidRequest as error:
            return self._failure(request, 422, "; ".join(str(each["msg"]) for each in error.errors[:3]))
        except MethodNotAllowed:
            return self._failure(request, 405, "Pages are read with GET.")

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.rel_url.raw_path
        if path.startswith(f"/{assets.FOLDER}/"):
            return _file(request, path)
        if not self._services.ready:
            return self._failure(request, 503, "managedd is starting, or stopping. This page looks again by itself.", {"Refresh": "2"})  # fmt: skip
        if self._services.settings.is_open:
            browser.check_place(request)
        if path == sign_in.PATH:
            return await self._sign_in(request)
        if path == sign_in.OUT_PATH:
            return await sign_in.leave(self._services, request)
        if len(path) > 1 and path.endswith("/"):
            return _sent(f"../{path.strip('/').rpartition('/')[2]}{_asked(request)}", request, status=308)
        below, place = _placed(path)
        matched = page.router().match(request.method, below)
        if matched is None:
            raise ManagedError(ErrorCode.NOT_FOUND, "There is no such page.")
        found, values = matched
        actor = await self._actor(request)
        if actor is ANONYMOUS:
            if credential(request.headers) is not None:
                return self._failure(request, 401, NO_PAGE)
            return self._to_sign_in(request, place)
        return await self._page(request, found, values, actor, place)

    async def _page(
        self, request: web.Request, found: Page, values: Mapping[str, str], actor: Actor, place: Place
    ) -> web.StreamResponse:
        own = _own(actor, place)
        if own is not None:
            return _sent(own + ("" if values else found.path.lstrip("/") + _asked(request)), request)
        try:
            await enter(self._services, actor, place.account, place.workspace)
        except ManagedError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise
            message = NO_WORKSPACE if actor.workspace_id is None else OTHER_WORKSPACE
            return self._failure(request, 404, message, home=_home(actor, place).home)
        ask = Ask(api=self._api, services=self._services, request=request, actor=actor, place=place)
        if live.is_wanted(request):
            return await live.stream(ask, lambda: self._part(ask, found, values), found, self._watched)
        try:
            shown = await self._values(ask, found, values)
        except Sent as elsewhere:
            return _sent(place.home + elsewhere.where, request)
        part = render(found.template, shown)
        # Ours, and escaped already. Its mark tells the browser's stream what is there.
        whole = render("layout.html", {**shown, "part": Markup(part), "mark": live.mark(part)})  # noqa: S704
        return _html(request, whole, headers=_beyond(shown.get("connect", ())))

    async def _part(self, ask: Ask, found: Page, values: Mapping[str, str]) -> str:
        """What of the page changes, for all who may see the same."""
        ask = replace(ask, actor=live.as_any(ask.actor))
        return render(found.template, await self._values(ask, found, values))

    async def _values(self, ask: Ask, found: Page, values: Mapping[str, str]) -> dict[str, Any]:
        given = await page.gathered(found, ask, values)
        workspace = (await ask.get("/me/workspaces")) or []
        here = next((each for each in workspace if each["workspace_id"] == ask.place.workspace), None)
        return {
            "layout": "part.html",
            "ask": ask,
            "place": ask.place,
            "here": here,
            "workspaces": workspace,
            "scope_of": _scope_of,
            "sections": page.sections(ask),
            "section_words": page.SECTIONS,
            "section": found.section,
            "is_live": bool(found.topics),
            "is_open": self._services.settings.is_open,
            "signed_in": ask.actor.session_id is not None,
            "who": ask.actor.name or ask.actor.kind,
            **given,
        }

    async def _actor(self, request: web.Request) -> Actor:
        """Who looks; ANONYMOUS when that is not known, and must be."""
        known = await sessions.actor(self._services, request)
        if known is None:
            key = credential(request.headers)
            known = await authenticate(self._services, self._api.listener, key, request.remote)
        return known or ANONYMOUS

    async def _sign_in(self, request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            return await sign_in.enter(self._services, request, HEADERS)
        if self._services.settings.is_open:
            return _sent(_placed("/")[1].root, request)
        return _html(request, sign_in.form(request.query.get("to", "")))

    def _to_sign_in(self, request: web.Request, place: Place) -> web.StreamResponse:
        if live.is_wanted(request):
            return live.signed_out()
        return _sent(f"{place.root}{sign_in.PATH.strip('/')}?{sign_in.after(request)}", request)

    def _failure(
        self,
        request: web.Request,
        status: int,
        message: str,
        headers: Mapping[str, str] | None = None,
        *,
        home: str | None = None,
    ) -> web.StreamResponse:
        """A page that says what is wrong, and leads to the section that was asked for; `home` is under which that is, or else what was asked."""
        below, place = _placed(request.rel_url.raw_path)
        home = place.home if home is None else home
        names = dict.fromkeys([page.section_of(below), "work-pools"])
        ways = [(home + name, page.SECTIONS[name]) for name in names]
        given = {"status": status, "message": message, "root": place.root, "title": f"{status}", "ways": ways}
        text = render("failure.html", given)
        return _html(request, text, status=status, headers=headers)


def _placed(path: str) -> tuple[str, Place]:
    """The page's own path, and the workspace that a raw path names; Cloud's addresses have it before the page."""
    parts = path.split("/")
    root = "../" * (len(parts) - 2) or "./"
    is_scoped = len(parts) >= 5 and parts[1] == "account" and parts[3] == "workspace"
    if is_scoped and ids.is_uuid(parts[2]) and ids.is_uuid(parts[4]):
        place = Place(account=ids.canonical(parts[2]), workspace=ids.canonical(parts[4]), root=root)
        return "/" + "/".join(parts[5:]), place
    return path, Place(account=ids.DEFAULT_ACCOUNT_ID, workspace=ids.DEFAULT_WORKSPACE_ID, root=root)


def _beyond(connect: Sequence[str]) -> dict[str, str]:
    """What a page's policy says where its scripts may send something elsewhere too."""
    if not connect:
        return {}
    return {"Content-Security-Policy": POLICY.replace("connect-src 'self'", f"connect-src 'self' {' '.join(connect)}")}


def _scope_of(workspace: Mapping[str, Any]) -> str:
    return Place(account=workspace["account_id"], workspace=workspace["workspace_id"], root="").scope


def _own(actor: Actor, place: Place) -> str | None:
    """Where to send the holder of a key of one workspace who asks for the default one's pages; None: nowhere."""
    if place.scope or actor.workspace_id in (None, ids.DEFAULT_WORKSPACE_ID):
        return None
    return place.root + Place(account=str(actor.account_id), workspace=str(actor.workspace_id), root="").scope


def _home(actor: Actor, place: Place) -> Place:
    """The workspace that the actor's key opens, or else the default one."""
    if actor.workspace_id is None:
        return place.of(ids.DEFAULT_ACCOUNT_ID, ids.DEFAULT_WORKSPACE_ID)
    return place.of(str(actor.account_id), actor.workspace_id)


def _file(request: web.Request, path: str) -> web.Response:
    """A file under its version; any other version is gone, and says so rather than be kept under the wrong name."""
    _, _, version, *rest = path.split("/")
    asset = assets.assets().get("/".join(rest))
    if asset is None or version != assets.version():
        raise web.HTTPNotFound
    packed = "gzip" in request.headers.get("Accept-Encoding", "")
    headers = {**HEADERS, "Cache-Control": FOR_GOOD, "Vary": "Accept-Encoding"}
    if packed:
        headers["Content-Encoding"] = "gzip"
    return web.Response(
        body=asset.packed if packed else asset.body, content_type=asset.content_type, charset="utf-8", headers=headers
    )


def _html(
    request: web.Request, text: str, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    body = text.encode()
    said = {**HEADERS, **(headers or {})}
    if len(body) >= PACKED_FROM_BYTES and "gzip" in request.headers.get("Accept-Encoding", ""):
        body = gzip.compress(body, 5)
        said["Content-Encoding"] = "gzip"
    return web.Response(body=body, status=status, content_type="text/html", charset="utf-8", headers=said)


def _asked(request: web.Request) -> str:
    """The query as it came, with its question mark."""
    query = request.rel_url.raw_query_string
    return f"?{query}" if query else ""


def _sent(where: str, request: web.Request, *, status: int = 303) -> web.Response:
    """The way to another page, relative to this one."""
    return web.Response(status=status, headers={**HEADERS, "Location": where})
