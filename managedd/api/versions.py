"""What a request's headers say of its sender."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from managedd.orchestration.transition import Client

if TYPE_CHECKING:
    from collections.abc import Mapping

_AGENT = re.compile(r"\bprefect/(\d+(?:\.\w+)*)")


def client_of(headers: Mapping[str, str]) -> Client:
    """The client's API version (X-PREFECT-API-VERSION, already checked) and its own version (User-Agent)."""
    return _client(headers.get("X-PREFECT-API-VERSION"), headers.get("User-Agent", "")[:200])


@lru_cache(maxsize=256)
def _client(api: str | None, said: str) -> Client:
    agent = _AGENT.search(said)
    return Client(
        api_version=None if api is None else tuple(int(part) for part in api.split(".")),
        version=None if agent is None else agent.group(1),
    )
