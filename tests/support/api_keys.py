"""Keys made straight in the store, for tests of what they open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from managedd import ids
from managedd.model import keys
from managedd.model.access import Role
from managedd.store import executions
from managedd.store import keys as stored

if TYPE_CHECKING:
    from managedd.store.database import Database


async def make_key(
    db: Database,
    role: Role = Role.ADMIN,
    *,
    workspace: str = ids.DEFAULT_WORKSPACE_ID,
    name: str | None = None,
    expires_us: int | None = None,
) -> str:
    """A new key of the workspace."""
    key = keys.make()
    await db.write(
        lambda tx: stored.create(
            tx,
            workspace_id=workspace,
            name=name or f"{role} {key[-8:]}",
            role=role,
            key_hash=keys.hashed(key),
            hint=keys.hint(key),
            expires_us=expires_us,
        )
    )
    return key


async def make_run_key(db: Database, flow_run_id: str, *, workspace: str = ids.DEFAULT_WORKSPACE_ID) -> str:
    """The key of a new execution of the flow run."""
    key = f"{keys.RUN_PREFIX}{ids.new_id()}"

    def body(tx: Any) -> None:
        made = executions.insert(tx, flow_run_id=flow_run_id, work_pool_id=None, driver="fake")
        executions.note(tx, made.id, {"key_hash": keys.hashed(key)})

    await db.write(body, workspace=workspace)
    return key


def bearer(key: str) -> dict[str, str]:
    """The headers of a request with that key."""
    return {"Authorization": f"Bearer {key}"}
