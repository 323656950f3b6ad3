"""Making and changing work pools and their queues. What people type in stays: these pages are not made anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from managedd.errors import forbidden, not_found
from managedd.ui.forms import template_fields, without_defaults
from managedd.ui.page import page
from managedd.ui.views.work_pools import MANAGED, plan_and_hours, queues_of, rights
from managedd.ui.words import segment
from managedd.ui.written import as_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from managedd.ui.asking import Ask


@page("/work-pools/new", template="work_pool_new.html", section="work-pools", topics=())
async def new_work_pool(ask: Ask) -> dict[str, Any]:
    """First the type, then a form made from its template."""
    _check(ask, "create", "create work pools")
    types = sorted(await _types(ask), key=lambda each: each["type"] != MANAGED)
    asked = ask.query.get("type")
    chosen = next((each for each in types if each["type"] == asked), None)
    if asked is not None and chosen is None:
        raise not_found("Work pool type", asked[:100])
    return {
        "title": "New work pool",
        "types": types,
        "chosen": chosen,
        **_template(chosen["default_base_job_configuration"] if chosen else {}),
        **await plan_and_hours(ask),
    }


@page("/work-pools/work-pool/{name}/edit", template="work_pool_edit.html", section="work-pools", topics=())
async def edit_work_pool(ask: Ask, name: str) -> dict[str, Any]:
    """A form made from the pool's own template."""
    _check(ask, "change", "change work pools")
    path = segment(name)
    pool = await ask.get(f"/work_pools/{path}")
    return {
        "title": f"Edit {pool['name']}",
        "pool": pool,
        "queues": await queues_of(ask, pool["name"]),
        "may": rights(ask),
        "plan": await ask.get("/managed/plan") if pool["type"] == MANAGED else None,
        "of_its_type": None if pool["base_job_template"] else await _default(ask, pool["type"]),
        **_template(pool["base_job_template"]),
    }


@page("/work-pools/work-pool/{name}/queue/{queue}", template="work_queue.html", section="work-pools", topics=())
async def work_queue(ask: Ask, name: str, queue: str) -> dict[str, Any]:
    """One queue: its facts, and a form for who may change it."""
    path = segment(name)
    found = await ask.get(f"/work_pools/{path}/queues/{segment(queue)}")
    mine = {"work_pools": {"name": {"any_": [name]}}, "work_pool_queues": {"name": {"any_": [queue]}}}
    return {
        "title": f"{found['name']} of {name}",
        "pool": await ask.get(f"/work_pools/{path}"),
        "queue": found,
        "runs": await ask.post(
            "/flow_runs/filter",
            {**mine, "sort": "EXPECTED_START_TIME_ASC", "limit": 20, "flow_runs": {"state": {"type": {"any_": ["SCHEDULED", "PENDING", "RUNNING", "CANCELLING"]}}}},
        ),
        "may": rights(ask),
    }  # fmt: skip


@page("/work-pools/work-pool/{name}/new-queue", template="work_queue_new.html", section="work-pools", topics=())
async def new_work_queue(ask: Ask, name: str) -> dict[str, Any]:
    """A queue to make."""
    _check(ask, "create_queue", "create work queues")
    pool = await ask.get(f"/work_pools/{segment(name)}")
    return {"title": f"New queue of {pool['name']}", "pool": pool}


async def _types(ask: Ask) -> list[dict[str, Any]]:
    """The types that a pool can be made of."""
    view = await ask.get("/collections/work_pool_types")
    return [entry for entries in view.values() for entry in entries.values()]


async def _default(ask: Ask, pool_type: str) -> dict[str, Any] | None:
    """The template that a new pool of that type has; None: the type is a worker's own."""
    chosen = next((each for each in await _types(ask) if each["type"] == pool_type), None)
    return chosen["default_base_job_configuration"] if chosen else None


def _template(template: Mapping[str, Any]) -> dict[str, Any]:
    """The template's fields, and the template that their values are put into."""
    return {"fields": template_fields(template), "base": as_json(without_defaults(template)) if template else ""}


def _check(ask: Ask, right: str, words: str) -> None:
    if not rights(ask)[right]:
        raise forbidden(f"Your key may not {words}; a key with the role developer may.")
