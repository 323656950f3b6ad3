"""Settings that are read anew while the daemon runs: the plans, which one the default workspace is on, and the clients' certificate.

All others wait for a restart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio.to_thread

from managedd.config.certificates import read_certificate
from managedd.errors import ErrorCode, ManagedError
from managedd.observe import get_log
from managedd.store import plans, workspaces

if TYPE_CHECKING:
    from collections.abc import Callable

    from managedd.config import Settings
    from managedd.listeners import Door
    from managedd.signals import Signals
    from managedd.store.database import Database, Tx

log = get_log("reloading")

TAKEN_UP = frozenset({"plans", "default_plan"})
CERTIFICATE = frozenset({"server.tls_certificate", "server.tls_key"})


async def apply(db: Database, settings: Settings) -> None:
    """The plans of the settings are in force. Raises ManagedError(CONFIG) when a workspace is on one that they don't have."""

    def body(tx: Tx) -> None:
        plans.replace(tx, settings.all_plans())
        workspaces.ensure_default(tx, plan=settings.default_plan)
        _check(workspaces.on_other_plans(tx, settings.plans))

    await db.write(body)


async def keep(
    db: Database, signals: Signals, in_force: Settings, read: Callable[[], Settings], clients: Door | None = None
) -> None:
    """Reads the settings anew whenever it is told so, until cancelled; settings that are wrong change nothing."""
    while True:
        await signals.until_reload()
        try:
            settings = await anyio.to_thread.run_sync(read)
            await apply(db, settings)
        except ManagedError as error:
            log.error("settings.refused", reason=error.message)
            continue
        files = CERTIFICATE if clients is not None and await renew(clients, settings) else frozenset[str]()
        changed = differing(in_force.model_dump(), settings.model_dump())
        wait = sorted({key for key in changed if key.split(".")[0] not in TAKEN_UP and key not in files})
        log.info("settings.reloaded", changed=sorted(changed - set(wait)), need_a_restart=wait)
        in_force = _with(in_force, settings, files)


async def renew(clients: Door, settings: Settings) -> bool:
    """Whether new connections are shown the certificate that the settings name now; one that can't be used changes nothing.

    Whether there is TLS at all waits for a restart: clients hold the address with its scheme.
    """
    if clients.certificate is None or settings.server.tls_certificate is None:
        return False
    try:
        certificate = await anyio.to_thread.run_sync(read_certificate, settings.server)
    except ManagedError as error:
        log.error("certificate.refused", reason=error.message)
        return False
    assert certificate is not None
    clients.certificate = certificate
    log.info("certificate.reloaded", ends_at=certificate.ends_at.isoformat(), names=certificate.names)
    return True


def _with(in_force: Settings, settings: Settings, files: frozenset[str]) -> Settings:
    """What is in force once the new settings were taken up."""
    taken: dict[str, Any] = {name: getattr(settings, name) for name in TAKEN_UP}
    if files:
        paths = {"tls_certificate": settings.server.tls_certificate, "tls_key": settings.server.tls_key}
        taken["server"] = in_force.server.model_copy(update=paths)
    return in_force.model_copy(update=taken)


def differing(one: dict[str, Any], other: dict[str, Any], prefix: str = "") -> set[str]:
    """The dotted keys that have another value in the other."""
    found: set[str] = set()
    for name in one.keys() | other.keys():
        mine, theirs = one.get(name), other.get(name)
        if isinstance(mine, dict) and isinstance(theirs, dict):
            found |= differing(mine, theirs, f"{prefix}{name}.")
        elif mine != theirs:
            found.add(f"{prefix}{name}")
    return found


def _check(without: list[workspaces.Workspace]) -> None:
    """Returns when each workspace's plan is set: one that left the settings must not mean "no limits"."""
    if without:
        told = ", ".join(f"{each.account}/{each.handle} is on plan {each.plan!r}" for each in without)
        raise ManagedError(
            ErrorCode.CONFIG, f"workspaces are on plans that the settings don't have: {told}; set [plans.NAME] for each"
        )
