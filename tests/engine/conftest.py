"""Fixtures of the engine's tests: real stores, manual or real clocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from managedd.bus import Bus
from managedd.store.cipher import Key, KeyRing
from managedd.store.database import Database
from managedd.store.workspaces import ensure_default
from tests.engine.house import House
from tests.engine.world import World, open_world
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def house(anyio_backend: str, tmp_path: Path) -> AsyncIterator[House]:
    bus, clock = Bus(), ManualClock()
    db = await Database.open(tmp_path / "state.db", bus=bus, clock=clock, migrations="managedd.store.migrations.state")
    db.vault.take(KeyRing(Key.new()))
    try:
        await db.write(lambda tx: ensure_default(tx, plan="pro"))
        yield House(db=db, bus=bus, clock=clock)
    finally:
        await db.close()


@pytest.fixture
async def world(anyio_backend: str, tmp_path: Path) -> AsyncIterator[World]:
    """A store, a fake engine, and nothing that runs yet."""
    async with open_world(tmp_path) as made:
        yield made


@pytest.fixture
async def still(anyio_backend: str, tmp_path: Path) -> AsyncIterator[World]:
    """A world in which no time passes by itself."""
    async with open_world(tmp_path, ManualClock()) as made:
        yield made
