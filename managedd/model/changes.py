"""What was made, changed and deleted, and the events that tell of it. Names of events and labels are those of Prefect's server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from managedd.clock import iso
from managedd.model.events import POOL_TYPE, RESOURCE_ID, RESOURCE_NAME, RESOURCE_ROLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

EXECUTION: Final = "execution"
_SILENT: Final = frozenset({"is_paused", "default_queue_id", "type", "work_pool_id"})
"""Columns whose change is no update of its own: a pause is a change of status, the others are set while the thing is made."""
_LARGE: Final = frozenset(
    {"base_job_template", "job_variables", "labels", "parameter_openapi_schema", "parameters", "pull_steps", "storage_configuration"}
)  # fmt: skip
"""Columns of which an event names the change and not the values: they are long, and may hold what not everybody should read. `before` and
`after` have 0 and 1 for them when they have changed."""
_YES_OR_NO: Final = frozenset({"enforce_parameter_schema", "is_paused", "paused"})
_MOMENTS: Final = ("pulled_at", "created_at", "started_at", "installed_at", "exited_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing before and after; both None: it was heard of, and its status may be another."""

    kind: str
    """`flow`, `deployment`, `work-pool`, `work-queue` or `execution`."""
    id: str
    workspace_id: str
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None

    @property
    def seen(self) -> Mapping[str, Any]:
        """The thing's columns as they are now, or were last."""
        return self.after or self.before or {}


def resource(change: Change) -> dict[str, str]:
    """The labels of the thing itself."""
    if change.kind == EXECUTION:
        return {
            RESOURCE_ID: f"managedd.execution.{change.id}",
            "managedd.attempt": str(change.seen["attempt"]),
            "managedd.driver": change.seen["driver"],
        }
    labels = {RESOURCE_ID: f"prefect.{change.kind}.{change.id}", RESOURCE_NAME: change.seen["name"]}
    if change.kind in {"work-pool", "work-queue"}:
        labels[RESOURCE_ROLE] = change.kind
    if change.kind == "work-pool":
        labels[POOL_TYPE] = change.seen["type"]
    return labels


def happened(change: Change) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name and payload of each event that tells of the change; of its status, nothing."""
    if change.kind == EXECUTION:
        yield from _moved(change)
    elif change.before is None and change.after is not None:
        yield f"prefect.{change.kind}.created", {}
    elif change.before is not None and change.after is None:
        yield f"prefect.{change.kind}.deleted", {}
    elif changed := _changed(change):
        updates = {
            name: {"from": _shown(name, (change.before or {})[name]), "to": _shown(name, change.seen[name])}
            for name in changed
            if name not in _LARGE
        }
        yield f"prefect.{change.kind}.updated", {"updated_fields": changed, "updates": updates}


def _shown(name: str, value: Any) -> Any:
    return bool(value) if name in _YES_OR_NO else value


def status_event(kind: str, status: str) -> str:
    """The name of the event that tells of a status such as `NOT_READY`."""
    return f"prefect.{kind}.{status.lower().replace('_', '-')}"


def _changed(change: Change) -> list[str]:
    before, after = change.before or {}, change.after or {}
    return [name for name in after if name not in _SILENT and before.get(name) != after[name]]


_STEPS: Final = {
    "CREATED": "created",
    "RUNNING": "started",
    "EXITED": "stopped",
    "FINALIZED": "finalized",
    "LOST": "lost",
}


def _moved(change: Change) -> Iterator[tuple[str, dict[str, Any]]]:
    before, after = change.before, change.seen
    for step in ["claimed"] if before is None else _steps(before, after):
        yield f"managedd.execution.{step}", _execution(after)


def _steps(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What happened between the two, in its order. Where there is nothing to install, nothing says that it was."""
    phase = _STEPS[after["phase"]] if before["phase"] != after["phase"] else None
    steps = [
        step for step in ("pulled", "installed") if before[f"{step}_at"] is None and after[f"{step}_at"] is not None
    ]
    if phase == "started":
        return [phase]
    return steps if phase is None else [*steps, phase]


def _execution(columns: Mapping[str, Any]) -> dict[str, Any]:
    told = {
        name: value for name, value in columns.items() if value is not None and name not in {"flow_run_id", "driver"}
    }
    told |= {name: iso(told[name]) for name in _MOMENTS if name in told}
    if columns["started_at"] is not None and columns["exited_at"] is not None:
        told["seconds"] = max(0, columns["exited_at"] - columns["started_at"]) / 1_000_000
    return told
