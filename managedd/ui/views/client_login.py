"""The page of `prefect cloud login`: a key for the command that waits on the person's own computer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from managedd.api.login import PATH, callback_of
from managedd.model.access import Role
from managedd.ui.page import page

if TYPE_CHECKING:
    from managedd.ui.asking import Ask


@page(PATH, template="client_login.html", section="settings", topics=())
async def client_login(ask: Ask) -> dict[str, Any]:
    """Whoever may make keys makes one here; who may not hands over their own."""
    callback = callback_of(ask.query.get("callback", ""))
    return {
        "title": "Log in Prefect's client",
        "callback": callback,
        "query": urlencode({"callback": callback}),
        "may_make": ask.may("POST /managed/keys"),
        "roles": [role.value for role in Role],
        "name": f"prefect cloud login {datetime.now(UTC):%Y-%m-%d %H.%M.%S}",
        # Where the key goes; no other page may send anything there.
        "connect": (callback,),
    }
