"""The demo's end: what is left is told, and is a failure when it should not be there."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from managedd.config import Settings
from managedd.demo import daemon_process, story
from managedd.demo.choice import Choice
from managedd.demo.daemon_process import _end_runs
from managedd.demo.story import Wishes, tell
from managedd.drivers.fake import FakeDriver, FakeEngine
from managedd.errors import ErrorCode, ManagedError
from managedd.model.drivers import RunSpec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from managedd.demo.screen import Screen
    from managedd.model.drivers import Handle

pytestmark = pytest.mark.anyio


class Told:
    """A daemon that was started and leaves something."""

    arguments = ("serve",)
    url = "http://127.0.0.1:4200/api"
    leaves: tuple[str, ...] = ()

    def __init__(self, *_: object) -> None: ...

    async def start(self, caches: Path) -> None: ...

    async def status(self) -> dict[str, Any]:
        return {"instance_id": "me", "engine": {"runs_api_url": self.url}}

    async def remove(self, screen: Screen) -> list[str]:
        return list(self.leaves)


@pytest.fixture
def wishes(monkeypatch: pytest.MonkeyPatch) -> Wishes:
    """A story of which only the beginning and the end are told."""

    async def choose(*_: object) -> Choice:
        return Choice(driver="process", why="as wished")

    async def nothing(*_: object) -> None: ...

    @contextlib.asynccontextmanager
    async def stage(*_: object) -> AsyncIterator[None]:
        yield

    monkeypatch.setattr(story, "DaemonProcess", Told)
    monkeypatch.setattr(story, "choose", choose)
    monkeypatch.setattr(story, "ensure_client", nothing)
    monkeypatch.setattr(story, "_stage", stage)
    monkeypatch.setattr(story, "_act", nothing)
    return Wishes(driver="process", settings=Settings(), config=None, cache=None, keep=False, keep_image=False)


async def test_nothing_is_left(wishes: Wishes, capsys: pytest.CaptureFixture[str]) -> None:
    await tell(wishes)
    assert "# Nothing is left behind" in capsys.readouterr().out


async def test_what_a_run_has_left_is_a_failure(
    wishes: Wishes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Told, "leaves", ("the processes below /somewhere",))
    with pytest.raises(ManagedError, match="by hand: the processes below /somewhere"):
        await tell(wishes)
    assert "Nothing is left" not in capsys.readouterr().out


async def test_files_that_stay_are_a_failure(
    wishes: Wishes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(story, "_place", lambda: str(tmp_path))
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    with pytest.raises(ManagedError, match=r"by hand: .*managedd-demo-"):
        await tell(wishes)
    assert "Nothing is left" not in capsys.readouterr().out


async def test_a_cache_that_stays_is_named(wishes: Wishes, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    await tell(
        Wishes(
            driver="process",
            settings=wishes.settings,
            config=None,
            cache=tmp_path / "cache",
            keep=False,
            keep_image=False,
        )
    )
    said = capsys.readouterr().out
    assert f"stays in {tmp_path / 'cache'}" in said
    assert "Nothing is left" not in said


async def test_a_run_that_can_t_be_removed_keeps_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sticky(FakeDriver):
        async def remove(self, handle: Handle) -> None:
            if handle == stuck:
                raise ManagedError(ErrorCode.DRIVER, "it does not go away")
            await super().remove(handle)

    driver = Sticky(FakeEngine())
    specs = [
        RunSpec(execution_id=name, flow_run_id=name, instance_id="me", image="prefecthq/prefect:3-latest")
        for name in ("one", "two", "three")
    ]
    handles = [await driver.create(spec) for spec in specs]
    stuck = handles[0]
    monkeypatch.setattr(daemon_process, "make_driver", lambda *_, **__: driver)
    with pytest.raises(ManagedError, match="it does not go away"):
        await _end_runs(Settings(), "me")
    assert [found.handle for found in await driver.list_owned("me")] == [stuck]
