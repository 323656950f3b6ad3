"""Artifacts, and which is the latest of its key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from managedd import ids
from managedd.errors import not_found
from managedd.store import rows
from managedd.store.resources import ARTIFACT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from managedd.store.database import Tx
    from managedd.store.rows import Wire


def create(tx: Tx, values: Mapping[str, Any]) -> str:
    """The artifact exists, is the latest of its key, and its id is returned.

    One that names only its task run belongs to that task run's flow run too.
    """
    owner = values.get("flow_run_id")
    if owner is None and values.get("task_run_id") is not None:
        owner = tx.scalar(
            "SELECT flow_run_id FROM task_runs WHERE id = ? AND workspace_id = ?", (values["task_run_id"], tx.workspace)
        )
    artifact_id = rows.insert(tx, ARTIFACT, {**values, "flow_run_id": owner})
    if values.get("key") is not None:
        _point(tx, str(values["key"]), artifact_id)
    return artifact_id


def latest(tx: Tx, key: str) -> Wire:
    """The latest artifact of the key. Raises ManagedError(NOT_FOUND)."""
    found = tx.scalar(
        "SELECT latest_id FROM artifact_collections WHERE key = ? AND workspace_id = ?", (key, tx.workspace)
    )
    if found is None:
        raise not_found(ARTIFACT.label, key)
    return rows.get(tx, ARTIFACT, found)


def owner(tx: Tx, artifact_id: object) -> str:
    """The flow run that made it; a word that is no run's id for one that no run has made. Raises ManagedError(NOT_FOUND)."""
    return str(rows.need(tx, ARTIFACT, id=artifact_id)["flow_run_id"] or "nobody")


def update(tx: Tx, artifact_id: str, changes: Mapping[str, Any]) -> None:
    """The artifact has `changes`; its key's collection was updated with it. Raises ManagedError(NOT_FOUND)."""
    rows.patch(tx, ARTIFACT, artifact_id, changes)
    tx.execute("UPDATE artifact_collections SET updated = ? WHERE latest_id = ?", (tx.now, artifact_id))


def delete(tx: Tx, artifact_id: str) -> None:
    """The artifact is gone; the one before it is the latest of its key again, or the key has none. Raises ManagedError(NOT_FOUND)."""
    artifact = rows.need(tx, ARTIFACT, id=artifact_id)
    if tx.scalar("SELECT 1 FROM artifact_collections WHERE latest_id = ?", (artifact["id"],)):
        before: str | None = tx.scalar(
            "SELECT id FROM artifacts WHERE workspace_id = ? AND key = ? AND id <> ? ORDER BY created DESC, id DESC LIMIT 1",
            (tx.workspace, artifact["key"], artifact["id"]),
        )
        if before is not None:
            _point(tx, artifact["key"], before)
    rows.delete(tx, ARTIFACT, artifact_id)


def _point(tx: Tx, key: str, artifact_id: str) -> None:
    tx.execute(
        "INSERT INTO artifact_collections (id, workspace_id, key, latest_id, created, updated) VALUES (?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (workspace_id, key) DO UPDATE SET latest_id = excluded.latest_id, updated = excluded.updated",
        (ids.new_id(), tx.workspace, key, artifact_id, tx.now, tx.now),
    )
