"""Sessions of browsers: a cookie instead of a key, taken only from our own pages.

A browser sends cookies with whatever any page asks it to send. So what came with one counts only when the browser says that a page of ours
has asked for it: by `Sec-Fetch-Site`, or, where it does not send that, by an `Origin` that is this host. Reading needs it too where the
browser tells; scripts of other pages could not see the answer, but a websocket's frames they could.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING, Final

from managedd.api import browser
from managedd.api.context import Actor
from managedd.errors import ErrorCode, ManagedError, forbidden
from managedd.model import keys
from managedd.model.access import LEVELS, Level
from managedd.store import keys as stored_keys
from managedd.store import web_sessions

if TYPE_CHECKING:
    from aiohttp import web

    from managedd.api.context import Services
    from managedd.store.database import Tx

COOKIE: Final = "managedd_session"
TOKEN_BYTES: Final = 32
MAX_TOKEN_CHARS: Final = 64
SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
_OURS: Final = frozenset({"same-origin", "none"})
"""`none`: no page has asked, a person has, by typing the address or by a bookmark."""


async def begin(services: Services, actor: Actor, key: str) -> str:
    """A session of whoever showed `key`, which made them `actor`; returns its token. Raises ManagedError(FORBIDDEN) for a run's key."""
    if actor.kind not in {"key", "client"}:
        raise forbidden("Only a key, or server.auth_string, opens a session")
    token = secrets.token_urlsafe(TOKEN_BYTES)
    seconds = services.settings.ui.session_hours * 3600
    await services.db.write(
        lambda tx: web_sessions.begin(
            tx,
            token_hash=keys.hashed(token),
            key_id=actor.key_id,
            auth_hash=_bound(token, key) if actor.key_id is None else None,
            expires_us=tx.now + round(seconds * 1_000_000),
        )
    )
    return token


async def end(services: Services, request: web.Request) -> None:
    """The request's session, if it has one, is over. Raises ManagedError(FORBIDDEN) for another page's request."""
    token = request.cookies.get(COOKIE)
    if token:
        _check_ours(request)
        await services.db.write(lambda tx: web_sessions.end(tx, keys.hashed(token[:MAX_TOKEN_CHARS])))


async def actor(services: Services, request: web.Request) -> Actor | None:
    """Whose session the request's cookie names; None: it has none that lives. Raises ManagedError(FORBIDDEN) for another page's request."""
    token = request.cookies.get(COOKIE)
    if not token or len(token) > MAX_TOKEN_CHARS or "Authorization" in request.headers:
        return None
    found = await services.db.look(lambda tx: _find(tx, keys.hashed(token)))
    if found is None:
        return None
    session, holder = found
    _check_ours(request)
    if holder is not None:
        services.key_uses.note(holder.key_id)
        return Actor(
            kind="key",
            level=LEVELS[holder.role],
            name=holder.name,
            workspace_id=holder.workspace_id,
            account_id=holder.account_id,
            key_id=holder.key_id,
            session_id=session.id,
        )
    wanted = services.settings.server.auth_string
    if wanted is None or not hmac.compare_digest(session.auth_hash or "", _bound(token, wanted.get_secret_value())):
        return None
    return Actor(kind="client", level=Level.OVERSEE, session_id=session.id)


def _bound(token: str, auth_string: str) -> str:
    """What the store keeps of the auth string: people choose it, so a plain hash of it could be guessed. The token stands nowhere but in the cookie."""
    return hmac.new(keys.encoded(token), keys.encoded(auth_string), hashlib.sha256).hexdigest()


def _find(tx: Tx, token_hash: str) -> tuple[web_sessions.Session, stored_keys.Holder | None] | None:
    session = web_sessions.find(tx, token_hash)
    if session is None:
        return None
    holder = None if session.key_id is None else stored_keys.holder_by_id(tx, session.key_id)
    return None if session.key_id is not None and holder is None else (session, holder)


def _check_ours(request: web.Request) -> None:
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        # A link on another page may lead to one of ours: it is opened as a document, and nobody but the person sees it.
        is_visit = request.headers.get("Sec-Fetch-Dest") == "document" and request.method in SAFE_METHODS
        if site in _OURS or is_visit:
            return
    elif "Origin" in request.headers:
        if browser.is_same_origin(request):
            return
    elif request.method in SAFE_METHODS and request.headers.get("Upgrade", "").lower() != "websocket":
        return
    raise ManagedError(ErrorCode.FORBIDDEN, "A session's cookie counts only in requests of this daemon's own pages")
