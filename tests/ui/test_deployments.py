"""The pages of deployments, as somebody uses them."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from playwright.async_api import expect

from managedd import ids
from managedd.model.access import Role
from managedd.orchestration import deployments as deploying
from managedd.store import deployments
from tests.api.deployed import CRON, deploy, flow_of, pool_of, read, run_it, runs_of
from tests.support.api_keys import make_key
from tests.ui.looking import HOSTILE, NARROW, Looking

if TYPE_CHECKING:
    from playwright.async_api import Browser, Locator, Page

    from tests.ui.conftest import Pages

pytestmark = [pytest.mark.anyio, pytest.mark.browser]

SCHEMA = {
    "title": "Parameters",
    "type": "object",
    "properties": {
        "rows": {"title": "rows", "type": "integer", "multipleOf": 10, "position": 1},
        "day": {"title": "day", "type": "string", "position": 0, "default": "today", "description": "What to load."},
    },
    "required": ["rows"],
}


NAME = re.sub("[/%&><]", "|", HOSTILE)
"""What of that may be a name."""


def page_of(site: Pages, deployment: dict[str, Any], rest: str = "") -> str:
    return f"{site.url}/deployments/deployment/{deployment['id']}{rest}"


async def problem_at(page: Page, label: str) -> str:
    """What stands at the field with that label; the field says that it is about it."""
    field = page.get_by_label(label, exact=True)
    await expect(field).to_have_attribute("aria-invalid", "true")
    told = (await field.get_attribute("aria-describedby") or "").split()
    return await page.locator(f"[id='{told[-1]}']").inner_text()


async def choose(page: Page, menu: str, action: str) -> None:
    await page.get_by_label(menu, exact=True).click()
    await page.get_by_role("button", name=action, exact=True).click()


def dialog_button(page: Page, name: str) -> Locator:
    return page.get_by_role("dialog").get_by_role("button", name=name, exact=True)


async def test_deployments_are_chosen_by_what_stands_in_the_address(site: Pages, looking: Looking) -> None:
    await pool_of(site.api)
    await deploy(site.api, "nightly", tags=["prod", "eu"], work_pool_name="mine")
    await deploy(site.api, "weekly", tags=["prod"])
    await deploy(site.api, "other", flow_id=await flow_of(site.api, "report"))
    page = looking.page
    names = page.get_by_role("table", name="Deployments").get_by_role("rowheader").get_by_role("link")

    await looking.go(f"{site.url}/deployments")
    assert await names.all_inner_texts() == ["nightly", "etl", "prod", "eu", "other", "report", "weekly", "etl", "prod"]
    await page.get_by_label("Name or flow contains").fill("etl")
    await page.get_by_label("Tags, with commas").fill("prod, eu")
    await page.get_by_label("Work pool").select_option("mine")
    await page.get_by_role("button", name="Show").click()
    await page.wait_for_url(re.compile(r"\?q=etl&tag=prod%2C\+eu&pool=mine$"))
    await looking.ready()
    assert await names.all_inner_texts() == ["nightly", "etl", "prod", "eu"]
    await page.get_by_role("link", name="Clear").click()
    await page.get_by_role("link", name="report").click()
    await page.get_by_role("heading", name="report", exact=True).wait_for()
    assert await names.all_inner_texts() == ["other"]
    await page.get_by_role("link", name="other").click()
    await page.get_by_role("heading", name="other", exact=True).wait_for()


async def test_fifty_deployments_are_a_page(site: Pages, looking: Looking) -> None:
    flow_id = await flow_of(site.api)
    for number in range(53):
        await deploy(site.api, f"d{number:02}", flow_id=flow_id, tags=["many"])
    page = looking.page
    await looking.go(f"{site.url}/deployments?tag=many")
    assert await page.get_by_role("table").get_by_role("rowheader").count() == 50
    await page.get_by_role("link", name="After").click()
    await page.wait_for_url(re.compile(r"tag=many&offset=50$"))
    await page.get_by_text("51–53 of 53").wait_for()
    assert await page.get_by_role("table").get_by_role("rowheader").count() == 3


async def test_a_deployment_is_run_and_run_with_values_that_are_refused_at_their_fields(
    site: Pages, looking: Looking
) -> None:
    await pool_of(site.api)
    made = await deploy(
        site.api, work_pool_name="mine", parameter_openapi_schema=SCHEMA, parameters={"rows": 10}, tags=["prod"]
    )
    page = looking.page
    looking.expected = ["409", "422"]
    await looking.go(page_of(site, made))
    await page.get_by_role("button", name="Run", exact=True).click()
    await page.wait_for_url(re.compile("/runs/flow-run/"))
    (run,) = await runs_of(site.api, made)
    assert (page.url.rpartition("/")[2], run["parameters"]) == (run["id"], {"rows": 10})

    await looking.go(page_of(site, made))
    await page.get_by_role("link", name="Custom run").click()
    await looking.ready()
    await page.get_by_label("rows required").fill("15")
    await page.get_by_label("day", exact=True).fill("monday")
    await page.get_by_label("Name", exact=True).fill("by hand")
    await page.get_by_label("Tags", exact=True).fill("mine\nprod")
    await page.get_by_label("Start", exact=True).fill("2100-01-01T10:00")
    await page.get_by_role("button", name="Run", exact=True).click()
    assert "15 is not a multiple of 10" in await problem_at(page, "rows required")

    await page.get_by_label("rows required").fill("20")
    await page.get_by_text("Job variables").click()
    await page.get_by_label("Memory Limit").fill("900Gi")
    await page.get_by_role("button", name="Run", exact=True).click()
    assert "900.0 GiB is more than plan" in await problem_at(page, "Memory Limit")
    assert await page.locator(".problem").count() == 1
    await page.get_by_label("Memory Limit").fill("256Mi")
    await page.get_by_role("button", name="Run", exact=True).click()
    await page.wait_for_url(re.compile("/runs/flow-run/"))
    _, ran = await runs_of(site.api, made)
    assert (ran["name"], ran["tags"]) == ("by hand", ["prod", "mine"])
    assert (ran["parameters"], ran["job_variables"]) == ({"rows": 20, "day": "monday"}, {"memory_limit": "256Mi"})
    assert ran["expected_start_time"].startswith("2100-01-01T10:00")
    await looking.go(page_of(site, made))
    await page.locator("#ahead").get_by_role("link", name="by hand").wait_for()


async def test_a_run_that_needs_a_value_begins_with_the_form(site: Pages, looking: Looking) -> None:
    made = await deploy(site.api, parameter_openapi_schema=SCHEMA)
    page = looking.page
    await looking.go(f"{site.url}/deployments")
    await page.get_by_role("link", name="Run …").click()
    await looking.ready()
    assert page.url == page_of(site, made, "/run")
    await page.get_by_role("button", name="Run", exact=True).click()
    assert await page.get_by_label("rows required").evaluate("field => field.validity.valueMissing")
    assert await runs_of(site.api, made) == []


async def test_schedules_are_added_with_their_next_times_switched_and_deleted(site: Pages, looking: Looking) -> None:
    made = await deploy(site.api)
    page = looking.page
    looking.expected = ["422"]
    await looking.go(page_of(site, made))

    await page.get_by_role("link", name="Add a schedule").click()
    await looking.ready()
    await page.get_by_label("Cron expression").fill("0 9 * *")
    await page.get_by_role("button", name="Add the schedule").click()
    assert "is not a cron expression" in await problem_at(page, "Cron expression")
    await page.get_by_label("Cron expression").fill(CRON["cron"])
    await page.get_by_label("Time zone", exact=True).fill(CRON["timezone"])
    await page.get_by_role("button", name="Add the schedule").click()
    times = page.locator(".schedules .times li")
    await expect(times).to_have_count(5)
    assert all(re.search(r", 09:00 CES?T$", time) for time in await times.all_inner_texts())

    await page.get_by_role("link", name="Add a schedule").click()
    await looking.ready()
    await page.get_by_label("Interval", exact=True).check()
    await page.get_by_label("Every", exact=True).fill("5 months")
    await page.get_by_role("button", name="Add the schedule").click()
    assert "15 min" in await problem_at(page, "Every")
    await page.get_by_label("Every", exact=True).fill("1 h 30 min")
    await page.get_by_role("button", name="Add the schedule").click()
    await expect(times).to_have_count(10)
    await page.get_by_role("link", name="Add a schedule").click()
    await looking.ready()
    await page.get_by_label("Rule", exact=True).first.check()
    await page.locator("#rrule").fill("FREQ=DAILY;UNTIL=20200101T000000")
    await expect(page.locator(".next-times")).to_have_text("It does not come again.")
    await page.get_by_role("button", name="Add the schedule").click()
    await page.get_by_text("It does not come again.").wait_for()
    stored = (await read(site.api, made))["schedules"]
    assert {each["schedule"].get("interval") for each in stored} == {None, 5400.0}
    assert {each["schedule"].get("cron") for each in stored} == {None, CRON["cron"]}

    await looking.ready()
    await choose(page, "Actions of schedule 1", "Switch off")
    await page.locator(".schedules .badge", has_text="Off").wait_for()
    await choose(page, "Actions of schedule 2", "Delete")
    await dialog_button(page, "Delete").click()
    await expect(page.locator(".schedules > li")).to_have_count(2)
    assert {each["active"] for each in (await read(site.api, made))["schedules"] if "cron" in each["schedule"]} == {
        False
    }


async def test_a_schedule_is_edited_and_its_next_times_are_seen_before_it_is_saved(
    site: Pages, looking: Looking
) -> None:
    own = {"slug": "daily", "max_scheduled_runs": 7, "parameters": {"rows": 10, "more": [1]}}
    made = await deploy(
        site.api, parameter_openapi_schema=SCHEMA, parameters={"rows": 40, "day": "monday"},
        schedules=[{"schedule": {**CRON, "day_or": False}, **own}, {"schedule": CRON, "slug": "other"}],
    )  # fmt: skip
    stored = next(each for each in made["schedules"] if each["slug"] == "daily")
    page, told = looking.page, looking.page.locator(".next-times")
    looking.expected = ["409", "422"]

    async def now() -> dict[str, Any]:
        found = (await read(site.api, made))["schedules"]
        return next(each for each in found if each["id"] == stored["id"])

    await looking.go(page_of(site, made))
    card = page.locator(f"#schedule-{stored['id']}")
    await card.get_by_label("Actions of schedule").click()
    await card.get_by_role("link", name="Edit").click()
    await looking.ready()
    await expect(told.locator("li")).to_have_count(5)
    assert all(re.search(r", 09:00 CES?T$", time) for time in await told.locator("li").all_inner_texts())
    # What the browser says is what the deployment's page says.
    before = await told.locator("li").all_inner_texts()
    await page.get_by_role("button", name="Save").click()
    await page.wait_for_url(page_of(site, made))
    assert before == await card.locator(".times li").all_inner_texts()
    assert {name: (await now())[name] for name in (*own, "schedule", "active")} == {
        name: stored[name] for name in (*own, "schedule", "active")
    }

    await looking.go(page_of(site, made, f"/schedule/{stored['id']}"))
    await page.get_by_label("Cron expression").fill("61 9 * * 1")
    assert "is not a cron expression" in await problem_at(page, "Cron expression")
    assert await page.evaluate("document.activeElement.id") == "cron", "whoever types is left alone"
    await page.get_by_label("Cron expression").fill("30 9 * * 1")
    await expect(told.locator("li").first).to_have_text(re.compile(r"^Mon .*, 09:30 CES?T$"))
    await expect(page.get_by_label("Cron expression")).not_to_have_attribute("aria-invalid", "true")
    await page.get_by_label("Time zone", exact=True).fill(HOSTILE)
    assert "is not a time zone" in await problem_at(page, "Time zone")
    await page.get_by_label("Time zone", exact=True).fill("America/New_York")
    await expect(told.locator("li").first).to_have_text(re.compile(r"09:30 (E[SD]T|GMT-[45])$"))

    await expect(page.get_by_label("Every", exact=True)).to_be_hidden()
    await page.get_by_label("Interval", exact=True).check()
    await expect(page.get_by_label("Cron expression")).to_be_hidden()
    await page.get_by_label("Every", exact=True).fill("1 d 90 min")
    await page.get_by_label("Counted from", exact=True).fill("2026-01-01T08:15")
    await page.get_by_label("Time zone", exact=True).fill("UTC")
    await expect(told.locator("li")).to_have_count(5)
    await page.get_by_label("Runs planned ahead, at most").fill("")
    await page.get_by_label("Slug").fill("other")
    await page.get_by_label("The schedule is on").uncheck()
    await page.get_by_label("rows", exact=True).fill("")
    await page.get_by_role("button", name="Save").click()
    assert "Schedule slugs must be unique" in await page.get_by_role("alert").inner_text()
    await page.get_by_label("Slug").fill("slow")
    await page.get_by_role("button", name="Save").click()
    await page.wait_for_url(page_of(site, made))
    changed = await now()
    offset = await page.evaluate("new Date('2026-01-01T08:15').toISOString()")
    assert changed["schedule"]["interval"] == 91_800.0
    assert changed["schedule"]["anchor_date"].startswith(offset[:19])
    assert (changed["slug"], changed["active"], changed["max_scheduled_runs"]) == ("slow", False, None)
    assert changed["parameters"] == {"more": [1]}
    await looking.go(page_of(site, made, f"/schedule/{stored['id']}"))
    assert await page.get_by_label("Every", exact=True).input_value() == "1 d 1 h 30 min"
    assert not await looking.is_hacked()


async def test_a_deployment_is_paused_resumed_and_deleted(site: Pages, looking: Looking) -> None:
    made = await deploy(site.api, schedules=[{"schedule": CRON}])
    page = looking.page
    await looking.go(page_of(site, made))
    await choose(page, "Actions of prod", "Pause")
    await dialog_button(page, "Pause").click()
    await page.get_by_text("The deployment is paused").wait_for()
    assert (await read(site.api, made))["paused"]
    await choose(page, "Actions of prod", "Resume")
    await expect(page.get_by_text("The deployment is paused")).to_have_count(0)
    assert not (await read(site.api, made))["paused"]
    await choose(page, "Actions of prod", "Delete")
    await dialog_button(page, "Delete").click()
    await page.get_by_role("heading", name="No deployments yet").wait_for()
    assert (await site.api.get(f"/deployments/{made['id']}"))[0] == 404


async def test_a_deployment_is_edited_and_what_the_plan_does_not_allow_stands_at_its_field(
    site: Pages, looking: Looking
) -> None:
    await pool_of(site.api)
    made = await deploy(
        site.api,
        work_pool_name="mine",
        parameter_openapi_schema=SCHEMA,
        parameters={"rows": 10, "day": "monday"},
        job_variables={"env": {"A": "1"}, "timeout": 60},
        concurrency_limit=3,
        tags=["prod"],
        schedules=[{"schedule": CRON}],
    )
    page = looking.page
    looking.expected = ["409", "422"]
    await looking.go(page_of(site, made))
    assert "3 runs; further ones wait" in await page.locator("#facts").inner_text()
    await page.get_by_label("Actions of prod", exact=True).click()
    await page.get_by_role("link", name="Edit").click()
    await looking.ready()
    await page.get_by_label("Description", exact=True).fill("Loads.\nDaily.")
    await page.get_by_label("Tags", exact=True).fill("")
    await page.get_by_label("Queue", exact=True).fill("urgent")
    await page.get_by_label("Concurrency limit").fill("5")
    await page.get_by_label("Further runs").select_option("are cancelled")
    await page.get_by_label("day", exact=True).fill("")
    await page.get_by_label("rows", exact=True).fill("7")
    await page.get_by_label("Memory Limit").fill("900Gi")
    await page.get_by_role("button", name="Save").click()
    assert "7 is not a multiple of 10" in await problem_at(page, "rows")
    await page.get_by_label("rows", exact=True).fill("30")
    await page.get_by_role("button", name="Save").click()
    assert "900.0 GiB is more than plan" in await problem_at(page, "Memory Limit")
    await page.get_by_label("Memory Limit").fill("512Mi")
    await page.get_by_label("Timeout").fill("")
    await page.get_by_role("button", name="Save").click()
    await page.wait_for_url(page_of(site, made))
    now = await read(site.api, made)
    assert (now["description"], now["tags"], now["work_queue_name"]) == ("Loads.\nDaily.", [], "urgent")
    assert (now["parameters"], now["job_variables"]) == ({"rows": 30}, {"env": {"A": "1"}, "memory_limit": "512Mi"})
    assert now["global_concurrency_limit"]["limit"] == 5
    assert now["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert (len(now["schedules"]), now["paused"], now["work_pool_name"]) == (1, False, "mine")

    await looking.go(page_of(site, made, "/edit"))
    await page.get_by_label("Concurrency limit").fill("")
    await page.get_by_label("Work pool", exact=True).select_option("None")
    await page.get_by_label("Queue", exact=True).fill("")
    await page.get_by_role("button", name="Save").click()
    await page.wait_for_url(page_of(site, made))
    now = await read(site.api, made)
    assert (now["global_concurrency_limit"], now["work_pool_name"], now["description"]) == (
        None,
        None,
        "Loads.\nDaily.",
    )


async def test_another_work_pool_in_edit_brings_its_own_job_variables(site: Pages, looking: Looking) -> None:
    await pool_of(site.api)
    variables = {
        "properties": {
            "env": {"title": "Environment", "type": "object", "additionalProperties": {"type": "string"}},
            "gpu": {"title": HOSTILE, "type": "integer", "maximum": 8},
        }
    }
    template = {
        "job_configuration": {"env": "{{ env }}", "gpu": "{{ gpu }}"},
        "variables": {"type": "object", **variables},
    }
    await site.api.post("/work_pools/", {"name": "own/&? #", "type": "process", "base_job_template": template})
    await site.api.post("/work_pools/", {"name": "own", "type": "process", "base_job_template": template})
    await site.api.post("/work_pools/own/queues", {"name": "fast"})
    steps = [{"prefect.deployments.steps.set_working_directory": {"directory": "/flows"}}]
    made = await deploy(
        site.api, work_pool_name="mine", work_queue_name="urgent", job_variables={"timeout": 60, "env": {"A": "1"}}, entrypoint="etl.py:etl", pull_steps=steps,
    )  # fmt: skip
    page = looking.page
    await looking.go(page_of(site, made, "/edit"))
    facts = await page.get_by_role("region", name="Where its code comes from").inner_text()
    assert "etl.py:etl" in facts and "set_working_directory" in facts
    await page.get_by_label("Description", exact=True).fill("# Orders\n\n- each **night**\n\n<b>no</b>")
    await page.get_by_label("Environment Variables").fill("A=2\nB=3")
    await page.get_by_label("Memory Limit").wait_for()
    await page.get_by_label("Work pool", exact=True).select_option("own")

    await page.get_by_label(HOSTILE, exact=True).wait_for()
    assert await page.get_by_label("Memory Limit").count() == 0, "the other pool has none"
    assert await page.locator("[data-at='/job_variables/env']").input_value() == "A=2\nB=3", "what was typed stays"
    assert json.loads(await page.get_by_label("Further values").input_value()) == {"timeout": 60}
    assert await page.get_by_label("Queue", exact=True).input_value() == ""
    assert "fast" in await page.locator("#queues option").evaluate_all("all => all.map(each => each.value)")
    assert await page.get_by_label("Description", exact=True).input_value() != ""
    assert await looking.barriers() == []
    await page.get_by_label(HOSTILE, exact=True).fill("4")
    await page.get_by_label("Further values").fill("")
    await page.get_by_label("Queue", exact=True).fill("fast")
    await page.get_by_label("Paused", exact=True).check()
    await page.get_by_role("button", name="Save").click()
    await page.wait_for_url(page_of(site, made))
    now = await read(site.api, made)
    assert (now["work_pool_name"], now["work_queue_name"], now["paused"]) == ("own", "fast", True)
    assert now["job_variables"] == {"gpu": 4, "env": {"A": "2", "B": "3"}}
    # What was written as Markdown is shown as such, and what of it would be HTML as text.
    said = page.locator(".said")
    assert await said.get_by_role("heading", name="Orders").count() == 1
    assert await said.locator("li strong").inner_text() == "night"
    assert "<b>no</b>" in await said.inner_text()
    assert not await looking.is_hacked()


async def test_a_deployments_secrets_are_kept_without_being_shown(site: Pages, looking: Looking) -> None:
    schema = {
        "type": "object",
        "properties": {"token": {"title": "Token", "type": "string", "format": "password", "writeOnly": True}},
    }
    template = {"job_configuration": {"env": {"TOKEN": "{{ token }}"}}, "variables": schema}
    await site.api.post("/work_pools/", {"name": "own", "type": "process", "base_job_template": template})
    made = await deploy(site.api, work_pool_name="own", job_variables={"token": "hunter2hunter2"})
    for rest in ("", "/run", "/edit"):
        await looking.go(page_of(site, made, rest))
        assert "hunter2" not in await looking.page.content()
    await looking.page.get_by_label("Description", exact=True).fill("changed")
    await looking.page.get_by_role("button", name="Save").click()
    await looking.page.wait_for_url(page_of(site, made))
    assert (await read(site.api, made))["description"] == "changed"
    kept = await site.services.db.read(
        lambda tx: deploying.variables_in_clear(tx, deployments.need(tx, made["id"]), None)[0],
        workspace=ids.DEFAULT_WORKSPACE_ID,
    )
    assert kept == {"token": "hunter2hunter2"}


async def test_texts_of_others_are_shown_as_they_are(site: Pages, looking: Looking) -> None:
    hostile = {"type": "object", "title": HOSTILE, "properties": {HOSTILE: {"title": HOSTILE, "description": HOSTILE, "type": "string", "default": HOSTILE}}}  # fmt: skip
    flow_id = await flow_of(site.api, NAME)
    made = await deploy(
        site.api, NAME, flow_id=flow_id, description=HOSTILE, tags=[HOSTILE], version=HOSTILE,
        parameter_openapi_schema=hostile, parameters={HOSTILE: HOSTILE}, entrypoint=HOSTILE, path=HOSTILE,
        pull_steps=[{HOSTILE: HOSTILE}], job_variables={"env": {"A": HOSTILE}}, work_queue_name=HOSTILE,
        schedules=[{"schedule": CRON, "slug": HOSTILE, "parameters": {HOSTILE: HOSTILE}}],
    )  # fmt: skip
    schedule = f"/schedule/{made['schedules'][0]['id']}"
    await run_it(site.api, made, name=HOSTILE, tags=[HOSTILE])
    page = looking.page
    for path in (
        "deployments",
        f"flows/flow/{flow_id}",
        *(f"deployments/deployment/{made['id']}{rest}" for rest in ("", "/run", schedule, "/edit")),
    ):
        await looking.go(f"{site.url}/{path}")
        assert not await looking.is_hacked(), path
        assert "onerror" in await page.locator("main").inner_text(), path
    await page.get_by_label("Description", exact=True).fill(HOSTILE * 2)
    await page.get_by_role("button", name="Save").click()
    await expect(page.locator(".said")).to_contain_text(HOSTILE[:36])
    assert (await read(site.api, made))["parameters"] == {HOSTILE: HOSTILE}
    await looking.go(page_of(site, made, "/run"))
    await page.get_by_label("Name", exact=True).fill(HOSTILE)
    await page.get_by_role("button", name="Run", exact=True).click()
    await page.wait_for_url(re.compile("/runs/flow-run/"))
    await looking.go(f"{site.url}/deployments?q={HOSTILE[:20]}&tag=%22onerror&pool={HOSTILE[:9]}")
    assert not await looking.is_hacked()
    await looking.go(page_of(site, made, schedule))
    await page.get_by_label("Slug").fill(HOSTILE * 2)
    await page.get_by_role("button", name="Save").click()
    await page.locator(".schedules .card", has_text=HOSTILE * 2).wait_for()
    assert (await read(site.api, made))["schedules"][0]["parameters"] == {HOSTILE: HOSTILE}
    assert not await looking.is_hacked()


async def test_a_viewer_is_offered_nothing_that_changes_anything(closed_site: Pages, looking: Looking) -> None:
    admin = {"headers": {"Authorization": "Basic YWRtaW46c2VjcmV0"}}
    _, flow = await closed_site.api.post("/flows/", {"name": "etl"}, **admin)
    body = {"name": "prod", "flow_id": flow["id"], "schedules": [{"schedule": CRON}]}
    _, made = await closed_site.api.post("/deployments/", body, **admin)
    page = looking.page
    await page.goto(f"{closed_site.url}/deployments")
    await page.get_by_label("Key").fill(await make_key(closed_site.services.db, Role.VIEWER))
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("link", name="prod").wait_for()
    buttons = page.locator("main").get_by_role("button")
    assert await buttons.all_inner_texts() == ["Show"]
    own = f"/schedule/{made['schedules'][0]['id']}"
    for rest in ("", "/run", "/edit", "/new-schedule", own):
        await looking.go(page_of(closed_site, made, rest))
        assert page.url == page_of(closed_site, made)
        await expect(page.locator(".times li")).to_have_count(5)
        assert (await buttons.count(), await page.locator("main summary").count()) == (0, 0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_pages_of_deployments_shut_nobody_out_and_fit_a_phone(
    site: Pages, browser: Browser, scheme: str
) -> None:
    await pool_of(site.api)
    made = await deploy(
        site.api,
        work_pool_name="mine",
        parameter_openapi_schema=SCHEMA,
        parameters={"rows": 10},
        tags=["prod", "a-tag-of-a-length-that-would-not-fit-into-one-line-of-a-phone"],
        schedules=[{"schedule": CRON}, {"schedule": {"interval": 90}, "active": False}],
        job_variables={"env": {"A": "1"}},
        description="Loads.",
    )
    run = await run_it(site.api, made)
    failed = {"state": {"type": "FAILED", "message": "no"}, "force": True}
    assert (await site.api.post(f"/flow_runs/{run['id']}/set_state", failed))[0] in {200, 201}
    paths = ("", "/run", "/edit", "/new-schedule", *(f"/schedule/{each['id']}" for each in made["schedules"]))
    async with Looking.opened(browser, size=NARROW, scheme=scheme) as window:
        for url in (
            f"{site.url}/deployments",
            f"{site.url}/flows/flow/{made['flow_id']}",
            *(page_of(site, made, rest) for rest in paths),
        ):
            await window.go(url)
            await window.page.evaluate(
                "document.querySelectorAll('main details:not(.menu)').forEach(each => each.open = true)"
            )
            assert await window.barriers() == [], url
            assert await window.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), url
        window.check()


async def test_a_deployments_page_shows_what_happens_while_somebody_chooses(site: Pages, looking: Looking) -> None:
    made = await deploy(site.api)
    page = looking.page
    await looking.go(page_of(site, made))
    await page.get_by_label("Actions of prod", exact=True).click()
    due = datetime.now(UTC).isoformat()
    await run_it(site.api, made, name="sudden", state={"type": "SCHEDULED", "state_details": {"scheduled_time": due}})
    await page.locator("#runs").get_by_role("link", name="sudden").wait_for()
    assert await page.get_by_role("link", name="Edit").is_visible()
