"""Settings: the workspace, its keys, variables, blocks and concurrency limits, the host's workspaces, and who changed what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from managedd.bus import Topic
from managedd.model.access import Role
from managedd.ui.page import ANYTHING, page
from managedd.ui.views.work_pools import plan_and_hours

if TYPE_CHECKING:
    from managedd.ui.asking import Ask

MOST: Final = 200
PLACES: Final = (
    ("", "This workspace", None),
    ("keys", "Keys", "GET /managed/keys"),
    ("variables", "Variables", None),
    ("blocks", "Blocks", None),
    ("concurrency-limits", "Concurrency limits", None),
    ("workspaces", "Workspaces", "GET /managed/workspaces"),
    ("audit", "Audit log", "GET /managed/audit"),
)
"""Their paths, names, and the operation without which they are not offered."""


@page("/settings", template="settings.html", section="settings")
async def settings(ask: Ask) -> dict[str, Any]:
    """The workspace: its plan, and how clients find it."""
    return {"title": "Settings", **_tabs(ask, ""), **await plan_and_hours(ask)}


@page("/settings/keys", template="settings_keys.html", section="settings", topics=(*ANYTHING, Topic.KEYS))
async def keys(ask: Ask) -> dict[str, Any]:
    """The workspace's keys; a new one is shown once, by the page's script."""
    found = await ask.get("/managed/keys", limit=MOST)
    return {"title": "Keys", **_tabs(ask, "keys"), "keys": found, "roles": [role.value for role in Role]}


@page("/variables", template="settings_variables.html", section="settings")
@page("/settings/variables", template="settings_variables.html", section="settings")
async def variables(ask: Ask) -> dict[str, Any]:
    """The workspace's variables."""
    found = await ask.post("/variables/filter", {"limit": MOST, "sort": "NAME_ASC"})
    return {"title": "Variables", **_tabs(ask, "variables"), "variables": found}


@page("/blocks", template="settings_blocks.html", section="settings")
@page("/settings/blocks", template="settings_blocks.html", section="settings")
async def blocks(ask: Ask) -> dict[str, Any]:
    """The workspace's blocks, whose secrets are masked."""
    found = await ask.post("/block_documents/filter", {"limit": MOST, "sort": "NAME_ASC"})
    return {"title": "Blocks", **_tabs(ask, "blocks"), "blocks": found}


@page("/blocks/block/{id}", template="settings_block.html", section="settings")
async def block(ask: Ask, id: str) -> dict[str, Any]:
    """One block."""
    found = await ask.get(f"/block_documents/{id}")
    return {"title": found["name"] or "Block", **_tabs(ask, "blocks"), "block": found}


@page("/concurrency-limits", template="settings_limits.html", section="settings")
@page("/settings/concurrency-limits", template="settings_limits.html", section="settings")
async def limits(ask: Ask) -> dict[str, Any]:
    """Limits that flows and tasks hold by name, and by tag."""
    named = await ask.post("/v2/concurrency_limits/filter", {"limit": MOST})
    return {
        "title": "Concurrency limits",
        **_tabs(ask, "concurrency-limits"),
        # Those of tags are among them, under names of their own.
        "limits": [each for each in named if not each["name"].startswith("tag:")],
        "tags": await ask.post("/concurrency_limits/filter", {"limit": MOST}),
    }


@page("/settings/workspaces", template="settings_workspaces.html", section="settings")
async def workspaces(ask: Ask) -> dict[str, Any]:
    """Every workspace of this host."""
    found = await ask.get("/managed/workspaces")
    ways = {each["id"]: ask.place.of(each["account_id"], each["id"]).home for each in found}
    return {"title": "Workspaces", **_tabs(ask, "workspaces"), "every": found, "ways": ways}


@page("/settings/audit", template="settings_audit.html", section="settings")
async def audit(ask: Ask) -> dict[str, Any]:
    """Who changed what in this workspace."""
    found = await ask.get(
        "/managed/audit", limit=MOST, before=ask.query.get("before"), actor=ask.query.get("actor") or None
    )
    return {"title": "Audit log", **_tabs(ask, "audit"), "found": found, "actor": ask.query.get("actor", "")}


def _tabs(ask: Ask, here: str) -> dict[str, Any]:
    tabs = [(path, name) for path, name, line in PLACES if line is None or ask.may(line)]
    return {"tabs": tabs, "tab": here}
