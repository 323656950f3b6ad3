"""The way in to the pages: what makes them is loaded by whoever comes first, once, while others are answered."""

from __future__ import annotations

from importlib import import_module
from threading import Event
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from aiohttp.test_utils import TestClient, TestServer

from managedd.api.app import Api
from managedd.api.auth import Listener
from managedd.ui import entry

if TYPE_CHECKING:
    from managedd.api.context import Services

pytestmark = pytest.mark.anyio


async def test_who_comes_first_waits_for_what_makes_pages_and_keeps_nobody_from_the_api(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_load, asked = Event(), []

    def slowly(name: str) -> Any:
        asked.append(name)
        assert may_load.wait(30)
        return import_module(name)

    monkeypatch.setattr(entry, "import_module", slowly)
    api = Api(services, Listener.CLIENTS)
    seen: list[int] = []
    async with TestClient(TestServer(api.application(entry.Entry(services, api)))) as http:

        async def look() -> None:
            async with http.get("/runs") as answer:
                seen.append(answer.status)

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(look)
            async with http.get("/api/health") as answer:
                assert answer.status == 200
            assert seen == []
            may_load.set()
        assert seen == [200, 200, 200]
    assert asked == ["managedd.ui.page", "managedd.ui.site"]
