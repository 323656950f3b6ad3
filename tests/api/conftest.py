"""An in-process API over a real store in a temporary directory."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr

from managedd import ids
from managedd.api.app import Api
from managedd.api.auth import Listener
from managedd.api.context import Services
from managedd.bus import Bus
from managedd.clock import SystemClock
from managedd.config import Settings, StoreSection
from managedd.orchestration import lifecycle
from managedd.store import plans
from managedd.store.cipher import Key, KeyRing
from managedd.store.database import Database
from managedd.store.workspaces import ensure_default

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from managedd.clock import Clock


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class ApiClient:
    """Calls the API as a client does; answers are (status, parsed body)."""

    http: TestClient[Any, Any]
    services: Services
    prefix: str = "/api"

    async def call(self, method: str, path: str, json: Any = None, **options: Any) -> tuple[int, Any]:
        response = await self.http.request(method, self.prefix + path, json=json, **options)
        text = await response.text()
        if not text:
            return response.status, None
        return response.status, await response.json()

    async def get(self, path: str, **options: Any) -> tuple[int, Any]:
        return await self.call("GET", path, **options)

    async def post(self, path: str, json: Any = None, **options: Any) -> tuple[int, Any]:
        return await self.call("POST", path, json, **options)

    async def patch(self, path: str, json: Any = None, **options: Any) -> tuple[int, Any]:
        return await self.call("PATCH", path, json, **options)

    async def delete(self, path: str, **options: Any) -> tuple[int, Any]:
        return await self.call("DELETE", path, **options)


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    async with services_in(tmp_path, SystemClock()) as made:
        yield made


@asynccontextmanager
async def services_in(folder: Path, clock: Clock) -> AsyncIterator[Services]:
    """What the API works with over a new store in the folder, as long as the block lasts."""
    bus = Bus()
    db = await Database.open(
        folder / "state.db", bus=bus, clock=clock, migrations="managedd.store.migrations.state", finish=lifecycle.tell
    )
    db.vault.take(KeyRing(Key.new()))
    logs = await Database.open(
        folder / "logs.db", bus=bus, clock=clock, migrations="managedd.store.migrations.logs", synchronous="NORMAL"
    )
    settings = Settings(store=StoreSection(data_dir=folder))
    await db.write(lambda tx: plans.replace(tx, settings.all_plans()))
    await db.write(lambda tx: ensure_default(tx, plan=settings.default_plan))
    made = Services(
        settings=settings,
        db=db,
        logs=logs,
        bus=bus,
        clock=clock,
        zone=UTC,
        ready=True,
    )
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(made.windows.run)
            tasks.start_soon(made.keys.run)
            tasks.start_soon(made.event_news.run)
            tasks.start_soon(made.log_news.run)
            yield made
            tasks.cancel_scope.cancel()
    finally:
        await logs.close()
        await db.close()


@pytest.fixture
async def api(services: Services) -> AsyncIterator[ApiClient]:
    application = Api(services, Listener.CLIENTS).application()
    async with TestClient(TestServer(application)) as http:
        yield ApiClient(http=http, services=services)


@pytest.fixture
async def closed(services: Services) -> AsyncIterator[ApiClient]:
    """The API of a daemon that has an auth string, without a credential."""
    server = services.settings.server.model_copy(update={"auth_string": SecretStr("admin:secret")})
    services.settings = services.settings.model_copy(update={"server": server})
    application = Api(services, Listener.CLIENTS).application()
    async with TestClient(TestServer(application)) as http:
        yield ApiClient(http=http, services=services)


@pytest.fixture
async def other(services: Services, api: ApiClient) -> ApiClient:
    """The same API, seen from another workspace."""
    account, workspace = ids.new_id(), ids.new_id()
    from managedd.store.workspaces import create

    await services.db.write(
        lambda tx: create(tx, account_id=account, account="other", workspace_id=workspace, handle="w", plan="pro")
    )
    return ApiClient(http=api.http, services=services, prefix=f"/api/accounts/{account}/workspaces/{workspace}")
