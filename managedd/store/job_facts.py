"""What a run's job is made of: its names and the three layers of job variables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

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
    template: dict[str, Any]
    deployment_variables: dict[str, Any]
    run_variables: dict[str, Any]


def load(tx: Tx, flow_run_id: str) -> JobFacts | None:
    """The run's facts, or None when it is gone."""
    row = tx.one(
        "SELECT w.account_id, r.workspace_id, r.id AS flow_run_id, r.name AS flow_run_name, r.flow_id, f.name AS flow_name, "
        "d.id AS deployment_id, d.name AS deployment_name, p.name AS work_pool_name, p.base_job_template AS template, "
        "d.job_variables AS deployment_variables, r.job_variables AS run_variables "
        "FROM flow_runs AS r JOIN flows AS f ON f.id = r.flow_id JOIN workspaces AS w ON w.id = r.workspace_id "
        "LEFT JOIN deployments AS d ON d.id = r.deployment_id LEFT JOIN work_queues AS q ON q.id = r.work_queue_id "
        "LEFT JOIN work_pools AS p ON p.id = q.work_pool_id WHERE r.id = ?",
        (flow_run_id,),
    )
    if row is None:
        return None
    values: dict[str, Any] = dict(row)
    for name in ("template", "deployment_variables", "run_variables"):
        values[name] = orjson.loads(values[name]) if values[name] else {}
    return JobFacts(**values)
