"""What is secret of a row is taken out of it before it is stored: an envelope beside the row has the whole, the row shows masks.

So whatever reads rows, answers, lists, pages, events, shows masks without knowing of it; only who renders a job opens the envelope. Once a
value was called secret it stays so, also when the pool's template stops saying it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from managedd.bus import Topic
from managedd.model.secret_schemas import concrete, default_paths, secret_paths
from managedd.model.secrets import MASK, masked, unmasked
from managedd.store import sealed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from managedd.store.transaction import Tx

DEPLOYMENTS: Final = "deployments"
FLOW_RUNS: Final = "flow_runs"
WORK_POOLS: Final = "work_pools"
AUTOMATIONS: Final = "automations"
_NOTHING: Final = frozenset({"", "{}", "null"})
_ACTIONS: Final = ("actions", "actions_on_trigger", "actions_on_resolve")


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """What goes into the row's envelope: columns and their values, and the `paths` at which they are secret. No paths: there is no envelope any more."""

    value: Any
    paths: tuple[tuple[str, ...], ...]

    def keep(self, tx: Tx, table: str, row_id: str) -> None:
        """The row has this envelope, or none."""
        if self.paths:
            sealed.put(tx, table, row_id, {"value": self.value, "paths": self.paths})
        else:
            sealed.drop(tx, table, row_id)


def in_clear(tx: Tx, table: str, row: Mapping[str, Any], column: str) -> dict[str, Any]:
    """The row's `column`, parsed already, without masks. Raises CannotOpen."""
    known = sealed.get(tx, table, row["id"])
    return dict((row[column] or {}) if known is None else known["value"][column])


def text_in_clear(tx: Tx, table: str, row_id: str | None, column: str, text: str | None) -> dict[str, Any]:
    """The same of a column's JSON `text`; where it has no mask, nothing is looked up. Raises CannotOpen."""
    known = sealed.get(tx, table, row_id) if text and row_id and MASK in text else None
    found: dict[str, Any] = (orjson.loads(text) if text else {}) if known is None else known["value"][column]
    return found or {}


def without_masks(tx: Tx, table: str, row_id: str, column: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """`given`, which is about to be written into the row's `column` or over it: where it has masks, it has what is there. Raises CannotOpen."""
    known = _known(tx, table, row_id)
    found: Mapping[str, Any] = (
        given if known is None else unmasked({column: given}, known["value"], _paths(known))[column]
    )
    return found


def deployment(tx: Tx, row: dict[str, Any], row_id: str | None) -> Secret | None:
    """The columns `row`, about to be stored, show masks; returns what goes into the envelope, None when that is not touched."""
    return _variables(tx, DEPLOYMENTS, row, row_id)


def flow_run(tx: Tx, row: dict[str, Any], row_id: str | None) -> Secret | None:
    """The same of a flow run. Where a new one brings masks, it has what its deployment has."""
    return _variables(tx, FLOW_RUNS, row, row_id)


def work_pool(tx: Tx, row: dict[str, Any], row_id: str | None) -> Secret | None:
    """The same of a work pool: the defaults in its template. What it calls secret now is sealed everywhere, a little later."""
    if "base_job_template" not in row:
        return None
    given: dict[str, Any] = orjson.loads(row["base_job_template"])
    variables = secret_paths(given)
    row["secret_variables"] = orjson.dumps(variables).decode() if variables else None
    if row_id is not None and _calls_more_secret(tx, row_id, variables):
        look_through(tx, row_id)
    paths = [("base_job_template", *path) for path in default_paths(given)]
    return _concealed(row, {"base_job_template": given}, paths, _known(tx, WORK_POOLS, row_id))


def automation(tx: Tx, row: dict[str, Any], row_id: str | None) -> Secret | None:
    """The same of an automation: the job variables in its actions, by what any pool of the workspace calls secret."""
    given = {name: orjson.loads(row[name]) for name in _ACTIONS if row.get(name)}
    if not any(action.get("job_variables") for actions in given.values() for action in actions):
        return None if not given or row_id is None else Secret(value=None, paths=())
    pools = tx.all(
        "SELECT secret_variables FROM work_pools WHERE workspace_id = ? AND secret_variables IS NOT NULL",
        (tx.workspace,),
    )
    variables = [path for pool in pools for path in orjson.loads(pool[0])]
    known = _known(tx, AUTOMATIONS, row_id)
    paths: list[tuple[str, ...]] = []
    for name, actions in given.items():
        for action in actions:
            paths += [(name, "job_variables", *path) for path in concrete(variables, action.get("job_variables") or {})]
    return _concealed(row, given, paths, known)


def look_through(tx: Tx, pool_id: str) -> None:
    """The pool's deployments and their runs, and all automations, will be looked through for what stands in clear."""
    for kind in (DEPLOYMENTS, FLOW_RUNS, AUTOMATIONS):
        pool = "" if kind == AUTOMATIONS else pool_id
        tx.execute(
            "INSERT INTO unsealed (kind, work_pool_id) VALUES (?, ?) ON CONFLICT (kind, work_pool_id) DO UPDATE SET after_rowid = 0",
            (kind, pool),
        )
    tx.publish(Topic.SECRETS)


def _variables(tx: Tx, table: str, row: dict[str, Any], row_id: str | None) -> Secret | None:
    text, queue_id, known = row.get("job_variables"), row.get("work_queue_id"), None
    if row_id is not None:
        if "job_variables" not in row and "work_queue_id" not in row:
            return None
        stored = tx.one(
            f"SELECT job_variables, work_queue_id FROM {table} WHERE id = ? AND workspace_id = ?",
            (row_id, tx.workspace),
        )
        if stored is None:
            return None
        text, queue_id = (
            row.get("job_variables", stored["job_variables"]),
            row.get("work_queue_id", stored["work_queue_id"]),
        )
        known = _known(tx, table, row_id)
    if (text is None or text in _NOTHING) and known is None:
        return None
    given: dict[str, Any] = orjson.loads(text or "null") or {}
    paths = concrete(_of_pool(tx, queue_id), given)
    inherited = _inherited(tx, row) if row_id is None and text and MASK in text else None
    if inherited is not None:
        given = unmasked(given, inherited, paths)
    return _concealed(row, {"job_variables": given}, [("job_variables", *path) for path in paths], known)


def _of_pool(tx: Tx, queue_id: str | None) -> list[list[str]]:
    """What the queue's pool calls secret among the job variables."""
    found = None if queue_id is None else tx.scalar(
        "SELECT p.secret_variables FROM work_queues AS q JOIN work_pools AS p ON p.id = q.work_pool_id WHERE q.id = ?", (queue_id,)
    )  # fmt: skip
    return [] if found is None else list(orjson.loads(found))


def _inherited(tx: Tx, row: Mapping[str, Any]) -> Any:
    deployment_id = row.get("deployment_id")
    known = None if deployment_id is None else sealed.get(tx, DEPLOYMENTS, deployment_id)
    return None if known is None else known["value"]["job_variables"]


def _known(tx: Tx, table: str, row_id: str | None) -> dict[str, Any] | None:
    known: dict[str, Any] | None = None if row_id is None else sealed.get(tx, table, row_id)
    return known


def _paths(known: Mapping[str, Any] | None) -> list[tuple[str, ...]]:
    return [] if known is None else [tuple(path) for path in known["paths"]]


def _calls_more_secret(tx: Tx, pool_id: str, variables: Iterable[tuple[str, ...]]) -> bool:
    before = tx.scalar("SELECT secret_variables FROM work_pools WHERE id = ?", (pool_id,))
    known = [] if before is None else orjson.loads(before)
    return any(list(path) not in known for path in variables)


def _concealed(
    row: dict[str, Any], given: Mapping[str, Any], now: Iterable[tuple[str, ...]], known: Mapping[str, Any] | None
) -> Secret | None:
    """The columns `given` stand masked in `row`, if anything in them is secret; masks in them are what is known there."""
    paths = tuple(dict.fromkeys([*now, *_paths(known)]))
    if not paths:
        return None
    before = {} if known is None else known["value"]
    whole = {**before, **unmasked(given, before, paths)}
    shown = masked(whole, paths)
    if shown == whole:
        return None if known is None else Secret(value=None, paths=())
    row.update(
        {name: orjson.dumps(shown[name]).decode() for name in given if shown[name] != given[name] or name in row}
    )
    return Secret(value=whole, paths=paths)
