"""No page shows anything of another workspace, nor whether it is there."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import pytest

from managedd import ids
from managedd.store import workspaces
from managedd.ui.page import every_page
from tests.api.world import furnish
from tests.support.api_keys import bearer, make_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from managedd.ui.page import Page
    from tests.api.world import Things
    from tests.ui.conftest import Pages

pytestmark = pytest.mark.anyio

FILLED: Final = {
    "name": ("work_pool",),
    "queue": ("work_queue",),
    "schedule": ("schedule",),
    "slug": ("slug",),
}
"""What of a workspace stands for each part of a page's address, beside `id`: any id."""
ASKED: Final = (
    ("flow", "flow"), ("deployment", "deployment"), ("pool", "work_pool"), ("queue", "work_queue"), ("tag", "tag"), ("name", "flow_run"), ("name", "deployment"),
    ("name", "limit"), ("name", "variable"), ("type", "slug"), ("actor", "key"), ("before", "event"), ("after", "flow_run"), ("run", "flow_run"),
)  # fmt: skip
_VARYING: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\d{4}-\d\d-\d\d[T ][\d:.]+(Z|\+00:00)?|\d+(\.\d+)? ?(m?s|ms|minutes?|seconds?)\b"
    r"|data-live=\"[0-9a-f]+\""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A workspace, seen by a viewer of it."""

    home: str
    headers: dict[str, str]
    things: Things


async def _place(site: Pages, handle: str, mark: str) -> Place:
    account, workspace = ids.new_id(), ids.new_id()
    db = site.services.db
    await db.write(
        lambda tx: workspaces.create(
            tx, account_id=account, account=handle, workspace_id=workspace, handle=handle, plan="pro"
        )
    )
    key = await make_key(db, workspace=workspace, name=f"key-{mark}")
    path = f"/api/accounts/{account}/workspaces/{workspace}"
    things = await furnish(replace(site.api, prefix=path), workspace, mark)
    things.names["key"] = f"key-{mark}"
    return Place(home=f"/account/{account}/workspace/{workspace}", headers=bearer(key), things=things)


def _paths(page: Page, things: Things) -> Iterator[str]:
    """The page of each thing of those that it could be of; pages of no thing, asked for each of them."""
    if "{" not in page.path:
        named = things.names | things.ids
        yield from (f"{page.path.rstrip('/')}?{word}={named[kind]}" for word, kind in ASKED)
        return
    path = page.path
    for word, kinds in FILLED.items():
        path = path.replace(f"{{{word}}}", (things.ids | things.names)[kinds[0]])
    yield from (path.replace("{id}", each) for each in things.ids.values()) if "{id}" in path else (path,)


async def _read(site: Pages, place: Place, path: str, named: Things) -> tuple[int, str]:
    """The status and the page, without what differs each time and with what was named called the same."""
    async with site.http.get(place.home + path, headers=place.headers, allow_redirects=False) as response:
        text = await response.text()
    for word in named.words:
        text = text.replace(word, "NAMED")
    return response.status, _VARYING.sub("VARYING", text)


async def test_no_page_shows_what_is_of_another_workspace(site: Pages) -> None:
    own, theirs = await _place(site, "account-one", "1a2b3c4d"), await _place(site, "account-zero", "ab12ab12")
    missing = theirs.things.missing()
    asked = shown = 0
    for page in every_page():
        for foreign, absent in zip(_paths(page, theirs.things), _paths(page, missing), strict=True):
            found = await _read(site, own, foreign, theirs.things)
            nothing = await _read(site, own, absent, missing)
            assert found[0] == nothing[0], foreign
            assert found[1].splitlines() == nothing[1].splitlines(), foreign
            assert found[0] in {200, 403, 404, 422}, foreign
            asked += 1
        # What is one's own is there: the comparison above is not one of empty pages.
        shown += (await _read(site, own, next(_paths(page, own.things)), own.things))[0] == 200
    assert asked > 300
    assert shown > len(every_page()) // 2


async def test_another_workspaces_address_opens_no_page(site: Pages) -> None:
    own, theirs = await _place(site, "account-one", "1a2b3c4d"), await _place(site, "account-zero", "ab12ab12")
    nowhere = f"/account/{ids.new_id()}/workspace/{ids.new_id()}"
    for page in every_page():
        for path in list(_paths(page, theirs.things))[:3]:
            found = await _read(site, replace(own, home=theirs.home), path, theirs.things)
            assert found[0] == 404, path
            assert found == await _read(site, replace(own, home=nowhere), path, theirs.things), path
