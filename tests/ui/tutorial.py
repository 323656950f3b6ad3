"""The steps of the tutorial as a person goes them in a browser, over a live daemon with real containers."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyio import to_thread
from playwright.async_api import expect

from tests.contract.place import DEPLOY
from tests.support.api_keys import bearer
from tests.support.http import Api
from tests.ui.looking import HOSTILE

if TYPE_CHECKING:
    from playwright.async_api import Locator

    from tests.support.daemon import LiveDaemon
    from tests.support.prefect_user import PrefectUser
    from tests.ui.looking import Looking

WORKSPACE = "default/default"
POOL = "my-managed-pool"
NAME = re.sub("[/%&><]", "|", HOSTILE)
"""What of that Prefect's client lets stand in a name."""
RUN_MS = 60_000
"""A container starts, and a client in it, beside whatever else this machine does."""
FLOWS = f"""
import os, time
from prefect import flow
from prefect.context import get_run_context
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput

SAID = {HOSTILE!r}

class Answer(RunInput):
    word: str

@flow(name={NAME!r}, log_prints=True)
def hello(name: str = "world", ask: bool = False):
    "Says something until it is told that this is enough."
    print(SAID)
    print(f"Hello, {{name}}! The stage is {{os.environ.get('STAGE')}}.")
    if ask:
        wanted = Answer.with_initial_data(description="What is the word? " + SAID)
        answer = pause_flow_run(wait_for_input=wanted, timeout=300, poll_interval=1)
        print("The word is", answer.word)
    beats = 0
    while not os.path.exists("/tmp/enough"):
        beats += 1
        print("beat", beats)
        time.sleep(0.5)
    print("It was enough.")

@flow(log_prints=True)
def flaky():
    if get_run_context().flow_run.run_count < 2:
        raise RuntimeError("the first try fails: " + SAID)
    print("the second try is fine")
"""


@dataclass(frozen=True, kw_only=True)
class Host:
    """A daemon that asks everybody for a key, and the flows of somebody who has one."""

    daemon: LiveDaemon
    url: str
    """Of its pages."""
    key: str
    flows: str
    """The URL of their repository."""

    @property
    def api(self) -> Api:
        """What the key opens."""
        return Api(self.daemon.url, headers=bearer(self.key))


def badge(looking: Looking, name: str) -> Locator:
    """The state of the run whose page this is."""
    return looking.page.locator(".head .badge", has_text=name)


def line(looking: Looking, text: str | re.Pattern[str]) -> Locator:
    """A line of the log."""
    return looking.page.locator(".log-message", has_text=text).first


async def look(looking: Looking) -> None:
    """The page that was come to shuts nobody out, and nothing of a stranger has run in it."""
    await looking.ready()
    assert await looking.barriers() == [], looking.page.url
    assert await looking.is_hacked() is False, looking.page.url


async def visit(looking: Looking, section: str) -> None:
    """Its link at the top of every page was followed."""
    await looking.page.get_by_role("navigation", name="Pages").get_by_role("link", name=section).click()
    await looking.page.get_by_role("heading", name=section, level=1, exact=True).wait_for()
    await look(looking)


async def sign_in(looking: Looking, key: str) -> None:
    """The key was given to the page that asks for it."""
    await looking.page.get_by_label("Key").fill(key)
    await looking.page.get_by_role("button", name="Sign in").click()
    await looking.ready()


async def mark_page(looking: Looking) -> None:
    """`was_never_loaded_anew` counts from here."""
    await looking.page.evaluate("window.before = document.querySelector('h1')")


async def was_never_loaded_anew(looking: Looking) -> bool:
    """Whether the page, and its heading, are the ones that were marked."""
    return bool(await looking.page.evaluate("window.before === document.querySelector('h1')"))


async def make_pool(looking: Looking) -> None:
    """The pool was made by the wizard, from an empty list."""
    page = looking.page
    await page.get_by_text("No work pools yet").wait_for()
    await look(looking)
    await page.get_by_role("link", name="Create work pool").click()
    await page.get_by_role("link", name="Prefect Managed").click()
    await page.wait_for_url("**/new?type=*")
    await look(looking)
    await page.get_by_label("Name").first.fill(POOL)
    await page.get_by_role("button", name="Create").click()
    await page.get_by_role("heading", name=POOL, level=1).wait_for()
    await look(looking)


def deploy(host: Host, user: PrefectUser) -> None:
    """Both flows are deployed, by a script as in Prefect's guide."""
    common = {"source": host.flows, "pool": POOL, "job_variables": {}, "options": {}}
    wanted = [
        {**common, "entrypoint": "flows.py:hello", "name": NAME},
        {**common, "entrypoint": "flows.py:flaky", "name": "flaky"},
    ]
    assert user.python(DEPLOY, json.dumps(wanted), timeout=150).out.count("\nDEPLOYED ") == 2


async def edit_pool(looking: Looking) -> None:
    """A variable is set; what the plan does not allow was told where it was asked for."""
    page = looking.page
    card = page.locator(".card", has_text=POOL)
    await card.locator("summary").click()
    await card.get_by_role("link", name="Edit").click()
    await page.wait_for_url("**/edit")
    await look(looking)
    await page.get_by_label("Environment Variables").fill("STAGE=tutorial")
    memory = page.get_by_label("Memory Limit")
    await memory.fill("64Gi")
    await page.get_by_role("button", name="Save").click()
    await expect(memory).to_have_attribute("aria-invalid", "true")
    told = str(await memory.get_attribute("aria-describedby")).split()[-1]
    assert "more than plan 'pro' allows" in await page.locator(f"id={told}").inner_text()
    assert await looking.barriers() == []
    await memory.fill("512Mi")
    await page.get_by_role("button", name="Save").click()
    await page.get_by_text("STAGE=tutorial").wait_for()


async def _started(looking: Looking) -> str:
    """The page of the run that was just started is there; the run's id."""
    await looking.page.wait_for_url("**/runs/flow-run/*")
    await looking.ready()
    return looking.page.url.rpartition("/")[2]


async def _confirmed(looking: Looking, action: str) -> None:
    await looking.page.get_by_role("button", name=action, exact=True).click()
    await looking.page.get_by_role("dialog").get_by_role("button", name=action, exact=True).click()


async def watch_a_run(looking: Looking, host: Host) -> None:
    """A run was seen to go on, line by line, to its end."""
    page = looking.page
    await page.get_by_role("button", name="Run", exact=True).click()
    run = await _started(looking)
    await mark_page(looking)
    await line(looking, "Hello, world! The stage is tutorial.").wait_for(timeout=RUN_MS)
    await line(looking, re.compile(r"^beat \d+$")).wait_for()
    # It can't have ended: nobody has told it to.
    await badge(looking, "Running").wait_for()
    phases = page.locator("#phases li")
    assert {"queued", "start", "run"} <= set(await phases.locator("span[title]").all_inner_texts())
    await phases.filter(has_text="run").locator("time[data-since]").wait_for()
    await expect(line(looking, "<img")).to_have_text(HOSTILE)
    await look(looking)
    [container] = host.daemon.containers(flow_run_id=run)
    await to_thread.run_sync(host.daemon.docker, "exec", container, "touch", "/tmp/enough")
    await badge(looking, "Completed").wait_for(timeout=RUN_MS)
    await line(looking, "It was enough.").wait_for()
    await expect(page.locator("#phases time")).to_have_count(0)
    assert await page.locator("#states .badge").all_inner_texts() == ["Scheduled", "Pending", "Running", "Completed"]
    assert await was_never_loaded_anew(looking)
    await look(looking)


async def answer_a_run(looking: Looking) -> str:
    """A run with values of its own has paused, was answered on its page, and goes on; its id."""
    page = looking.page
    await page.get_by_role("link", name="Custom run").click()
    await page.wait_for_url("**/run")
    await look(looking)
    await page.get_by_label("name", exact=True).fill("Marvin")
    await page.get_by_label("ask", exact=True).check()
    await page.get_by_role("button", name="Run", exact=True).click()
    run = await _started(looking)
    await line(looking, "Hello, Marvin!").wait_for(timeout=RUN_MS)
    inputs = await page.locator("#inputs").inner_text()
    assert '"name": "Marvin"' in inputs
    assert '"ask": true' in inputs
    await badge(looking, "Paused").wait_for(timeout=RUN_MS)
    await page.get_by_role("link", name="Resume with input").click()
    await page.get_by_text(f"What is the word? {HOSTILE}").wait_for()
    await look(looking)
    await page.get_by_label("word").fill(HOSTILE)
    await page.get_by_role("button", name="Resume", exact=True).click()
    await page.wait_for_url(f"**/runs/flow-run/{run}")
    await line(looking, f"The word is {HOSTILE}").wait_for(timeout=RUN_MS)
    await badge(looking, "Running").wait_for()
    await look(looking)
    return run


async def cancel_a_run(looking: Looking, host: Host, run: str) -> None:
    """The run was ended from its page, and its container with it."""
    await _confirmed(looking, "Cancel")
    await badge(looking, "Cancelled").wait_for(timeout=RUN_MS)
    [execution] = await to_thread.run_sync(host.daemon.ended, run)
    assert execution["end_cause"] == "cancel"


async def retry_a_run(looking: Looking) -> None:
    """A run has failed and said why; its second attempt went better."""
    page = looking.page
    row = page.get_by_role("row", name="flaky").last
    await row.get_by_role("button", name="Run", exact=True).click()
    await _started(looking)
    await badge(looking, "Failed").wait_for(timeout=RUN_MS)
    assert "the first try fails" in await page.locator("#cause").inner_text()
    await look(looking)
    await _confirmed(looking, "Retry")
    await badge(looking, "Completed").wait_for(timeout=RUN_MS)
    await line(looking, "the second try is fine").wait_for()
    await expect(page.locator("#phases h3")).to_have_text(["Attempt 2", "Attempt 1"])


async def wait_for_hours(looking: Looking, host: Host) -> None:
    """A plan's hours are used up: the next run waits, and its page says for what and until when."""
    page = looking.page
    await to_thread.run_sync(host.daemon.operator, "workspace", "plan", WORKSPACE, "minute")
    await visit(looking, "Work pools")
    # Each of four attempts counts for a minute at least.
    used = page.locator("section.hours").get_by_text(re.compile(r"^\s*\d+ min of 1 min used"))
    minutes = int((await used.inner_text()).split()[0])
    assert minutes >= 4
    await visit(looking, "Deployments")
    await page.get_by_role("row", name="flaky").last.get_by_role("button", name="Run", exact=True).click()
    await _started(looking)
    await badge(looking, "AwaitingComputeHours").wait_for()
    why = await page.locator("#cause").inner_text()
    for part in (f"{minutes} min", "1 min", "plan 'minute'", "it is renewed on"):
        assert part in why, why
    await look(looking)
