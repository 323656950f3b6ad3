"""The host: what holds runs up, what runs, and what the doctor says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from managedd.ui.page import page

if TYPE_CHECKING:
    from collections.abc import Mapping

    from managedd.ui.asking import Ask

LOOK_SECONDS: Final = 5.0
"""What containers use changes without anybody saying so."""
GROUPS: Final = (("data", "Data"), ("host", "Host"), ("engine", "Container engine"), ("runs", "What a run meets"))
LEVELS: Final = {"ok": "good", "note": "quiet", "warning": "waiting", "problem": "bad"}


@page("/host", template="host.html", section="host", every_seconds=LOOK_SECONDS)
async def host(ask: Ask) -> dict[str, Any]:
    """The daemon's status, for people."""
    status = await ask.get("/managed/status")
    names = {each["id"]: f"{each['account']}/{each['handle']}" for each in status["workspaces"]}
    return {
        "title": "Host",
        "status": status,
        "names": names,
        "ways": {each["id"]: _way(ask, each) for each in status["workspaces"]},
        "room": [share for share in _room(status["host"]) if share is not None],
        "waiting": [(pool, queue) for pool in status["pools"] for queue in pool["queues"] if queue["head"] is not None],
        "examination": await ask.get("/managed/doctor"),
        "groups": GROUPS,
        "levels": LEVELS,
        "may_examine": ask.may("POST /managed/doctor"),
    }


def _way(ask: Ask, workspace: Mapping[str, Any]) -> str:
    return ask.place.of(workspace["account_id"], workspace["id"]).home


def _room(host: Mapping[str, Any]) -> list[dict[str, Any] | None]:
    """What is reserved of what runs may reserve; None where there is no limit."""
    return [
        _share("Memory reserved by runs", host["memory_reserved_bytes"], host["memory_bytes"], "size"),
        _share("Processors reserved by runs", host["cpus_reserved"], host["cpus"], "number"),
    ]


def _share(name: str, taken: float, limit: float | None, kind: str) -> dict[str, Any] | None:
    if limit is None:
        return None
    return {"name": name, "taken": taken, "limit": limit, "share": taken / limit if limit else 1.0, "kind": kind}
