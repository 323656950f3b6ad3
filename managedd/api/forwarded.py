"""What a proxy in front of the clients' listener says of a request: who sent it, by which scheme, to which host, below which path.

Only the proxies of `server.trusted_proxies` are believed; from anybody else such headers are just text. Each proxy writes the address that it
was reached from behind what was there before, so the list is read from its end: the first address that is no trusted proxy's is the client's,
and whatever stands before it the client may have made up.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from aiohttp.typedefs import Handler, Middleware
    from multidict import CIMultiDictProxy

    Network = ipaddress.IPv4Network | ipaddress.IPv6Network
    Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_HOPS: Final = 50
_SCHEMES: Final[Mapping[str, str]] = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?", re.ASCII)
_PREFIX: Final = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]{1,100}){1,10}", re.ASCII)
_PAIR: Final = re.compile(r'\s*([A-Za-z]{1,20})=(?:"([^"\\]{0,300})"|([^\s",;]{1,300}))\s*', re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """What one proxy says of whoever reached it; None: nothing that can be read."""

    address: str | None = None
    scheme: str | None = None
    host: str | None = None


class Proxies:
    """The proxies that are believed."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks: tuple[Network, ...] = tuple(ipaddress.ip_network(network) for network in networks)

    def __contains__(self, address: str | None) -> bool:
        if not self._networks or (found := _address(address or "")) is None:
            return False
        return any(found in network for network in self._networks)

    def origin(self, remote: str | None, headers: CIMultiDictProxy[str]) -> Hop | None:
        """Where a request of the peer `remote` really comes from; None: from that peer itself."""
        if remote not in self:
            return None
        legacy, standard = self._client(_legacy(headers)), self._client(_standard(headers))
        if legacy is None or standard is None:
            return legacy or standard
        # A proxy writes one kind and passes the other on as the client sent it: which is which can't be told.
        return legacy if legacy.address == standard.address else None

    def _client(self, hops: Sequence[Hop]) -> Hop | None:
        """The right-most hop that is no trusted proxy."""
        last: Hop | None = None
        for hop in reversed(hops):
            if hop.address is None:
                break
            last = hop
            if hop.address not in self:
                break
        return last


def middleware(proxies: Proxies) -> Middleware:
    """Handlers see `remote`, `scheme` and `host` of the client, also behind a trusted proxy."""

    @web.middleware
    async def believe(request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = proxies.origin(request.remote, request.headers)
        if origin is None:
            return await handler(request)
        told: dict[str, Any] = {"remote": origin.address, "scheme": origin.scheme, "host": origin.host}
        return await handler(request.clone(**{name: value for name, value in told.items() if value is not None}))

    return believe


def prefix(request: web.Request, trusted: Iterable[str]) -> str:
    """The path that the proxy next to us has taken off the request's, `/flows` for example; empty: none, or nobody trusted says so."""
    # Not `request.remote`: behind a proxy that is the client.
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    told = request.headers.get("X-Forwarded-Prefix", "").removesuffix("/")
    if not isinstance(peer, tuple) or peer[0] not in Proxies(trusted) or not _PREFIX.fullmatch(told):
        return ""
    return told


def _legacy(headers: CIMultiDictProxy[str]) -> list[Hop]:
    """The hops of X-Forwarded-For, with what X-Forwarded-Proto and -Host say of the same."""
    addresses = _members(headers, "X-Forwarded-For")
    schemes = _aligned(_members(headers, "X-Forwarded-Proto"), len(addresses))
    hosts = _aligned(_members(headers, "X-Forwarded-Host"), len(addresses))
    return [
        Hop(address=_plain(address), scheme=_scheme(scheme), host=_host(host))
        for address, scheme, host in zip(addresses, schemes, hosts, strict=True)
    ]


def _standard(headers: CIMultiDictProxy[str]) -> list[Hop]:
    """The hops of Forwarded (RFC 7239)."""
    hops = []
    for member in _members(headers, "Forwarded"):
        pairs: dict[str, str] = {}
        for part in member.split(";"):
            found = _PAIR.fullmatch(part)
            if found is None:
                pairs = {}
                break
            pairs[found[1].lower()] = found[2] or found[3] or ""
        hops.append(
            Hop(address=_plain(pairs.get("for")), scheme=_scheme(pairs.get("proto")), host=_host(pairs.get("host")))
        )
    return hops


def _members(headers: CIMultiDictProxy[str], name: str) -> list[str]:
    """The members of a list header, over all its lines; the last ones when there are too many."""
    text = ",".join(headers.getall(name, ()))
    return [member.strip() for member in text.split(",")[-MAX_HOPS:]] if text else []


def _aligned(members: list[str], count: int) -> list[str | None]:
    """As many as there are addresses. One alone was said by the proxy next to us, of whichever client it has."""
    if len(members) == count:
        return list(members)
    return [members[0] if len(members) == 1 else None] * count


def _plain(text: str | None) -> str | None:
    """The address in one of its spellings, without a port; None for anything else."""
    if text is None:
        return None
    if text.startswith("["):
        text, _, rest = text[1:].partition("]")
        if rest and not re.fullmatch(r":\d{1,5}", rest, re.ASCII):
            return None
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    found = _address(text)
    return None if found is None else str(found)


def _address(text: str) -> Address | None:
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    # A listener on :: shows IPv4 clients so.
    return getattr(found, "ipv4_mapped", None) or found


def _scheme(text: str | None) -> str | None:
    return None if text is None else _SCHEMES.get(text.lower())


def _host(text: str | None) -> str | None:
    return text.lower() if text is not None and _HOST.fullmatch(text) else None
