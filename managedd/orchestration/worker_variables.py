"""What a worker of the user's own needs to render the runs that it takes.

It reads the pool and the deployment as everybody does, with masks, and lays the run's job variables over theirs. So the runs that it is offered
have whatever is secret in any of the three layers as their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from managedd.orchestration.job_variables import merge
from managedd.store import job_facts
from managedd.store.resources import is_serverless

if TYPE_CHECKING:
    from collections.abc import Mapping

    from managedd.store.database import Tx
    from managedd.store.rows import Wire


def fill(tx: Tx, pool: Mapping[str, Any], offered: list[Wire]) -> list[Wire]:
    """The offered runs of a worker's pool, in clear. Raises CannotOpen."""
    if is_serverless(pool["type"]):
        return offered
    return [{**each, "flow_run": _filled(tx, each["flow_run"])} for each in offered]


def _filled(tx: Tx, run: Wire) -> Wire:
    facts = job_facts.load(tx, run["id"])
    if facts is None or facts.shown is None:
        return run
    values, shown = merge(facts.template, facts.deployment_variables, facts.run_variables), merge(*facts.shown)
    secret = {name: value for name, value in values.items() if value != shown.get(name)}
    own = {name: value for name, value in facts.run_variables.items() if name.split(".")[0] not in secret}
    return {**run, "job_variables": own | secret}
