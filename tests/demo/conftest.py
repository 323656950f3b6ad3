"""What the demo's tests share."""

from __future__ import annotations

import pytest

from managedd.demo.screen import Screen


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def screen() -> Screen:
    return Screen()
