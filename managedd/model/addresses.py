"""Addresses in settings, checked: each function returns what will be used, or raises ValueError that says what is allowed.

No message repeats the value: a URL may hold a password.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Collection
    from urllib.parse import SplitResult

HTTP: Final = ("http", "https")
PROXY: Final = ("http", "https", "socks4", "socks5", "socks5h")
ENGINE: Final = ("unix", "tcp", "http", "https", "npipe")
_WITH_PATH: Final = {"unix", "npipe"}
ANY: Final = "*"
Way = tuple[str | None, int]
"""An address (None: any of the host) and a port."""
_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*\.?")


def http_url(text: str) -> str:
    """A URL of a package index."""
    _url(text, HTTP, "https://host/path")
    return text


def proxy_url(text: str) -> str:
    """A URL of a proxy: without the scheme, clients differ in what they make of it."""
    _url(text, PROXY, "http://host:port")
    return text


def api_url(text: str) -> str:
    """A URL of this daemon's API, without a slash at its end."""
    example = "http://host:4201/api"
    found = _url(text, HTTP, example)
    if found.username is not None or found.password is not None:
        raise ValueError(f"must not hold a user or password: each run has a key of its own; for example {example}")
    if found.query or found.fragment or not found.path.rstrip("/").endswith("/api"):
        raise ValueError(f"must end with /api, for example {example}")
    return text.rstrip("/")


def engine_url(text: str) -> str:
    """An address of a container engine."""
    allowed = "must be unix:///path, tcp://host:port, http://, https:// or npipe://"
    if "://" not in text:
        raise ValueError(allowed)
    scheme = text.partition("://")[0].lower()
    if scheme not in ENGINE:
        raise ValueError(f"{allowed}; for an engine over ssh, forward its socket")
    if scheme not in _WITH_PATH:
        _url(text, ENGINE, "tcp://host:port")
    elif not text.partition("://")[2].startswith("/"):
        raise ValueError(f"must name a path after {scheme}://, for example unix:///var/run/docker.sock")
    return text


def ip_address(text: str) -> str:
    """An IP address, not a name."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError("must be an IP address, such as 192.0.2.1 or 2001:db8::1") from None


def network(text: str) -> str:
    """A network, or one address as a network of its own; not all addresses there are."""
    try:
        found = ipaddress.ip_network(text)
    except ValueError:
        raise ValueError(
            "must be IP addresses or networks without host bits, such as 192.0.2.1 or 10.0.0.0/8"
        ) from None
    if not found.prefixlen:
        raise ValueError(f"{text!r} is everybody: name the addresses of the proxies")
    return str(found)


def host_service(text: str) -> str:
    """What runs may reach of the engine's host: `*`, a port, or an IP address and a port."""
    if text != ANY:
        way_of(text)
    return text


def way_of(text: str) -> Way:
    """The address and port of a `host_service` that is not `*`."""
    example = 'must be "*", a port such as "5432", or an IP address and a port such as "192.0.2.1:5432" or "[2001:db8::1]:5432"'
    address, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ValueError(example)
    if text == port:
        return None, int(port)
    if ":" in address and not (address.startswith("[") and address.endswith("]")):
        raise ValueError(example)
    try:
        return str(ipaddress.ip_address(address.strip("[]"))), int(port)
    except ValueError:
        raise ValueError(example) from None


def destination(text: str) -> str:
    """What runs may reach beyond the engine's host: an IP address, a network, or the name of a host."""
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_network(text))
    if len(text) > 253 or not _NAME.fullmatch(text) or text.rstrip(".").rpartition(".")[2].isdecimal():
        raise ValueError(
            'must be an IP address, a network without host bits such as "10.0.0.0/8", or the name of a host such as "pypi.org"'
        )
    return text.rstrip(".").lower()


def _url(text: str, schemes: Collection[str], example: str) -> SplitResult:
    if not text.isprintable() or " " in text:
        raise ValueError(f"must not hold blanks or control characters, for example {example}")
    try:
        found = urlsplit(text)
        port = found.port
    except ValueError:
        raise ValueError(f"is no URL, for example {example}") from None
    if found.scheme not in schemes:
        raise ValueError(
            f"must be a URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}, for example {example}"
        )
    if not found.hostname or port == 0:
        raise ValueError(f"must name a host, for example {example}")
    return found
