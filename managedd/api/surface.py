"""Every operation there is: the table of route modules, in the order of the document, each loaded when a path of its is first asked for.

A daemon that starts would spend a quarter of its time on operations that nobody asks for yet; `Surface.load` makes them once it is ready, so
that the first who asks does not wait for them either.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Final

import anyio

from managedd.api.operation import operations
from managedd.api.routing import Router, first_segment

if TYPE_CHECKING:
    from managedd.api.operation import Operation

MODULES: Final[dict[str, tuple[str, ...]]] = {
    "admin": ("admin", "health", "hello", "openapi.json", "ready", "version"),
    "flows": ("flows",),
    "deployments": ("deployments",),
    "deployment_runs": ("deployments",),
    "deployment_schedules": ("deployments",),
    "flow_runs": ("flow_runs",),
    "flow_run_inputs": ("flow_runs",),
    "task_runs": ("task_runs",),
    "events": ("events",),
    "logs": ("logs",),
    "sockets": ("events", "logs", "managed"),
    "states": ("flow_runs", "flow_run_states", "task_run_states"),
    "work_pools": ("work_pools",),
    "work_pool_queues": ("work_pools",),
    "work_queues": ("work_queues",),
    "workers": ("work_pools",),
    "collections": ("collections",),
    "csrf": ("csrf-token",),
    "variables": ("variables",),
    "managed": ("managed",),
    "deployment_outlook": ("managed",),
    "run_history": ("managed",),
    "artifact_data": ("managed",),
    "usage": ("managed",),
    "keys": ("managed",),
    "workspaces": ("managed",),
    "audit": ("managed",),
    "secrets": ("managed",),
    "doctor": ("managed",),
    "block_types": ("block_types",),
    "block_schemas": ("block_capabilities", "block_schemas"),
    "block_documents": ("block_documents",),
    "artifacts": ("artifacts",),
    "concurrency_limits": ("concurrency_limits",),
    "concurrency_limits_v2": ("v2",),
    "automations": ("automations", "templates"),
    "me": ("me",),
    "accounts": ("accounts",),
}
"""Modules of `managedd.api.routes`, one per line, with the first segments of their paths."""
PAUSE_SECONDS: Final = (1.0, 0.05)
"""Before the first module that is loaded beforehand, as those who waited for the daemon come first, and between two: requests come in between."""


def all_operations() -> tuple[Operation, ...]:
    """Every operation of every route module."""
    return tuple(operation for name in MODULES for operation in _operations(name))


def match(method: str, raw_path: str) -> tuple[Operation, dict[str, str]] | None:
    """The operation and its path parameters, as Router.match has it; a path that nobody serves loads nothing."""
    segment = first_segment(raw_path)
    if segment not in _SEGMENTS:
        return None
    return _router(segment).match(method, raw_path)


async def load() -> None:
    """Every operation is loaded, a module at a time."""
    first, between = PAUSE_SECONDS
    await anyio.sleep(first)
    for segment in _SEGMENTS:
        _router(segment)
        await anyio.sleep(between)


_SEGMENTS: Final = tuple(dict.fromkeys(segment for segments in MODULES.values() for segment in segments))


@cache
def _router(segment: str) -> Router[Operation]:
    return Router(
        operation for name, segments in MODULES.items() if segment in segments for operation in _operations(name)
    )


@cache
def _operations(name: str) -> tuple[Operation, ...]:
    """Made once, because they are constants; what each takes is made when it is first needed."""
    return tuple(operations(import_module(f"managedd.api.routes.{name}")))
