"""Who asks: credential → Actor.

A credential comes as `Authorization: Bearer <key>`, as `Basic base64(<auth string>)` (what PREFECT_API_AUTH_STRING becomes) or in a
websocket's auth message. A run's key is the whole auth string, so that all three carry the same text.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from managedd.api.context import Actor
from managedd.errors import ErrorCode, ManagedError
from managedd.ids import DEFAULT_ACCOUNT_ID, DEFAULT_WORKSPACE_ID
from managedd.model import keys
from managedd.model.access import LEVELS, Level
from managedd.store import executions, workspaces
from managedd.store import keys as stored_keys

if TYPE_CHECKING:
    from collections.abc import Mapping

    from managedd.api.context import Services
    from managedd.config import ServerSection


class Listener(StrEnum):
    """Where a request came in."""

    CLIENTS = "clients"
    RUNS = "runs"
    """Answers nothing without a run's key."""
    SOCKET = "socket"
    """The operator's unix socket in the data directory: mode 0600 is the credential."""


def believed(listener: Listener, server: ServerSection) -> tuple[str, ...]:
    """The proxies that are believed there. Runs come by none, and an address of theirs may lie in a trusted network."""
    return tuple(server.trusted_proxies) if listener is Listener.CLIENTS else ()


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


async def authenticate(services: Services, listener: Listener, key: str | None, address: str | None) -> Actor | None:
    """The actor of `key` on `listener`, or None when it may not come in. Raises ManagedError(TOO_MANY) for an address that guesses."""
    if listener is Listener.SOCKET:
        return OPERATOR
    if key is None or len(key) > MAX_CREDENTIAL_LENGTH:
        return OPERATOR if listener is Listener.CLIENTS and services.settings.is_open else None
    hashed = keys.hashed(key)
    if listener is Listener.RUNS:
        return await _run(services, hashed)
    services.guard.check(address, hashed)
    actor = await _client(services, key, hashed)
    if actor is None:
        services.guard.failed(address, hashed)
        services.refusals.wrong_credential(address)
    elif actor is not OPERATOR:
        services.guard.passed(hashed)
    return actor


OPERATOR: Final = Actor(kind="operator", level=Level.OPERATE)


async def _client(services: Services, key: str, hashed: str) -> Actor | None:
    wanted = services.settings.server.auth_string
    if wanted is not None and hmac.compare_digest(keys.encoded(key), wanted.get_secret_value().encode()):
        return Actor(kind="client", level=Level.OVERSEE)
    if key.startswith((keys.PREFIX, keys.RUN_PREFIX)):
        # Also where nobody needs one: who shows a key is its holder, and no more.
        return await _holder(services, hashed) if keys.is_key(key) else None
    return OPERATOR if services.settings.is_open else None


async def _holder(services: Services, hashed: str) -> Actor | None:
    found = await services.db.look(lambda tx: stored_keys.holder(tx, hashed))
    if found is None:
        return None
    services.key_uses.note(found.key_id)
    return Actor(
        kind="key",
        level=LEVELS[found.role],
        name=found.name,
        workspace_id=found.workspace_id,
        account_id=found.account_id,
        key_id=found.key_id,
    )


async def _run(services: Services, hashed: str) -> Actor | None:
    found = await services.db.look(lambda tx: executions.by_key_hash(tx, hashed))
    if found is None:
        return None
    return Actor(
        kind="run",
        level=Level.ANY,
        workspace_id=found.workspace_id,
        account_id=found.account_id,
        flow_run_id=found.flow_run_id,
        execution_id=found.execution_id,
    )


async def enter(services: Services, actor: Actor, account: str, workspace: str) -> None:
    """Returns when the account has that workspace and the actor may enter it. Raises ManagedError(NOT_FOUND): the same whether it is not there or not theirs."""
    if actor.workspace_id is not None:
        if (actor.account_id, actor.workspace_id) == (account, workspace):
            return
        way = f"/api/accounts/{actor.account_id}/workspaces/{actor.workspace_id}"
        raise ManagedError(ErrorCode.NOT_FOUND, f"Workspace {workspace!r} not found: this key opens the one at {way}")
    if workspace == DEFAULT_WORKSPACE_ID and account == DEFAULT_ACCOUNT_ID:
        return
    found = await services.db.look(lambda tx: workspaces.get(tx, workspace))
    if found is None or found.account_id != account:
        raise ManagedError(ErrorCode.NOT_FOUND, f"Workspace {workspace!r} not found")
