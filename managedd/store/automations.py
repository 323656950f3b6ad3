"""Automations: kept as they were sent, with triggers' ids of our own, and found by the deployments that they start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from managedd import ids
from managedd.bus import Topic
from managedd.store import rows
from managedd.store.resources import AUTOMATION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from managedd.store.database import Tx
    from managedd.store.rows import Wire

_DEPLOYMENT = "prefect.deployment."


def create(tx: Tx, values: Mapping[str, Any]) -> str:
    """The automation exists and its id is returned."""
    automation_id = rows.insert(tx, AUTOMATION, {**values, "trigger": _with_new_ids(values["trigger"])})
    tx.publish(Topic.EVENTS)
    return automation_id


def replace(tx: Tx, automation_id: str, values: Mapping[str, Any]) -> None:
    """The automation is what `values` say; whoever owned it still does. Raises ManagedError(NOT_FOUND)."""
    rows.patch(tx, AUTOMATION, automation_id, {**values, "trigger": _with_new_ids(values["trigger"])})
    tx.publish(Topic.EVENTS)


def set_enabled(tx: Tx, automation_id: str, *, enabled: bool) -> None:
    """The automation is on or off. Raises ManagedError(NOT_FOUND)."""
    rows.patch(tx, AUTOMATION, automation_id, {"enabled": enabled})
    tx.publish(Topic.EVENTS)


def related_to(tx: Tx, resource_id: str) -> list[Wire]:
    """The automations that the resource owns, and those that act on it when it is a deployment, by name."""
    clause = """
        automations.owner_resource = ? OR (? <> '' AND EXISTS (
            SELECT 1 FROM json_each(json_array(
                json(automations.actions), json(automations.actions_on_trigger), json(automations.actions_on_resolve)
            )) AS listed, json_each(listed.value) AS action
            WHERE json_extract(action.value, '$.deployment_id') = ?
        ))
    """
    deployment = resource_id.removeprefix(_DEPLOYMENT) if resource_id.startswith(_DEPLOYMENT) else ""
    return rows.find(tx, AUTOMATION, [], "NAME_ASC", extra=(clause, [resource_id, deployment, deployment]))


def delete_owned_by(tx: Tx, resource_id: str) -> None:
    """The resource owns no automation."""
    tx.execute("DELETE FROM automations WHERE owner_resource = ? AND workspace_id = ?", (resource_id, tx.workspace))


def _with_new_ids(trigger: Mapping[str, Any]) -> dict[str, Any]:
    """The trigger with fresh ids, nested ones too: what a client makes up could be another automation's."""
    renewed = {**trigger, "id": ids.new_id()}
    if "triggers" in trigger:
        renewed["triggers"] = [_with_new_ids(each) for each in trigger["triggers"]]
    return renewed
