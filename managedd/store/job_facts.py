"""What a run's job is made of: its names and the three layers of job variables, in clear: never for an answer to a client."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from managedd.model.secrets import MASK
from managedd.store.concealing import DEPLOYMENTS, FLOW_RUNS, WORK_POOLS, text_in_clear

if TYPE_CHECKING:
    from managedd.store.database import Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """A run with everything that decides what it runs in."""

    account_id: str
    workspace_id: str
    flow_run_id: str
    flow_run_name: str
    flow_id: str
    flow_name: str
    deployment_id: str | None
    deployment_name: str | None
    work_pool_name: str | None
    template: dict[str, Any] = field(repr=False)
    deployment_variables: dict[str, Any] = field(repr=False)
    run_variables: dict[str, Any] = field(repr=False)
    shown: tuple[dict[str, Any], dict[str, Any], dict[str, Any]] | None = None
    """The three layers as everybody sees them, with masks; None where nothing is masked."""


def load(tx: Tx, flow_run_id: str) -> JobFacts | None:
    """The run's facts, or None when it is gone. Raises CannotOpen."""
    row = tx.one(
        "SELECT w.account_id, r.workspace_id, r.id AS flow_run_id, r.name AS flow_run_name, r.flow_id, f.name AS flow_name, "
        "d.id AS deployment_id, d.name AS deployment_name, p.id AS work_pool_id, p.name AS work_pool_name, p.base_job_template AS template, "
        "d.job_variables AS deployment_variables, r.job_variables AS run_variables "
        "FROM flow_runs AS r JOIN flows AS f ON f.id = r.flow_id JOIN workspaces AS w ON w.id = r.workspace_id "
        "LEFT JOIN deployments AS d ON d.id = r.deployment_id LEFT JOIN work_queues AS q ON q.id = r.work_queue_id "
        "LEFT JOIN work_pools AS p ON p.id = q.work_pool_id WHERE r.id = ?",
        (flow_run_id,),
    )
    if row is None:
        return None
    values: dict[str, Any] = dict(row)
    layers = [values["template"], values["deployment_variables"], values["run_variables"]]
    if any(text and MASK in text for text in layers):
        template, deployment, run = (orjson.loads(text) if text else {} for text in layers)
        values["shown"] = (template, deployment or {}, run or {})
    scoped = tx.scoped(values["workspace_id"])
    for name, table, row_id, column in (
        ("template", WORK_POOLS, values.pop("work_pool_id"), "base_job_template"),
        ("deployment_variables", DEPLOYMENTS, values["deployment_id"], "job_variables"),
        ("run_variables", FLOW_RUNS, flow_run_id, "job_variables"),
    ):
        values[name] = text_in_clear(scoped, table, row_id, column, values[name])
    return JobFacts(**values)
