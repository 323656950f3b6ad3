"""Runs in a browser: the list with its filters, a run from its first state to its last, what is done to it, and what strangers have put into it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio
import orjson
import pytest

from managedd import ids
from managedd.model.access import Role
from managedd.store import page_bytes, rows
from managedd.store.resources import FLOW_RUN_INPUT
from tests.api.deployed import run_it
from tests.support.api_keys import bearer, make_key
from tests.ui.looking import HOSTILE, NARROW, Looking
from tests.ui.runs_of import deployment, telling, to

if TYPE_CHECKING:
    from playwright.async_api import Browser, Download, Route

    from managedd.store.database import Tx
    from tests.ui.conftest import Pages

pytestmark = [pytest.mark.anyio, pytest.mark.browser]

LINK = "https://example.org/report"
ARTIFACTS: list[dict[str, Any]] = [
    {"key": "report", "type": "markdown", "data": f"# Report\n\n{HOSTILE}\n\n[a](javascript:window.hacked=1) [good]({LINK})\n\n![p](https://example.org/p.png)", "description": HOSTILE},
    {"key": "rows", "type": "table", "data": orjson.dumps([{"id": 1, HOSTILE: HOSTILE}]).decode()},
    {"key": "where", "type": "link", "data": f"[{HOSTILE}](javascript:window.hacked=1)"},
    {"key": "there", "type": "link", "data": f"[there]({LINK})"},
    {"key": "done", "type": "progress", "data": 42.5},
    {"key": "picture", "type": "image", "data": "javascript:window.hacked=1"},
    {"key": "odd", "type": HOSTILE, "data": {HOSTILE: [HOSTILE]}},
]  # fmt: skip


def badge(looking: Looking, name: str) -> Any:
    return looking.page.locator(".head .badge", has_text=name)


async def test_a_run_is_seen_to_go_on_to_its_end_without_a_reload(site: Pages, looking: Looking) -> None:
    run = await run_it(site.api, await deployment(site), name="nightly-7")
    await looking.go(f"{site.url}/runs/flow-run/{run['id']}")
    await looking.page.evaluate("window.before = document.querySelector('h1')")
    await badge(looking, "Scheduled").wait_for()
    await looking.page.locator("#phases li", has_text="queued").locator("time").wait_for()

    await to(site, run, "PENDING")
    await badge(looking, "Pending").wait_for()
    await to(site, run, "RUNNING")
    await badge(looking, "Running").wait_for()
    await looking.page.locator("#phases li", has_text="run").locator("time").wait_for()
    assert await looking.page.get_by_role("button", name="Retry").count() == 0
    await to(site, run, "FAILED", "ValueError: there are no rows")
    await badge(looking, "Failed").wait_for()

    assert await looking.page.locator("#cause").inner_text() == "ValueError: there are no rows"
    assert await looking.page.locator("#phases time").count() == 0, "nothing goes on any more"
    assert await looking.page.locator("#states li .badge").all_inner_texts() == [
        "Scheduled",
        "Pending",
        "Running",
        "Failed",
    ]
    assert await looking.page.title() == "nightly-7 (Failed) · managedd"
    assert await looking.page.evaluate("window.before === document.querySelector('h1')")
    assert await looking.barriers() == []


async def test_any_flow_deployment_and_pool_can_be_chosen_however_many_there_are(site: Pages, looking: Looking) -> None:
    page = looking.page
    made = [await deployment(site, f"d{number:03}", tags=["x"]) for number in range(25)]
    chosen, other = made[24], made[3]
    for each in (chosen, other):
        await run_it(site.api, each, name=f"run of {each['name']}")
    status, hostile = await site.api.post("/deployments/", {"name": "'; x=1 {{7*7}}", "flow_id": chosen["flow_id"]})
    assert status == 201, hostile
    await looking.go(f"{site.url}/runs?since=any&until=any")
    await page.get_by_text("Name, deployment, tags").click()
    field = page.get_by_label("Deployment", exact=True)
    await field.focus()
    await page.locator("#choices-deployment option").nth(19).wait_for(state="attached")
    assert await page.locator("#choices-deployment option").count() == 20, "no more at once than anybody reads"
    await field.fill("d02")
    await page.wait_for_function("() => document.querySelectorAll('#choices-deployment option').length === 5")
    await field.fill("d024")
    await page.get_by_role("button", name="Show").click()
    await page.get_by_role("rowheader", name="run of d024").wait_for()
    await looking.ready()
    assert f"deployment={chosen['id']}" in page.url
    assert await page.locator("table.runs tbody tr").count() == 1
    ticked = page.get_by_role("checkbox", name="/d024")
    assert await ticked.is_checked()
    assert await looking.barriers() == []

    await page.get_by_label("Deployment", exact=True).fill("d0")
    await page.get_by_role("button", name="Show").click()
    await page.wait_for_function(
        "() => document.getElementById('choose-deployment').validationMessage.startsWith('Several')"
    )
    await page.get_by_label("Deployment", exact=True).fill("d003")
    await page.get_by_label("Work pool", exact=True).fill("mine")
    await page.get_by_role("button", name="Show").click()
    await page.get_by_role("rowheader", name="run of d003").wait_for()
    await looking.ready()
    assert "pool=mine" in page.url
    assert await page.locator("table.runs tbody tr").count() == 2
    await ticked.uncheck()
    await page.get_by_role("button", name="Show").click()
    await page.get_by_role("rowheader", name="run of d024").wait_for(state="detached")
    await looking.ready()
    assert chosen["id"] not in page.url
    await page.get_by_label("Deployment", exact=True).fill(hostile["name"])
    await page.get_by_role("button", name="Show").click()
    await page.get_by_role("checkbox", name=hostile["name"]).wait_for()
    assert not await looking.is_hacked()


async def test_filters_land_in_the_address_and_the_way_back_works(site: Pages, looking: Looking) -> None:
    made = await deployment(site)
    for name, type_ in (("etl-1", "COMPLETED"), ("etl-2", "FAILED"), ("other-3", "FAILED")):
        await to(site, await run_it(site.api, made, name=name, tags=["red"] if name == "etl-2" else []), type_)
    listed = looking.page.locator("table.runs th[scope=row] a")

    async def shown(*names: str) -> None:
        await looking.ready()
        await looking.page.wait_for_function(
            "names => JSON.stringify([...document.querySelectorAll('table.runs th[scope=row] a')].map((a) => a.textContent)) === names",
            arg=orjson.dumps(names).decode(),
        )

    await looking.go(f"{site.url}/runs")
    await shown("other-3", "etl-2", "etl-1")
    assert await looking.page.locator(".legend").inner_text() == "Completed 1\nFailed or crashed 2"
    await looking.page.get_by_role("link", name="Failed", exact=True).click()
    await shown("other-3", "etl-2")
    assert looking.page.url == f"{site.url}/runs?state=FAILED&"
    await looking.page.get_by_text("Name, deployment, tags").click()
    await looking.page.get_by_label("Name contains").fill("ETL")
    await looking.page.get_by_role("button", name="Show").click()
    await shown("etl-2")
    assert "name=ETL" in looking.page.url
    assert "state=FAILED" in looking.page.url
    assert "flow=" not in looking.page.url, "what is empty is left out"
    await looking.page.get_by_label("Tags").fill("red, blue")
    await looking.page.get_by_role("button", name="Show").click()
    await looking.page.get_by_role("heading", name="No runs here").wait_for()

    await looking.page.go_back()
    await shown("etl-2")
    assert await looking.page.get_by_label("Tags").input_value() == ""
    await looking.page.go_back()
    await shown("other-3", "etl-2")
    await looking.page.go_forward()
    await shown("etl-2")
    await to(site, await run_it(site.api, made, name="etl-9"), "FAILED")
    await shown("etl-9", "etl-2")
    await listed.last.click()
    await looking.page.get_by_role("heading", name="etl-2").wait_for()


@pytest.mark.parametrize(
    "query",
    ["", "since=1h", "since=7d&until=1d", "since=any&until=any", "sort=EXPECTED_START_TIME_DESC", "state=FAILED&since=30d", "since=1h&until=7d&tag=x"],
)  # fmt: skip
async def test_the_chart_s_numbers_are_those_of_the_list(site: Pages, query: str) -> None:
    made = await deployment(site)
    now = datetime.now(UTC)
    hours = (-24 * 100, -24 * 29, -24 * 6, -23.99, -24.01, -3, -0.9, 0.2, 20, 24 * 6, 24 * 30)
    for at in hours:
        due = (now + timedelta(hours=at)).isoformat()
        run = await run_it(
            site.api, made, tags=["x"], state={"type": "SCHEDULED", "state_details": {"scheduled_time": due}}
        )
        if at < -3:
            # It was due then, and begins now.
            await to(site, run, "RUNNING")
        elif at == -3:
            await to(site, run, "FAILED")
    text = await (await site.http.get(f"/runs?{query}")).text()
    legend = re.findall(r'<li><span class="badge \w+">[^<]+</span> ([\d,]+)</li>', text)
    total = int(re.findall(r'class="count quiet">([\d,]+) runs?<', text)[0])
    beyond = [int(each) for each in re.findall(r">([\d,]+) runs? of the list", text)]
    assert total > 0
    assert sum(int(each) for each in legend) + sum(beyond) == total
    assert bool(beyond) == ("any" in query), "what has a window of time is all there"


async def test_a_run_is_cancelled_retried_and_deleted(site: Pages, looking: Looking) -> None:
    run = await run_it(site.api, await deployment(site))
    await looking.go(f"{site.url}/runs/flow-run/{run['id']}")

    await looking.page.get_by_role("button", name="Cancel").click()
    await looking.page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    await badge(looking, "Cancelled").wait_for()
    assert await looking.page.locator(".toast").count() == 0, "nothing has gone wrong"

    await looking.page.get_by_role("button", name="Retry").click()
    await looking.page.get_by_role("dialog").get_by_role("button", name="Retry").click()
    await badge(looking, "AwaitingRetry").wait_for()
    await to(site, run, "RUNNING")
    await looking.page.get_by_role("button", name="Cancel").click()
    await looking.page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    await badge(looking, "Cancelling").wait_for()

    await looking.page.get_by_label("More for").click()
    await looking.page.get_by_role("button", name="Delete").click()
    await looking.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await looking.page.wait_for_url(f"{site.url}/runs")
    assert (await site.api.get(f"/flow_runs/{run['id']}"))[0] == 404


async def test_who_deletes_a_run_is_led_to_the_list_also_where_the_page_hears_first_that_it_is_gone(
    site: Pages, looking: Looking
) -> None:
    run = await run_it(site.api, await deployment(site))
    page = looking.page
    gone = anyio.Event()

    async def late(route: Route) -> None:
        answer = await route.fetch()
        with anyio.fail_after(10):
            await gone.wait()
        await route.fulfill(response=answer)

    await page.route(f"**/api/flow_runs/{run['id']}", late)
    await looking.go(f"{site.url}/runs/flow-run/{run['id']}")
    await page.evaluate("""() => {
        const add = EventSource.prototype.addEventListener;
        EventSource.prototype.addEventListener = function (name, heard) {
            return add.call(this, name, (event) => { heard(event); if (name === "gone") window.isGone = true; });
        };
    }""")
    # The stream of a page that was hidden is another one when it is seen again.
    await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    await page.get_by_label("More for").click()
    await page.get_by_role("button", name="Delete").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await page.wait_for_function("() => window.isGone")
    gone.set()
    await page.wait_for_url(f"{site.url}/runs")
    await looking.ready()


async def test_what_the_rules_refuse_is_said(site: Pages, looking: Looking) -> None:
    run = await run_it(site.api, await deployment(site))
    await to(site, run, "RUNNING")
    await looking.go(f"{site.url}/runs/flow-run/{run['id']}")
    await looking.page.get_by_role("button", name="Cancel").click()
    await to(site, run, "COMPLETED")
    await badge(looking, "Completed").wait_for()
    await looking.page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    await looking.page.locator(".toast.problem", has_text="already in terminal state").wait_for()


async def test_a_paused_run_is_given_what_it_waits_for(site: Pages, looking: Looking) -> None:
    run = await run_it(site.api, await deployment(site), name="asks")
    schema = {
        "title": "Approval", "type": "object", "required": ["amount"],
        "properties": {"amount": {"type": "integer", "title": "Amount"}, "note": {"type": "string", "title": "Note", "default": "none"}},
    }  # fmt: skip
    stored = {"paused-1-schema": schema, "paused-1-description": f"How much? {HOSTILE}"}
    for key, value in stored.items():
        text = orjson.dumps(value).decode()
        body = {"key": key, "value": text}
        assert (await site.api.post(f"/flow_runs/{run['id']}/input", body))[0] == 201
    await to(site, run, "RUNNING")
    keyset = {"schema": "paused-1-schema", "response": "paused-1-response", "description": "paused-1-description"}
    await to(site, run, "PAUSED", state_details={"pause_timeout": "2099-01-01T00:00:00Z", "run_input_keyset": keyset})
    await looking.go(f"{site.url}/runs/flow-run/{run['id']}")
    await looking.page.get_by_role("link", name="Resume with input").click()
    await looking.ready()
    await looking.page.get_by_text("How much?").wait_for()
    assert await looking.barriers() == []

    await looking.page.get_by_label("Amount").fill("7")
    await looking.page.get_by_role("button", name="Resume").click()
    await looking.page.wait_for_url(f"**/runs/flow-run/{run['id']}")
    await badge(looking, "Running").wait_for()

    def answered(tx: Tx) -> Any:
        return rows.record(tx, FLOW_RUN_INPUT, flow_run_id=run["id"], key="paused-1-response")

    found = await site.services.db.read(answered, workspace=ids.DEFAULT_WORKSPACE_ID)
    assert orjson.loads(found["value"]) == {"amount": 7, "note": "none"}
    assert await looking.is_hacked() is False


async def test_nothing_that_a_run_says_runs_in_the_page(site: Pages, looking: Looking) -> None:
    told = await telling(site, text=HOSTILE, artifacts=ARTIFACTS)
    for path in (
        f"runs/flow-run/{told.run['id']}",
        f"runs/task-run/{told.task_run}",
        "runs",
        f"runs/flow-run/{told.child['id']}",
    ):
        await looking.go(f"{site.url}/{path}")
        assert await looking.page.locator("text=onerror").count() > 0, "it is there, as text"
        ways = await looking.page.locator("main a").evaluate_all(
            "links => links.map((link) => new URL(link.href).protocol)"
        )
        assert set(ways) <= {"http:", "https:"}
        assert await looking.page.locator("main img, main script, main iframe").count() == 0
        assert await looking.is_hacked() is False
        assert await looking.barriers() == []
    await looking.go(f"{site.url}/runs/flow-run/{told.run['id']}")
    shown = looking.page.locator("#artifacts")
    assert await shown.locator("article").count() == len(ARTIFACTS)
    good = shown.get_by_role("link", name="good")
    assert (await good.get_attribute("href"), await good.get_attribute("rel")) == (LINK, "noopener noreferrer nofollow")
    assert await shown.get_by_role("progressbar").get_attribute("value") == "42.5"
    assert await shown.get_by_role("table", name="rows").locator("td").first.inner_text() == "1"
    # What there is to see of the run besides.
    assert await looking.page.locator("#phases h3").all_inner_texts() == ["Attempt 2", "Attempt 1"]
    assert await looking.page.get_by_role("img", name="Memory over time").count() == 2
    assert await looking.page.locator("#task-runs tbody tr").count() == 3
    assert await looking.page.locator("#children a").count() == 1
    await looking.page.locator("#children a").click()
    await looking.page.get_by_role("heading", level=1, name="below").wait_for()


async def test_on_a_narrow_and_dark_screen_everything_has_room(site: Pages, browser: Browser) -> None:
    told = await telling(site, text="long-" * 40, artifacts=ARTIFACTS)
    async with Looking.opened(browser, size=NARROW, scheme="dark") as looking:
        for path in (f"runs/flow-run/{told.run['id']}", f"runs/task-run/{told.task_run}", "runs"):
            await looking.go(f"{site.url}/{path}")
            assert await looking.page.evaluate("document.documentElement.scrollWidth") <= NARROW[0], path
            assert await looking.barriers() == []
        looking.check()


async def test_who_may_only_look_is_offered_nothing_to_do(closed_site: Pages, looking: Looking) -> None:
    key = await make_key(closed_site.services.db, Role.VIEWER)
    headers = bearer(await make_key(closed_site.services.db))
    flow = await closed_site.http.post("/api/flows/", json={"name": "f"}, headers=headers)
    body = {"flow_id": (await flow.json())["id"], "name": "theirs", "state": {"type": "RUNNING"}}
    run = await (await closed_site.http.post("/api/flow_runs/", json=body, headers=headers)).json()
    await looking.context.set_extra_http_headers(bearer(key))
    await looking.go(f"{closed_site.url}/runs/flow-run/{run['id']}")
    await looking.page.get_by_role("heading", name="theirs").wait_for()
    assert await looking.page.locator("main [data-call]").count() == 0
    for word in ("Cancel", "Retry", "Resume", "Delete"):
        assert await looking.page.get_by_role("button", name=word).count() == 0


async def test_the_list_is_told_in_pages_of_fifty(site: Pages, looking: Looking) -> None:
    flow = (await site.api.post("/flows/", {"name": "many"}))[1]["id"]
    for each in range(52):
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": datetime.now(UTC).isoformat()}}
        await site.api.post("/flow_runs/", {"flow_id": flow, "name": f"run-{each:02}", "state": state})
    await looking.go(f"{site.url}/runs?sort=NAME_ASC")
    assert await looking.page.locator("table.runs tbody tr").count() == 50
    await looking.page.get_by_role("link", name="After").click()
    await looking.page.wait_for_url("**offset=50*")
    assert await looking.page.locator("table.runs th[scope=row] a").all_inner_texts() == ["run-50", "run-51"]


async def test_what_a_run_has_filled_with_megabytes_hides_no_other_part_of_its_page(
    site: Pages, looking: Looking, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = (await site.api.post("/flows/", {"name": "large"}))[1]["id"]
    started = {
        "flow_id": flow,
        "name": "large",
        "state": {"type": "RUNNING"},
        "parameters": {"x": "p" * 400_000, "who": HOSTILE},
    }
    run = (await site.api.post("/flow_runs/", started))[1]
    whole = "# " + HOSTILE + "x" * 900_000
    for each in range(8):
        body = {
            "key": f"part-{each}",
            "type": "markdown",
            "data": whole,
            "flow_run_id": run["id"],
            "description": "d" * 90_000,
        }
        assert (await site.api.post("/artifacts/", body))[0] == 201
    await to(site, run, "FAILED", "m" * 100_000)
    monkeypatch.setattr(page_bytes, "MAX_PAGE_BYTES", 600_000)

    response = await site.http.get(f"/runs/flow-run/{run['id']}")
    text = await response.text()
    assert response.status == 200
    assert text.count('<article class="artifact"') == 8
    assert len(text) < 1_000_000

    page = looking.page
    await looking.go(f"{site.url}/runs/flow-run/{run['id']}")
    shown = page.locator("article.artifact", has_text="part-7")
    assert "The beginning of 900," in await shown.inner_text()
    async with page.expect_download() as coming:
        await shown.get_by_role("link", name="Download").click()
    file = await coming.value
    assert file.suggested_filename == "part-7.txt"
    assert await _read(file) == whole
    async with page.expect_download() as coming:
        await page.locator("#inputs").get_by_role("link", name="All that the API tells").click()
    assert orjson.loads(await _read(await coming.value))["parameters"] == started["parameters"]
    assert not await looking.is_hacked()


async def _read(file: Download) -> str:
    return await anyio.Path(await file.path()).read_text(encoding="utf-8")


async def test_a_task_run_says_what_it_was_given_what_it_has_logged_and_what_it_has_made(
    site: Pages, looking: Looking
) -> None:
    told = await telling(site, artifacts=[])
    body = {
        "flow_run_id": told.run["id"], "name": "report", "task_key": "report", "dynamic_key": "9",
        "task_inputs": {
            "rows": [{"input_type": "task_run", "id": told.task_run}], "day": [{"input_type": "parameter", "name": HOSTILE}],
            "size": [{"input_type": "constant", "type": "int"}], "plain": [],
        },
    }  # fmt: skip
    code, task = await site.api.post("/task_runs/", body)
    assert code == 201, task
    now = datetime.now(UTC).isoformat()
    lines = [
        {"name": "prefect.task_runs", "level": level, "message": message, "timestamp": now, "flow_run_id": told.run["id"], "task_run_id": of}
        for level, message, of in ((20, f"first \x1b[31m{HOSTILE}\x1b[0m", task["id"]), (40, "second", task["id"]), (20, "of another one", told.task_run))
    ]  # fmt: skip
    assert (await site.api.post("/logs/", lines))[0] == 201
    artifact = {"key": "made", "type": "markdown", "data": f"**bold** {HOSTILE}", "task_run_id": task["id"]}
    assert (await site.api.post("/artifacts/", artifact))[0] == 201
    for state in ({"type": "RUNNING"}, {"type": "COMPLETED", "message": HOSTILE}):
        assert (await site.api.post(f"/task_runs/{task['id']}/set_state", {"state": state, "force": True}))[0] == 201
    page = looking.page
    await looking.go(f"{site.url}/runs/task-run/{task['id']}")
    log = await page.locator(".log-text").inner_text()
    assert [line.split("  ")[1] for line in log.splitlines()] == ["INFO", "ERROR"]
    assert f"first {HOSTILE}" in log and "another" not in log
    inputs = page.locator("#inputs")
    assert (await inputs.get_by_role("link").get_attribute("href") or "").endswith(told.task_run)
    for said in (HOSTILE, "a constant of type int", "a value"):
        assert said in await inputs.inner_text()
    assert await page.locator("#states .badge").all_inner_texts() == ["Pending", "Running", "Completed"]
    assert await page.locator("#artifacts strong").inner_text() == "bold"
    assert await looking.barriers() == []
    assert not await looking.is_hacked()
