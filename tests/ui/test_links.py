"""Addresses that the real client prints: each opens the page of its thing, as it does with a server and as with Cloud."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from managedd import ids
from tests.api.world import Things, furnish

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.provision import Provisioned
    from tests.ui.conftest import Pages

pytestmark = [pytest.mark.anyio, pytest.mark.client]

URLS = """
import json, sys
from prefect.runtime import flow_run
from prefect.settings import PREFECT_UI_URL
from prefect.utilities.urls import UI_URL_FORMATS, url_for

given = json.load(sys.stdin)
found = {kind: url_for(kind, obj_id=given.get(kind, "-"), work_pool_name=given["work-pool"], occurred=given["occurred"]) for kind in UI_URL_FORMATS}
print(json.dumps({**found, "runtime": flow_run.get_flow_run_ui_url(), "dashboard": PREFECT_UI_URL.value()}))
"""
SHOWS = {
    "flow": "flow", "flow-run": "flow_run", "flow-run-response": "flow_run", "task-run": "task_run", "block": "block_document",
    "block-document": "block_document", "work-pool": "work_pool", "work-queue": "work_queue", "concurrency-limit": "tag",
    "deployment": "deployment", "automation": "automation", "received-event": "event", "worker": "work_pool", "runtime": "flow_run",
    "dashboard": "work_pool",
}  # fmt: skip
"""What each page says: the name of a thing, by the kind of `Things`."""


async def _urls(there: Provisioned, home: Path, things: Things, occurred: str, **settings: str) -> dict[str, str]:
    own = {kind: things.ids[name] for kind, name in SHOWS.items() if name in things.ids}
    own |= {"work-pool": things.names["work_pool"], "worker": things.ids["work_pool"], "occurred": occurred}
    own["concurrency-limit"] = things.ids["tag_limit"]
    env = {**os.environ, "PREFECT_HOME": str(home), "PREFECT__FLOW_RUN_ID": things.ids["flow_run"], **settings}
    assert there.prefect_python is not None
    done = await anyio.run_process([there.prefect_python, "-c", URLS], input=json.dumps(own).encode(), env=env)
    found: dict[str, str] = json.loads(done.stdout)
    return found


async def _occurred(site: Pages, event: str) -> str:
    window = {"since": "2020-01-01T00:00:00Z", "until": "2100-01-01T00:00:00Z"}
    status, page = await site.api.post("/events/filter", {"filter": {"occurred": window, "id": {"id": [event]}}})
    assert status == 200, page
    return str(page["events"][0]["occurred"])[:10]


async def _shown(site: Pages, url: str) -> tuple[str, str]:
    """The path at which one ends up, and what the page says."""
    async with site.http.session.get(url, headers={"Accept": "text/html"}) as response:
        text = await response.text()
        assert response.status == 200, (url, text[:2000])
        return response.url.path, text


async def test_every_address_that_the_client_makes_opens_the_page_of_its_thing(
    site: Pages, prefect_venv: Provisioned, tmp_path: Path
) -> None:
    things = await furnish(site.api, ids.DEFAULT_WORKSPACE_ID, "0a1b")
    occurred = await _occurred(site, things.ids["event"])
    scope = f"account/{ids.DEFAULT_ACCOUNT_ID}/workspace/{ids.DEFAULT_WORKSPACE_ID}"
    cloud = {
        "PREFECT_CLOUD_API_URL": f"{site.url}/api", "PREFECT_CLOUD_UI_URL": site.url, "PREFECT_API_KEY": "x",
        "PREFECT_API_URL": f"{site.url}/api/accounts/{ids.DEFAULT_ACCOUNT_ID}/workspaces/{ids.DEFAULT_WORKSPACE_ID}",
    }  # fmt: skip
    server: dict[str, Any] = {"PREFECT_API_URL": f"{site.url}/api"}
    for settings, base in ((server, site.url), (cloud, f"{site.url}/{scope}")):
        urls = await _urls(prefect_venv, tmp_path, things, occurred, **settings)
        assert urls.keys() == SHOWS.keys(), "each kind that the client knows has its place here"
        for kind, url in urls.items():
            assert url.startswith(base), (kind, url)
            path, text = await _shown(site, url)
            assert things.names[SHOWS[kind]] in text, (kind, url)
            assert path not in {"/sign-in", "/"} or kind == "dashboard", kind


async def test_a_work_pool_is_found_by_its_id_too(site: Pages) -> None:
    things = await furnish(site.api, ids.DEFAULT_WORKSPACE_ID, "0a1b")
    path, text = await _shown(site, f"{site.url}/work-pools/work-pool/{things.ids['work_pool']}")
    assert path.endswith(things.names["work_pool"])
    assert things.names["work_queue"] in text
    async with site.http.get(f"/work-pools/work-pool/{ids.new_id()}") as response:
        assert response.status == 404
