"""A folder of migrations, and databases over it that are closed at the end."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from managedd.bus import Bus
from managedd.store.database import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SCHEMA = """
CREATE TABLE parent (id INTEGER PRIMARY KEY) STRICT;
CREATE TABLE item (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    amount INTEGER CONSTRAINT positive CHECK (amount >= 0),
    parent_id INTEGER REFERENCES parent (id)
) STRICT;
"""


class Open(Protocol):
    """Opens the database `name` of this test."""

    async def __call__(self, name: str = "x.db", *, bus: Bus | None = None, **options: Any) -> Database: ...


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "0001_init.sql").write_text(SCHEMA)
    return folder


@pytest.fixture
async def opened(anyio_backend: str, tmp_path: Path, migrations: Path) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        async def opener(name: str = "x.db", *, bus: Bus | None = None, **options: Any) -> Database:
            database = await Database.open(tmp_path / name, bus=bus or Bus(), migrations=migrations, **options)
            stack.push_async_callback(database.close)
            return database

        yield opener


@pytest.fixture
async def db(opened: Open) -> Database:
    return await opened()
