"""The server's part of `prefect cloud login` in a browser.

The command listens on a port of its own computer, opens `/auth/client?callback=http://localhost:<port>` there, and waits until the page
posts `{"api_key": …}` to `<callback>/success`, or `{"reason": …}` to `<callback>/failure`. Whoever could name another callback would be given
the key.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from managedd.errors import invalid

PATH: Final = "/auth/client"
HOSTS: Final = frozenset({"localhost", "127.0.0.1"})
_MAX_CHARS: Final = 200
_INSTEAD: Final = """\
This daemon serves no login page. Make a key on its host, and log in with that:

    managedd key create --workspace ACCOUNT/WORKSPACE --name NAME --role developer
    prefect cloud login --key KEY --workspace ACCOUNT/WORKSPACE

The command that opened this page can be ended with Ctrl-C.
"""


def callback_of(given: str) -> str:
    """The address on the person's own computer that `given` is, without a slash at its end. Raises ManagedError(INVALID) for any other."""
    refusal = invalid(
        "callback: allowed is http://localhost:PORT or http://127.0.0.1:PORT, as `prefect cloud login` sends it"
    )
    if len(given) > _MAX_CHARS:
        raise refusal
    try:
        url = urlsplit(given)
        host, port = url.hostname, url.port
    except ValueError:
        raise refusal from None
    callback = f"http://{host}:{port}"
    # Compared as text too: a user name, a query, or whatever a browser reads otherwise than we do, is no callback.
    if host not in HOSTS or not port or given.removesuffix("/").lower() != callback:
        raise refusal
    return callback


async def page(request: web.Request) -> web.Response:
    """What the browser shows: how to log in without a page (501). 422 for a callback that nobody may be given a key at."""
    callback_of(request.query.get("callback", ""))
    return web.Response(status=501, text=_INSTEAD)
