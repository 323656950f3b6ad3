"""Every operation there is: the list of route modules, in the order of the document."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from managedd.api.operation import operations

if TYPE_CHECKING:
    from managedd.api.operation import Operation

MODULES: tuple[str, ...] = (
    "admin",
    "flows",
    "deployments",
    "deployment_runs",
    "deployment_schedules",
    "flow_runs",
    "flow_run_inputs",
    "task_runs",
    "events",
    "logs",
    "sockets",
    "states",
    "work_pools",
    "work_pool_queues",
    "work_queues",
    "workers",
    "collections",
    "csrf",
    "variables",
    "managed",
    "usage",
    "block_types",
    "block_schemas",
    "block_documents",
    "artifacts",
    "concurrency_limits",
    "concurrency_limits_v2",
    "automations",
    "me",
)
"""Modules of `managedd.api.routes`, one per line."""


@cache
def all_operations() -> tuple[Operation, ...]:
    """Every operation of every route module; made once, because they are constants; a validator is built when it is first needed."""
    return tuple(
        operation for name in MODULES for operation in operations(import_module(f"managedd.api.routes.{name}"))
    )
