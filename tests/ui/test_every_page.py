"""Every page over what is missing and over what is extreme: it says something, and breaks on nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import pytest

from managedd.ui import assets, words
from managedd.ui.page import every_page
from tests.api.deployed import flow_of
from tests.api.test_automations import TRIGGER
from tests.ui.looking import HOSTILE, NARROW, WIDE
from tests.ui.runs_of import telling, to

if TYPE_CHECKING:
    from tests.ui.conftest import Pages
    from tests.ui.looking import Looking

pytestmark = pytest.mark.anyio

NOBODY: Final = "00000000-0000-4000-8000-000000000000"
LONG: Final = "ж" * 200
CALLBACK: Final = "callback=http%3A%2F%2Flocalhost%3A4321"
DEEP: Final = {"type": "object", "properties": {"x": {"title": HOSTILE, "default": {"y": [[[[[None]]]]]}}}}
ODD_QUERIES: Final = (
    "offset=99999999999&state=NONE&since=x&sort=y&tag=,&flow=x&name=%00",
    "month=0001-01",
    "month=9999-12",
    "month=x",
    "before=x&actor=%F0%9F%92%A9",
    "type=x&callback=x&offset=-1",
    "paused=x&name=%ED%A0%80&pool=%ff&text=%27",
)


async def test_every_page_says_something_in_an_empty_store(site: Pages) -> None:
    for each in every_page():
        path = re.sub(r"\{\w+\}", NOBODY, each.path)
        status = await _status(site, f"{path}?{CALLBACK}")
        assert status == (404 if "{" in each.path else 200), each.path


async def test_every_page_takes_whatever_stands_in_its_address(site: Pages) -> None:
    for each in every_page():
        for query in ODD_QUERIES:
            path = re.sub(r"\{\w+\}", NOBODY, each.path)
            assert await _status(site, f"{path}?{query}") < 500, (each.path, query)
        for value in ("%ff", "%00", "%ED%A0%80", "..%2f", "a" * 3_000, quote(HOSTILE, safe="")):
            assert await _status(site, re.sub(r"\{\w+\}", value, each.path)) < 500, (each.path, value)


async def test_every_page_shows_what_lacks_most_of_its_parts(site: Pages) -> None:
    found = await _sparse(site)
    for path in found:
        assert await _status(site, path) == 200, path


async def test_every_page_shows_what_is_extreme(site: Pages) -> None:
    for path in await _extreme(site):
        assert await _status(site, path) == 200, path


@pytest.mark.browser
@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_one_long_name_leaves_every_row_its_button_and_its_schedule_on_one_line(
    site: Pages, looking: Looking, size: tuple[int, int]
) -> None:
    await _extreme(site)
    flow_id = await flow_of(site.api, "plain")
    daily = [{"schedule": {"cron": "30 2 * * *", "timezone": "UTC"}}]
    await _made(site, "/deployments/", {"name": "n" * 200, "flow_id": flow_id, "schedules": daily})
    page = looking.page
    await page.set_viewport_size({"width": size[0], "height": size[1]})
    await looking.go(f"{site.url}/deployments")
    for kind in (".act button, .act .button", "td code"):
        found = page.locator(kind)
        assert await found.count()
        for each in await found.all():
            box = await each.bounding_box()
            assert box
            assert box["height"] < 48, (await each.inner_text(), box)
    for path in ("/deployments", "/work-pools", "/runs?since=any", "/usage"):
        await looking.go(f"{site.url}{path}")
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path


def test_no_name_leads_to_what_is_above_it() -> None:
    """`DELETE …/queues/..` would be the pool's own address to a browser, and `%2e%2e` is the same to it."""
    for name in (".", ".."):
        assert words.segment(name).lower().replace("%2e", ".") not in {".", ".."}
    assert words.segment("a..b/ü") == "a..b%2F%C3%BC"


async def _status(site: Pages, path: str) -> int:
    for accept in ("text/html", "text/event-stream"):
        async with site.http.get(path, headers={"Accept": accept}, allow_redirects=False) as response:
            if accept == "text/html":
                status = response.status
                text = await response.text()
                assert HOSTILE not in text, path
            elif response.status == 200:
                hello = await response.content.readuntil(b"\n\n")
                assert hello == f"event: version\ndata: {assets.version()}\n\n".encode()
                first = await response.content.readline()
                assert status == 200 or first == b"event: gone\n", (path, first)
                assert first.startswith((b"id: ", b"event: ")), (path, first)
    return status


async def _made(site: Pages, path: str, body: dict[str, Any]) -> dict[str, Any]:
    code, answer = await site.api.post(path, body)
    assert code in {200, 201}, (path, answer)
    made: dict[str, Any] = answer
    return made


async def _sparse(site: Pages) -> list[str]:
    """Things with nothing that they need not have, some of what they belonged to deleted."""
    flow_id = await flow_of(site.api, "bare")
    stateless = await _made(site, "/flow_runs/", {"flow_id": flow_id})
    orphan = await _made(site, "/flow_runs/", {"flow_id": flow_id, "state": {"type": "RUNNING"}})
    bare = await _made(site, "/deployments/", {"name": "bare", "flow_id": flow_id})
    pool = await _made(site, "/work_pools/", {"name": "gone", "type": "nomad:of-our-own"})
    pooled = await _made(site, "/deployments/", {"name": "pooled", "flow_id": flow_id, "work_pool_name": pool["name"]})
    waiting = await _made(site, f"/deployments/{pooled['id']}/create_flow_run", {})
    kept = await _made(site, "/work_pools/", {"name": "kept", "type": "process"})
    task = await _made(site, "/task_runs/", {"flow_run_id": orphan["id"], "task_key": "t", "dynamic_key": "0"})
    loose = await _made(site, "/task_runs/", {"flow_run_id": None, "task_key": "t", "dynamic_key": "1"})
    below = await _made(site, "/flow_runs/", {"flow_id": flow_id, "parent_task_run_id": loose["id"]})
    under = await _made(site, "/flow_runs/", {"flow_id": flow_id, "parent_task_run_id": task["id"]})
    lost = await _made(site, f"/deployments/{bare['id']}/create_flow_run", {})
    assert (await site.api.delete(f"/work_pools/{pool['name']}"))[0] == 204
    runs = [each["id"] for each in (stateless, orphan, waiting, below, under, lost)]
    return [
        "/", "/work-pools", "/deployments", "/runs?since=any&until=any", "/usage", "/host", "/settings", "/variables",
        f"/flows/flow/{flow_id}", f"/work-pools/work-pool/{kept['name']}", f"/work-pools/work-pool/{kept['name']}/edit",
        f"/work-pools/work-pool/{kept['name']}/queue/default", f"/work-pools/work-pool/{kept['name']}/new-queue",
        *(f"/runs/flow-run/{each}" for each in runs), *(f"/runs/flow-run/{each}/log" for each in runs),
        *(f"/runs/task-run/{each['id']}" for each in (task, loose)),
        *(f"/deployments/deployment/{each['id']}{more}" for each in (bare, pooled) for more in ("", "/run", "/edit", "/new-schedule")),
    ]  # fmt: skip


async def _extreme(site: Pages) -> list[str]:
    """Things with hostile texts, the largest numbers and the oddest schemas and values wherever the API takes them."""
    told = await telling(site, text=HOSTILE, artifacts=[{"key": "x", "type": "table", "data": [[], {}, None]}])
    await to(
        site, told.child, "PAUSED", HOSTILE, state_details={"run_input_keyset": {"schema": "s", "description": "d"}}
    )
    flow_id = await flow_of(site.api, LONG)
    schedules = [
        {"schedule": {"interval": 10_000_000, "anchor_date": "9999-01-01T00:00:00Z"}, "active": True},
        {"schedule": {"rrule": "FREQ=DAILY;UNTIL=19700102T000000Z"}},
    ]
    odd = await _made(site, "/deployments/", {
        "name": LONG, "flow_id": flow_id, "description": HOSTILE, "tags": [HOSTILE, ""], "version": HOSTILE, "schedules": schedules,
        "parameters": {"x": 10**18, HOSTILE: [{}]}, "parameter_openapi_schema": DEEP, "job_variables": {HOSTILE: HOSTILE},
        "pull_steps": [{HOSTILE: None}], "concurrency_limit": 2_147_483_647, "enforce_parameter_schema": False,
    })  # fmt: skip
    template = {"job_configuration": {"x": "{{ x }}"}, "variables": DEEP}
    pool = await _made(
        site,
        "/work_pools/",
        {"name": "? #x;", "type": HOSTILE, "base_job_template": template, "concurrency_limit": 2_147_483_647},
    )
    await _made(site, "/variables/", {"name": "big", "value": [10**15, HOSTILE, None], "tags": [HOSTILE]})
    limit = await _made(
        site, "/v2/concurrency_limits/", {"name": "n", "limit": 2_147_483_647, "slot_decay_per_second": 1e15}
    )
    assert limit["limit"] == 2_147_483_647
    await _made(site, "/concurrency_limits/", {"tag": HOSTILE, "concurrency_limit": 2_147_483_647})
    acting = {"name": HOSTILE, "trigger": TRIGGER, "actions": [{"type": "do-nothing"}]}
    automation = await _made(site, "/automations/", acting)
    name = quote(pool["name"], safe="")
    return [
        "/", "/deployments", "/runs?since=any&until=any", "/variables", "/concurrency-limits", "/settings/audit",
        f"/automations/automation/{automation['id']}",
        f"/runs/flow-run/{told.run['id']}", f"/runs/task-run/{told.task_run}", f"/runs/flow-run/{told.child['id']}",
        f"/runs/flow-run/{told.child['id']}/resume", f"/flows/flow/{flow_id}",
        *(f"/deployments/deployment/{odd['id']}{more}" for more in ("", "/run", "/edit", "/new-schedule")),
        *(f"/deployments/deployment/{odd['id']}/schedule/{each['id']}" for each in odd["schedules"]),
        *(f"/work-pools/work-pool/{name}{more}" for more in ("", "/edit", "/queue/default", "/new-queue")),
    ]  # fmt: skip
