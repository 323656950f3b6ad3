"""Settings: the workspace, its keys, variables and concurrency limits, the host's workspaces, and who changed what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from managedd import ids
from managedd.bus import Topic
from managedd.model.access import Role
from managedd.ui import listing, written
from managedd.ui.page import ANYTHING, page
from managedd.ui.views.work_pools import plan_and_hours

if TYPE_CHECKING:
    from managedd.ui.asking import Ask

AUDIT_PAGE: Final = 100
LOOK_SECONDS: Final = 5.0
"""Slots are taken and given back without anybody saying so."""
MAX_HOLDERS: Final = 10
TAGS: Final = "tag:"
"""How the limits of tags begin, among those with a name."""
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
    return {"title": "Settings", **tabs(ask, ""), **await plan_and_hours(ask)}


@page("/settings/keys", template="settings_keys.html", section="settings", topics=(*ANYTHING, Topic.KEYS))
async def keys(ask: Ask) -> dict[str, Any]:
    """The workspace's keys; a new one is shown once, by the page's script."""
    found = await listing.whole(lambda bounds: ask.get("/managed/keys", **bounds))
    return {
        "title": "Keys",
        **tabs(ask, "keys"),
        **_paged(ask, "keys", found),
        "roles": [role.value for role in Role],
    }


@page("/variables", template="settings_variables.html", section="settings")
@page("/settings/variables", template="settings_variables.html", section="settings")
async def variables(ask: Ask) -> dict[str, Any]:
    """The workspace's variables."""
    chosen = listing.read(ask.query)
    wanted = chosen.of_name("variables")
    found = await ask.post("/variables/filter", {**wanted, **chosen.bounds, "sort": "NAME_ASC"})
    return {
        "title": "Variables",
        **tabs(ask, "variables"),
        "chosen": chosen,
        "variables": [
            {**each, "written": written.anything(each["value"]), "said": _said(each["value"])} for each in found
        ],
        "total": await ask.post("/variables/count", wanted),
    }


@page("/concurrency-limits", template="settings_limits.html", section="settings", every_seconds=LOOK_SECONDS)
@page("/settings/concurrency-limits", template="settings_limits.html", section="settings", every_seconds=LOOK_SECONDS)
async def limits(ask: Ask) -> dict[str, Any]:
    """Limits that flows and tasks hold by name, and by tag."""
    every = await listing.whole(lambda bounds: ask.post("/v2/concurrency_limits/filter", bounds))
    # The limit of a tag is one of them, and holders are told of it alone.
    tagged = [
        {**each, "name": each["name"].removeprefix(TAGS), "tag": each["name"].removeprefix(TAGS)}
        for each in every
        if each["name"].startswith(TAGS)
    ]
    named = [{**each, "tag": None} for each in every if not each["name"].startswith(TAGS)]
    paged = _paged(ask, "limits", named + tagged)
    shown = [{**each, "holders": await _holders(ask, each)} for each in paged["limits"]]
    return {"title": "Concurrency limits", **tabs(ask, "concurrency-limits"), **paged, "limits": shown}


@page("/settings/workspaces", template="settings_workspaces.html", section="settings")
async def workspaces(ask: Ask) -> dict[str, Any]:
    """Every workspace of this host."""
    found = [{**each, "full": f"{each['account']}/{each['handle']}"} for each in await ask.get("/managed/workspaces")]
    ways = {each["id"]: ask.place.of(each["account_id"], each["id"]).home for each in found}
    return {
        "title": "Workspaces",
        **tabs(ask, "workspaces"),
        **_paged(ask, "every", found, name="full"),
        "ways": ways,
        "default_id": ids.DEFAULT_WORKSPACE_ID,
        "plans": await ask.get("/managed/plans"),
    }


@page("/settings/audit", template="settings_audit.html", section="settings")
async def audit(ask: Ask) -> dict[str, Any]:
    """Who changed what in this workspace."""
    before, actor = ask.query.get("before"), ask.query.get("actor", "")
    found = await ask.get("/managed/audit", limit=AUDIT_PAGE, before=before, actor=actor or None)
    return {"title": "Audit log", **tabs(ask, "audit"), "found": found, "actor": actor, "is_first": not before}


def tabs(ask: Ask, here: str) -> dict[str, Any]:
    """The places of settings, and which one this is."""
    listed = [(path, name) for path, name, line in PLACES if line is None or ask.may(line)]
    return {"tabs": listed, "tab": here}


def _said(value: Any) -> str:
    return value if isinstance(value, str) else written.as_json(value)


def _paged(ask: Ask, rows: str, found: list[dict[str, Any]], *, name: str = "name") -> dict[str, Any]:
    """What the address asks for of a list that is here as a whole, called `rows`."""
    chosen = listing.read(ask.query)
    admitted = [each for each in found if chosen.admits(each[name])]
    return {"chosen": chosen, rows: chosen.page(admitted), "total": len(admitted), "is_cut": len(found) == listing.MOST}


async def _holders(ask: Ask, limit: dict[str, Any]) -> list[str]:
    """The task runs that hold slots of a tag's limit."""
    if limit["tag"] is None or not limit["active_slots"]:
        return []
    found: list[str] = (await ask.get(f"/concurrency_limits/{limit['id']}"))["active_slots"]
    return found[:MAX_HOLDERS]
