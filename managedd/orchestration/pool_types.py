"""The types of work pools: what the server runs itself, what a worker of the user's runs, and what is not offered.

The templates are data in `pool_types/*.json`. The client takes the types it may create from here: it makes no request for a
type that is not in the answer.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any, Final

from managedd.errors import invalid

MANAGED: Final = "prefect:managed"
PUSH_SUFFIX: Final = ":push"
_VIEW: Final = {
    # collection, key in it, resource
    "prefect": {"process": "process"},
    "prefect-docker": {"docker": "docker"},
    "prefect-kubernetes": {"kubernetes": "kubernetes"},
    "prefect-push-work-pools": {"prefect-managed": "managed"},
}


def worker_metadata() -> dict[str, dict[str, dict[str, Any]]]:
    """The view of the types that both `collections/views/aggregate-worker-metadata` and Cloud's `collections/work_pool_types` answer.

    Read anew on each call, so callers may change what they get.
    """
    return {
        collection: {key: _load(resource) for key, resource in entries.items()} for collection, entries in _VIEW.items()
    }


def pool_type(name: str) -> dict[str, Any] | None:
    """The entry of the type `name`, or None when it is not one of ours (a worker of the user's may know it)."""
    for entries in worker_metadata().values():
        for entry in entries.values():
            if entry["type"] == name:
                return entry
    return None


def default_template(name: str) -> dict[str, Any] | None:
    """The base job template that a new pool of the type `name` has, or None when the type is not one of ours."""
    entry = pool_type(name)
    return None if entry is None else entry["default_base_job_configuration"]


def is_managed(name: str) -> bool:
    """Whether this server itself runs what pools of the type `name` hold."""
    return name == MANAGED


def check_offered(name: str) -> None:
    """Returns when pools of the type `name` can be created here; else an INVALID error says what can."""
    if name.endswith(PUSH_SUFFIX):
        ours = ", ".join(entry["type"] for entries in worker_metadata().values() for entry in entries.values())
        raise invalid(
            f"type: {name[:80]!r} is a push work pool, and those are not offered yet: this server starts no jobs in other "
            f"clouds. Allowed: {ours}, or the type of a worker that you run yourself",
        )
    if name.endswith(":managed") and name != MANAGED:
        raise invalid(f"type: {name[:80]!r} is no managed type; allowed: {MANAGED!r}")


def _load(resource: str) -> dict[str, Any]:
    text = resources.files("managedd.orchestration").joinpath("pool_types", f"{resource}.json").read_text("utf-8")
    entry: dict[str, Any] = json.loads(text)
    return entry
