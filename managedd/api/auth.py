"""Who asks: credential → Actor.

A credential comes as `Authorization: Bearer <key>`, as `Basic base64(<auth string>)` (what PREFECT_API_AUTH_STRING becomes) or in a
websocket's auth message. A run's key is the whole auth string, so that all three carry the same text.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from enum import StrEnum
from typing import TYPE_CHECKING

from managedd.api.context import Actor
from managedd.ids import DEFAULT_ACCOUNT_ID, DEFAULT_WORKSPACE_ID
from managedd.store import executions, workspaces

if TYPE_CHECKING:
    from collections.abc import Mapping

    from managedd.api.context import Services


class Listener(StrEnum):
    """Where a request came in."""

    CLIENTS = "clients"
    RUNS = "runs"
    """Answers nothing without a run's key."""
    SOCKET = "socket"
    """The operator's unix socket in the data directory: mode 0600 is the credential."""


MAX_CREDENTIAL_LENGTH = 1024


def credential(headers: Mapping[str, str]) -> str | None:
    """The credential of a request's headers, or None."""
    scheme, _, value = headers.get("Authorization", "").partition(" ")
    value = value.strip()
    if not value or len(value) > MAX_CREDENTIAL_LENGTH:
        return None
    if scheme.lower() == "bearer":
        return value
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
    return None


def key_hash(key: str) -> str:
    """What the store keeps of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


async def authenticate(services: Services, listener: Listener, key: str | None) -> Actor | None:
    """The actor of `key` on `listener`, or None when it may not come in."""
    if listener is Listener.SOCKET:
        return Actor(kind="operator")
    if listener is Listener.RUNS:
        return await _run(services, key)
    wanted = services.settings.server.auth_string
    if wanted is None:
        return Actor(kind="operator")
    if key is not None and hmac.compare_digest(key.encode(), wanted.get_secret_value().encode()):
        return Actor(kind="client")
    return None


async def _run(services: Services, key: str | None) -> Actor | None:
    if not key or len(key) > MAX_CREDENTIAL_LENGTH:
        return None
    hashed = key_hash(key)
    found = await services.db.look(lambda tx: executions.by_key_hash(tx, hashed))
    if found is None:
        return None
    return Actor(
        kind="run",
        workspace_id=found.workspace_id,
        account_id=found.account_id,
        flow_run_id=found.flow_run_id,
        execution_id=found.execution_id,
    )


async def may_enter(services: Services, actor: Actor, account: str, workspace: str) -> bool:
    """Whether the account has that workspace, and the actor may enter it."""
    if actor.workspace_id is not None:
        return (actor.account_id, actor.workspace_id) == (account, workspace)
    if workspace == DEFAULT_WORKSPACE_ID:
        return account == DEFAULT_ACCOUNT_ID
    found = await services.db.look(lambda tx: workspaces.get(tx, workspace))
    return found is not None and found.account_id == account
