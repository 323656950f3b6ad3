"""Work pools."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, Field

from managedd.wire.base import Body, Id, Int, JsonObject, Model, Name, NonNegative, Paginated, PathName, Row, Template
from managedd.wire.flow_runs import FlowRun
from managedd.wire.work_queues import WorkQueueConcurrencyStatusDetail


class WorkPoolStatus(StrEnum):
    """Whether anything takes a pool's runs."""

    READY = "READY"
    NOT_READY = "NOT_READY"
    PAUSED = "PAUSED"


_PLACEHOLDER = re.compile(r"{{\s*([\w.\-\[\]$]+)\s*}}")


def _base_job_template(template: dict[str, Any]) -> dict[str, Any]:
    if not template:
        return template
    configuration, variables = template.get("job_configuration"), template.get("variables")
    if not (configuration and variables):
        raise ValueError("The `base_job_template` must contain both a `job_configuration` key and a `variables` key.")
    properties = variables.get("properties", {}) if isinstance(variables, dict) else None
    if not isinstance(configuration, dict) or not isinstance(properties, dict):
        raise ValueError("`job_configuration`, `variables` and its `properties` must be objects.")
    undeclared = set(_PLACEHOLDER.findall(orjson.dumps(configuration).decode())) - properties.keys()
    if undeclared:
        raise ValueError(
            "The variables of the job configuration must be properties of the variables schema."
            f" Undeclared: {', '.join(sorted(undeclared))}."
        )
    return template


def _not_blank(name: str) -> str:
    if not name.strip("' \""):
        raise ValueError("name cannot be an empty string")
    return name


BaseJobTemplate = Annotated[Template, AfterValidator(_base_job_template)]
PoolName = Annotated[PathName, AfterValidator(_not_blank)]


class WorkPoolStorageConfiguration(Body):
    """Where code bundles and results of a pool's runs are kept."""

    bundle_upload_step: JsonObject | None = None
    bundle_execution_step: JsonObject | None = None
    default_result_storage_block_id: Id | None = None


class WorkPoolCreate(Body):
    """A work pool to create."""

    name: PoolName
    description: str | None = None
    type: str = "prefect-agent"
    base_job_template: BaseJobTemplate = Field(default_factory=BaseJobTemplate)
    is_paused: bool = False
    concurrency_limit: NonNegative | None = None
    storage_configuration: WorkPoolStorageConfiguration = Field(default_factory=WorkPoolStorageConfiguration)


class WorkPoolUpdate(Body):
    """What may change on a work pool."""

    description: str | None = None
    is_paused: bool | None = None
    base_job_template: BaseJobTemplate | None = None
    concurrency_limit: NonNegative | None = None
    storage_configuration: WorkPoolStorageConfiguration | None = None


class WorkPoolResponse(Row):
    """A work pool."""

    name: Name
    description: str | None = None
    type: str
    base_job_template: JsonObject = Field(default_factory=dict)
    is_paused: bool = False
    concurrency_limit: NonNegative | None = None
    status: WorkPoolStatus | None = None
    default_queue_id: Id | None = None
    storage_configuration: WorkPoolStorageConfiguration = Field(default_factory=WorkPoolStorageConfiguration)
    active_slots: Int | None = None


class WorkerFlowRunResponse(Model):
    """A flow run that is due, with its pool and queue."""

    work_pool_id: Id
    work_queue_id: Id
    flow_run: FlowRun


class WorkPoolConcurrencyStatus(Paginated):
    """The slots of a pool and who holds them."""

    active_slots: Int
    concurrency_limit: Int | None = None
    queues: list[WorkQueueConcurrencyStatusDetail] = Field(default_factory=list)
