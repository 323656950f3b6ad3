"""Artifacts, and which is the latest of its key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from managedd import ids
from managedd.clock import iso
from managedd.errors import not_found
from managedd.store import rows
from managedd.store.filtering import where
from managedd.store.resources import ARTIFACT, RELATIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from managedd.store.database import Row, Tx
    from managedd.store.rows import Filters, Wire


def beginnings(tx: Tx, filters: Filters, *, most_chars: int, limit: int) -> list[Wire]:
    """The last artifacts that the filters admit, each with its data where that is no longer than so many characters of JSON, else with its beginning."""
    sql, params = where(tx.workspace, ARTIFACT, filters, RELATIONS, "ID_DESC")
    found = tx.all(
        "SELECT id, key, type, created, flow_run_id, task_run_id, substr(description, 1, ?) AS description, substr(data, 1, ?) AS data, "
        f"length(data) AS chars FROM artifacts WHERE {sql} ORDER BY id DESC LIMIT ?",
        [most_chars, most_chars, *params, limit],
    )
    return [_shown(row) for row in found]


def _shown(row: Row) -> Wire:
    shown = {**dict(row), "created": iso(row["created"]), "chars": row["chars"] or 0, "beginning": None}
    if row["data"] is None:
        return shown
    if row["chars"] == len(row["data"]):
        return {**shown, "data": orjson.Fragment(row["data"])}
    return {**shown, "data": None, "beginning": _text_of(row["data"])}


def _text_of(part: str) -> str:
    """What the beginning of a JSON text says: of a text its own beginning, of anything else the JSON."""
    if not part.startswith('"'):
        return part
    for cut in range(_LONGEST_ESCAPE):
        try:
            found: str = orjson.loads(part[: len(part) - cut] + '"')
        except orjson.JSONDecodeError:
            continue
        return found
    return part


_LONGEST_ESCAPE: Final = 13
"""Characters of a pair of surrogates, and one more."""


def data_of(tx: Tx, artifact_id: object) -> tuple[str, str | None]:
    """The artifact's name and its data as JSON. Raises ManagedError(NOT_FOUND)."""
    row = tx.one(
        "SELECT key, type, data FROM artifacts WHERE id = ? AND workspace_id = ?", (str(artifact_id), tx.workspace)
    )
    if row is None:
        raise not_found(ARTIFACT.label, artifact_id)
    return row["key"] or "artifact", row["data"]


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
