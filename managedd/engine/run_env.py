"""The environment of a run: pure. The address and the key of the API are ours; everything else the user's wins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from managedd.ids import DEFAULT_WORKSPACE_ID
from managedd.orchestration.managed_job import strip_reserved

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """Who the run is, for its environment and its labels."""

    account_id: str
    workspace_id: str
    flow_run_id: str
    flow_run_name: str
    flow_id: str
    flow_name: str
    deployment_id: str | None
    deployment_name: str | None
    work_pool_name: str | None


def api_environment(facts: RunFacts, api_url: str, key: str) -> dict[str, str]:
    """Address and credential, in the form in which every call and every socket of the client carries it.

    In Server mode only the auth string reaches the client's event sockets, so the default workspace's key goes there; in Cloud mode
    (other workspaces) it is the API key. `api_url` ends with `/api`.
    """
    if facts.workspace_id == DEFAULT_WORKSPACE_ID:
        return {"PREFECT_API_URL": api_url, "PREFECT_API_AUTH_STRING": key}
    return {
        "PREFECT_CLOUD_API_URL": api_url,
        "PREFECT_API_URL": f"{api_url}/accounts/{facts.account_id}/workspaces/{facts.workspace_id}",
        "PREFECT_API_KEY": key,
    }


def environment(
    facts: RunFacts, api_url: str, key: str, *, operator: Mapping[str, str], user: Mapping[str, str]
) -> dict[str, str]:
    """The whole environment; later wins: our defaults, the operator's, the user's, then what may not be replaced.

    The run's own names are taken from nobody: one in another case of letters, or one that holds several settings, would win over ours.
    """
    defaults = {"DO_NOT_TRACK": "1", "PYTHONUNBUFFERED": "1"}
    named = {
        "PREFECT__FLOW_RUN_ID": facts.flow_run_id,
        "PREFECT__FLOW_ID": facts.flow_id,
        "PREFECT__FLOW_NAME": facts.flow_name,
        "PREFECT__DEPLOYMENT_ID": facts.deployment_id,
        "PREFECT__DEPLOYMENT_NAME": facts.deployment_name,
        "PREFECT__WORKER_NAME": "managedd",
    }
    ours = {name: value for name, value in named.items() if value is not None}
    given = {**defaults, **strip_reserved(operator)[0], **strip_reserved(user)[0]}
    return {**given, **ours, **api_environment(facts, api_url, key)}


def labels(facts: RunFacts) -> dict[str, str]:
    """Prefect's own container labels."""
    named = {
        "prefect.io/flow-run-id": facts.flow_run_id,
        "prefect.io/flow-run-name": facts.flow_run_name,
        "prefect.io/flow-id": facts.flow_id,
        "prefect.io/flow-name": facts.flow_name,
        "prefect.io/deployment-id": facts.deployment_id,
        "prefect.io/deployment-name": facts.deployment_name,
        "prefect.io/work-pool-name": facts.work_pool_name,
    }
    return {name: value for name, value in named.items() if value is not None}
