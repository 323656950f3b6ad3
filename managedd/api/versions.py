"""What a request's headers say of its sender."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from managedd.orchestration.transition import Client

if TYPE_CHECKING:
    from collections.abc import Mapping

_AGENT = re.compile(r"\bprefect/(\d+(?:\.\w+)*)")


def client_of(headers: Mapping[str, str]) -> Client:
    """The client's API version (X-PREFECT-API-VERSION, already checked) and its own version (User-Agent)."""
    api = headers.get("X-PREFECT-API-VERSION")
    agent = _AGENT.search(headers.get("User-Agent", "")[:200])
    return Client(
        api_version=None if api is None else tuple(int(part) for part in api.split(".")),
        version=None if agent is None else agent.group(1),
    )
