"""The tutorial in a browser: from an empty store over a live daemon, real containers and the real client, to what a plan refuses."""

from __future__ import annotations

import contextlib
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from anyio import to_thread
from playwright.async_api import expect

from tests.support.api_keys import bearer
from tests.support.daemon import LiveDaemon
from tests.support.git_server import GitServer
from tests.support.http import Api
from tests.support.prefect_user import PrefectUser, somebody
from tests.support.terminal import Terminal, opener
from tests.ui.tutorial import (
    FLOWS,
    NAME,
    WORKSPACE,
    Host,
    answer_a_run,
    cancel_a_run,
    deploy,
    edit_pool,
    look,
    make_pool,
    mark_page,
    retry_a_run,
    sign_in,
    visit,
    wait_for_hours,
    was_never_loaded_anew,
    watch_a_run,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.provision import Provisioned
    from tests.ui.looking import Looking

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.browser,
    pytest.mark.docker,
    pytest.mark.client,
    pytest.mark.slow,
    pytest.mark.timeout(400),
]

LOGIN = """
import sys
from fastapi import FastAPI
from prefect.cli import app

# The client keeps there what the page tells it; newer releases of FastAPI than the client knows have it no more.
FastAPI.extra = {}
sys.argv[1:] = ["cloud", "login"]
app()
"""


@pytest.fixture(scope="module")
def host(docker_engine: Provisioned, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """An empty store, a key of its only workspace, and flows in a repository that containers reach."""
    folder = tmp_path_factory.mktemp("tutorial")
    daemon = LiveDaemon(
        folder / "daemon",
        docker_host=docker_engine.docker_host,
        settings={
            "server": {"auth_string": "operator:of this host"},
            "runs": {"listen_port": 0, "cancel_grace_seconds": 15.0, "stop_grace_seconds": 3.0},
            "docker": {"host_allow": ["*"]},
            "plans.minute": {"compute_hours": 1 / 60},
        },
    )
    with contextlib.ExitStack() as until_the_end:
        until_the_end.callback(daemon.close)
        daemon.start()
        git = until_the_end.enter_context(GitServer(folder / "git", daemon.gateway).serving())
        made = daemon.operator("key", "create", "--workspace", WORKSPACE, "--name", "me", "--role", "admin")
        yield Host(
            daemon=daemon,
            url=daemon.url.removesuffix("/api"),
            key=made["key"],
            flows=git.repository("flows", {"flows.py": FLOWS}),
        )
        assert daemon.complaints() == []


async def test_the_tutorial_from_an_empty_store_to_a_plan_that_is_used_up(
    host: Host, looking: Looking, prefect_venv: Provisioned, tmp_path: Path
) -> None:
    page = looking.page
    looking.expected.append("status of 422")
    user = PrefectUser(prefect_venv, host.daemon.url, tmp_path, PREFECT_API_AUTH_STRING=host.key)
    await page.goto(f"{host.url}/")
    await sign_in(looking, host.key)
    await make_pool(looking)

    await visit(looking, "Deployments")
    await page.get_by_text("No deployments yet").wait_for()
    await mark_page(looking)
    await to_thread.run_sync(deploy, host, user)
    mine = page.get_by_role("table", name="Deployments").get_by_role("link", name=NAME).first
    await mine.wait_for()
    assert await was_never_loaded_anew(looking)
    await look(looking)

    await visit(looking, "Work pools")
    await edit_pool(looking)
    await visit(looking, "Deployments")
    await mine.click()
    await page.get_by_role("heading", name=NAME, level=1).wait_for()
    await look(looking)
    deployment = page.url
    await watch_a_run(looking, host)
    await visit(looking, "Work pools")
    await expect(page.locator("section.hours")).to_contain_text("min of 250 h used")

    await looking.go(deployment)
    run = await answer_a_run(looking)
    await cancel_a_run(looking, host, run)
    await visit(looking, "Deployments")
    await retry_a_run(looking)
    await wait_for_hours(looking, host)

    await page.get_by_role("button", name="Sign out").click()
    await page.get_by_role("heading", name="Sign in to managedd").wait_for()
    assert await looking.context.cookies() == []
    await page.goto(deployment)
    await sign_in(looking, host.key)
    assert page.url == deployment
    await page.get_by_role("heading", name=NAME, level=1).wait_for()


async def test_the_command_that_logs_in_is_answered_by_the_page_that_it_opens(
    host: Host, looking: Looking, prefect_venv: Provisioned, tmp_path: Path
) -> None:
    person = somebody(prefect_venv, host.daemon.url, tmp_path / "person", PREFECT_CLOUD_UI_URL=host.url, TERM="xterm")
    program, told = opener(tmp_path)
    assert prefect_venv.prefect_python is not None
    terminal = Terminal([prefect_venv.prefect_python, "-c", LOGIN], {**person.environment, "BROWSER": str(program)})
    try:
        await terminal.hears("Log in with a web browser")
        await terminal.type("\r")
        await terminal.hears("Waiting for response")
        await looking.page.goto(told.read_text().strip())
        await sign_in(looking, host.key)
        await look(looking)
        await looking.page.get_by_role("button", name="Make a key and hand it over").click()
        await looking.page.get_by_text("the command has its key").wait_for()
        await terminal.hears(f"Using workspace '{WORKSPACE}'")
        assert await to_thread.run_sync(terminal.process.wait, 30) == 0
    finally:
        terminal.close()
    kept: dict[str, Any] = tomllib.loads((person.folder / "prefect-home" / "profiles.toml").read_text())
    profile = kept["profiles"][kept["active"]]
    assert profile["PREFECT_API_KEY"] != host.key
    mine = Api(host.daemon.url, headers=bearer(profile["PREFECT_API_KEY"])).get("/me/workspaces")
    assert [f"{each['account_handle']}/{each['workspace_handle']}" for each in mine] == [WORKSPACE]
