"""Addresses that lead nowhere: each is answered in the pages' own words, with a way back that is there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.api.deployed import flow_of
from tests.api.test_auth import bearer

if TYPE_CHECKING:
    from tests.ui.conftest import Pages

pytestmark = pytest.mark.anyio

OTHER = "/account/01a20000-0000-7000-8000-00000000000a/workspace/01a20000-0000-7000-8000-00000000000b"


async def _read(site: Pages, path: str, key: str | None = None) -> tuple[int, str]:
    async with site.http.get(path, headers={} if key is None else bearer(key)) as response:
        return response.status, await response.text()


def _ways(text: str) -> list[str]:
    return re.findall(r'<a href="([^"]*)"', text.partition("<main")[2])


@pytest.mark.parametrize(
    ("path", "words", "ways"),
    [
        ("/runs/flow-run/zzz", "There is no such flow run.", ["../../runs", "../../work-pools"]),
        ("/runs/flow-run/zzz/log", "There is no such flow run.", ["../../../runs", "../../../work-pools"]),
        ("/runs/task-run/zzz", "There is no such task run.", ["../../runs", "../../work-pools"]),
        ("/deployments/deployment/xyz", "There is no such deployment.", ["../../deployments", "../../work-pools"]),
        ("/deployments/deployment/xyz/edit", "There is no such deployment.", ["../../../deployments", "../../../work-pools"]),
        ("/flows/flow/xyz", "There is no such flow.", ["../../deployments", "../../work-pools"]),
        ("/runs/nothing", "There is no such page.", ["../runs", "../work-pools"]),
        ("/nothing", "There is no such page.", ["./work-pools"]),
        (f"{OTHER}/usage", "There is no such workspace.", ["../../../../usage", "../../../../work-pools"]),
    ],
)  # fmt: skip
async def test_what_is_not_there_is_said_beside_the_way_to_its_section(
    site: Pages, path: str, words: str, ways: list[str]
) -> None:
    status, text = await _read(site, path)
    assert (status, words in text, _ways(text)) == (404, True, ways), text


async def test_who_asks_for_anothers_workspace_is_led_to_the_one_that_the_key_opens(closed_site: Pages) -> None:
    operator = bearer("admin:secret")
    made = {"name": "k", "role": "viewer"}
    status, key = await closed_site.api.post("/managed/keys", made, headers=operator)
    assert status == 201, key
    status, text = await _read(closed_site, f"{OTHER}/runs", key["key"])
    assert (status, "your key opens another one" in text) == (404, True), text
    assert _ways(text) == ["../../../../runs", "../../../../work-pools"]
    assert "/api/" not in text.partition("<main")[2]


@pytest.mark.parametrize("path", ["/deployments?", "/runs?since=any&", "/deployments?q=first&"])
async def test_behind_the_end_of_a_list_there_is_the_way_to_its_beginning(site: Pages, path: str) -> None:
    flow_id = await flow_of(site.api, "first")
    assert (await site.api.post("/deployments/", {"name": "first", "flow_id": flow_id}))[0] == 201
    assert (await site.api.post("/flow_runs/", {"flow_id": flow_id, "state": {"type": "RUNNING"}}))[0] == 201
    status, text = await _read(site, f"{path}offset=99999")
    query = path.partition("?")[2].replace("&", "&amp;")
    assert (status, f'<a href="?{query}">To the first page</a>' in text) == (200, True), text
    assert "clear the filters" not in text
    assert "with these filters" not in text
