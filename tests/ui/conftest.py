"""The pages of an in-process daemon over a real store, and a browser to look at them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from playwright.async_api import async_playwright
from pydantic import SecretStr

from managedd.api.app import Api
from managedd.api.auth import Listener
from managedd.ui.site import Site
from tests.api.conftest import ApiClient, anyio_backend, services
from tests.ui.looking import Looking

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser

    from managedd.api.context import Services

__all__ = ["anyio_backend", "services"]


@dataclass
class Pages:
    """The daemon's pages and API under one address."""

    url: str
    http: TestClient[Any, Any]
    api: ApiClient
    services: Services


@asynccontextmanager
async def serving(services: Services, *, port: int | None = None) -> AsyncIterator[Pages]:
    """The clients' listener over these services, as long as the block lasts."""
    api = Api(services, Listener.CLIENTS)
    server = TestServer(api.application(Site(services, api)), port=port)
    async with TestClient(server) as http:
        yield Pages(
            url=str(server.make_url("/")).rstrip("/"),
            http=http,
            api=ApiClient(http=http, services=services),
            services=services,
        )
        await services.sockets.close_all()


@pytest.fixture
async def site(services: Services) -> AsyncIterator[Pages]:
    """Pages that nobody needs a key for."""
    async with serving(services) as pages:
        yield pages


@pytest.fixture
async def closed_site(services: Services) -> AsyncIterator[Pages]:
    """Pages of a daemon that has the auth string `admin:secret`, seen without a credential."""
    server = services.settings.server.model_copy(update={"auth_string": SecretStr("admin:secret")})
    services.settings = services.settings.model_copy(update={"server": server})
    async with serving(services) as pages:
        yield pages


@pytest.fixture
async def browser(chromium: str) -> AsyncIterator[Browser]:
    """A Chromium without a window."""
    async with async_playwright() as playwright:
        # Its own sandbox needs rights that root in a container does not have.
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest.fixture
async def looking(browser: Browser) -> AsyncIterator[Looking]:
    """A person's window; at the end nothing was wrong in its console, and no script of a stranger has run."""
    async with Looking.opened(browser) as window:
        yield window
        window.check()


async def not_found(_: web.Request) -> web.Response:
    """For what is beside a path prefix."""
    return web.Response(status=404, text="nothing here")
