"""What keeps web pages out of a listener that asks nobody for a credential.

Whoever opens a page lets its scripts send requests to 127.0.0.1. A browser tells on them: by the name in `Host` when a page's own name was
pointed at us, by `Origin` when it knows that the page comes from elsewhere, and by the few content types that it sends without asking us
first. Prefect's clients never look like that.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp import HttpVersion11

from managedd.errors import forbidden

if TYPE_CHECKING:
    from aiohttp import web

_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_JSON = "application/json"
_FORWARDED = "x-forwarded-"
_FROM_PROXIES = frozenset(
    {
        "forwarded",
        "via",
        "x-real-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "true-client-ip",
        "cf-connecting-ip",
        "x-envoy-external-address",
    }
)
"""What proxies say of themselves and of whom they send on, beside what begins like the first."""
_WAY_OUT = 'set auth.mode = "key", make a key and use it, to let others in'


def check(request: web.Request) -> None:
    """The request comes from neither a strange web page nor a proxy. Raises ManagedError(FORBIDDEN)."""
    check_place(request)
    if request.method in _WITH_BODY and request.can_read_body:
        _check_type(request.headers.get("Content-Type", ""))


def check_place(request: web.Request) -> None:
    """The same, whatever its body is. Raises ManagedError(FORBIDDEN)."""
    # As a trusted proxy tells it, else the header.
    host = request.host.lower()
    if host and not _is_own(host):
        raise forbidden(
            f"This daemon answers to localhost and to loopback addresses, not to {host[:200]!r}; {_WAY_OUT}"
        )
    if (sign := _sign_of_proxy(request)) is not None:
        raise forbidden(
            f"A proxy has sent this request on ({sign}), and nobody is asked for a key here: name it in server.trusted_proxies, make a key with "
            "`managedd key create` and use it"
        )
    origin = request.headers.get("Origin")
    if origin is not None and not _is_same(origin.lower(), host):
        raise forbidden(f"A web page of {origin[:200]!r} may not use this daemon; {_WAY_OUT}")


def _sign_of_proxy(request: web.Request) -> str | None:
    """By what a request tells that somebody else sent it first; a proxy that is told to hide it can't be told from a client."""
    for name in request.headers:
        lowered = name.lower()
        if lowered in _FROM_PROXIES or lowered.startswith(_FORWARDED):
            return name[:200]
    # nginx before 1.29.7, unless it is told otherwise, which gives the host of the request a name of ours and says nothing else.
    return "HTTP/1.0" if request.version < HttpVersion11 else None


def is_same_origin(request: web.Request) -> bool:
    """Whether the request's `Origin` is the place that it was sent to, as a trusted proxy tells it."""
    return _is_same(request.headers.get("Origin", "").lower(), request.host.lower())


def _check_type(content_type: str) -> None:
    essence = content_type.partition(";")[0].strip().lower()
    if essence != _JSON:
        said = repr(essence[:200]) if essence else "unsaid"
        raise forbidden(f"A body's Content-Type must be {_JSON}, this one's is {said}")


@lru_cache(maxsize=64)
def _is_own(host: str) -> bool:
    """Whether nothing but this host answers to that `Host`, in which a port may stand."""
    try:
        name = urlsplit(f"//{host}").hostname
        return name == "localhost" or (name is not None and ipaddress.ip_address(name).is_loopback)
    except ValueError:
        return False


def _is_same(origin: str, host: str) -> bool:
    scheme, separator, place = origin.partition("://")
    return bool(separator) and scheme in {"http", "https"} and place == host
