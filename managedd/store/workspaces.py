"""Accounts and workspaces: who owns rows. One that was deleted is in none of the answers, see `workspace_removal`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from managedd import ids
from managedd.bus import Topic
from managedd.errors import conflict, not_found
from managedd.ids import DEFAULT_ACCOUNT_ID, DEFAULT_WORKSPACE_ID
from managedd.store import meta

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from managedd.store.database import Tx

_DEFAULT_PLAN = "default_plan"
"""A fact of the store: the plan that the settings named for the default workspace last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """A tenant."""

    id: str
    account_id: str
    account: str
    handle: str
    name: str
    description: str
    plan: str
    created: int
    """In microseconds."""


_SELECT = (
    "SELECT w.id, w.account_id, a.handle AS account, w.handle, w.name, w.description, w.plan, w.created "
    "FROM workspaces AS w JOIN accounts AS a ON a.id = w.account_id"
)


def create(
    tx: Tx, *, account_id: str, account: str, workspace_id: str, handle: str, plan: str, name: str | None = None
) -> None:
    """The account (made when new) has a workspace called `handle`. Raises IntegrityFault when it had one."""
    tx.execute(
        "INSERT INTO accounts (id, handle, name, created) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
        (account_id, account, account, tx.now),
    )
    tx.execute(
        "INSERT INTO workspaces (id, account_id, handle, name, plan, created, updated) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (workspace_id, account_id, handle, name or handle, plan, tx.now, tx.now),
    )


def make(tx: Tx, *, account: str, handle: str, plan: str, name: str | None = None) -> Workspace:
    """A new workspace of the account of that handle, which is made when new. Raises ManagedError(CONFLICT) when it has one of the handle."""
    account_id = tx.scalar("SELECT id FROM accounts WHERE handle = ?", (account,)) or ids.new_id()
    _check_free(tx, account_id, account, handle)
    made = ids.new_id()
    create(tx, account_id=account_id, account=account, workspace_id=made, handle=handle, plan=plan, name=name)
    return need(tx, made)


def rename(tx: Tx, workspace_id: str, *, handle: str | None = None, name: str | None = None) -> None:
    """The workspace has that handle, or that name, or both. Raises ManagedError: NOT_FOUND, or CONFLICT."""
    known = need(tx, workspace_id)
    if handle is not None and handle != known.handle:
        if workspace_id == DEFAULT_WORKSPACE_ID:
            raise conflict("The default workspace keeps its handle: default/default is what everybody calls it")
        _check_free(tx, known.account_id, known.account, handle)
    tx.execute(
        "UPDATE workspaces SET handle = coalesce(?, handle), name = coalesce(?, name), updated = ? WHERE id = ?",
        (handle, name, tx.now, workspace_id),
    )


def _check_free(tx: Tx, account_id: str, account: str, handle: str) -> None:
    if tx.scalar("SELECT EXISTS (SELECT 1 FROM workspaces WHERE account_id = ? AND handle = ?)", (account_id, handle)):
        raise conflict(f"There is a workspace {account}/{handle} already")


def existing(tx: Tx, workspace_ids: Iterable[str]) -> set[str]:
    """Those of the workspaces that there are."""
    return {each for each in workspace_ids if exists(tx, each)}


def exists(tx: Tx, workspace_id: str) -> bool:
    """Whether there is that workspace."""
    sql = "SELECT EXISTS (SELECT 1 FROM workspaces WHERE id = ? AND removed IS NULL)"
    return bool(tx.scalar(sql, (workspace_id,)))


def ensure_default(tx: Tx, *, plan: str) -> None:
    """The default workspace exists, on `plan` when it is new or when the settings name another one than the last time."""
    if get(tx, DEFAULT_WORKSPACE_ID) is None:
        create(
            tx,
            account_id=DEFAULT_ACCOUNT_ID,
            account="default",
            workspace_id=DEFAULT_WORKSPACE_ID,
            handle="default",
            plan=plan,
        )
    if meta.get(tx, _DEFAULT_PLAN) != plan:
        meta.put(tx, _DEFAULT_PLAN, plan)
        move(tx, DEFAULT_WORKSPACE_ID, plan)


def move(tx: Tx, workspace_id: str, plan: str) -> None:
    """The workspace is on `plan`; what waits is looked at again."""
    tx.execute("UPDATE workspaces SET plan = ?, updated = ? WHERE id = ?", (plan, tx.now, workspace_id))
    tx.publish(Topic.SLOTS)


def note_starts(tx: Tx, workspace_id: str, taken: float, as_of_us: int) -> None:
    """So much of the workspace's bucket of starts is taken at that moment."""
    tx.execute("UPDATE workspaces SET starts_taken = ?, starts_as_of = ? WHERE id = ?", (taken, as_of_us, workspace_id))


def on_other_plans(tx: Tx, known: Collection[str]) -> list[Workspace]:
    """The workspaces whose plan is none of `known`."""
    return [workspace for workspace in every(tx) if workspace.plan not in known]


def get(tx: Tx, workspace_id: str) -> Workspace | None:
    """The workspace, or None."""
    row = tx.one(f"{_SELECT} WHERE w.id = ? AND w.removed IS NULL", (workspace_id,))
    return None if row is None else Workspace(**dict(row))


def need(tx: Tx, workspace_id: str) -> Workspace:
    """The workspace. Raises ManagedError(NOT_FOUND)."""
    found = get(tx, workspace_id)
    if found is None:
        raise not_found("Workspace", workspace_id)
    return found


def every(tx: Tx) -> list[Workspace]:
    """All workspaces, by account and handle."""
    return [Workspace(**dict(row)) for row in tx.all(f"{_SELECT} WHERE w.removed IS NULL ORDER BY a.handle, w.handle")]
