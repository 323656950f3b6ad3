"""What the demo does when a step fails: it says so in words, and nothing of the step goes on."""

from __future__ import annotations

import io
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from managedd.config import Settings, load
from managedd.demo import client as client_module
from managedd.demo.children import Step, StepFailed, outside_environment, own_command, perform, run
from managedd.demo.choice import choose
from managedd.demo.client import ensure_client
from managedd.demo.daemon_process import DaemonProcess
from managedd.demo.guest_image import GuestImage
from managedd.demo.story import DEPLOY, FLOW, _resource
from managedd.errors import ManagedError

if TYPE_CHECKING:
    from managedd.demo.screen import Screen

pytestmark = pytest.mark.anyio


def step(folder: Path, program: str, *, seconds: float = 30.0, **environment: str) -> Step:
    return Step(
        shown="python step.py",
        command=[sys.executable, "-c", program],
        environment=outside_environment(**environment),
        folder=folder,
        advice="mend it",
        seconds=seconds,
    )


async def test_a_command_is_shown_with_its_output(
    screen: Screen, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = "import sys; print('one'); print('two', file=sys.stderr); print('thrown away\\rthree', end='')"
    ended = await perform(screen, step(tmp_path, program, PYTHONUNBUFFERED="1"))
    assert list(ended.lines) == ["one", "two", "three"]
    assert capsys.readouterr().out.splitlines() == ["$ python step.py", "one", "two", "three"]


async def test_a_command_that_fails_is_named_with_what_to_do(screen: Screen, tmp_path: Path) -> None:
    with pytest.raises(StepFailed) as caught:
        await perform(screen, step(tmp_path, "raise SystemExit(7)"))
    assert caught.value.message == "`python step.py` ended with exit code 7\nWhat to do: mend it"


async def test_a_command_that_takes_too_long_ends_with_all_that_it_started(tmp_path: Path) -> None:
    program = (
        "import os, signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        "print(child.pid, flush=True); time.sleep(600)"
    )
    pids: list[int] = []
    with pytest.raises(StepFailed, match="has not ended after"):
        await run(step(tmp_path, program, seconds=2.0), lambda line: pids.append(int(line)))
    deadline = time.monotonic() + 20
    while _lives(pids[0]):
        assert time.monotonic() < deadline, "its child lives on"
        await anyio.sleep(0.05)


def _lives(pid: int) -> bool:
    try:
        # The third field, after the name in brackets: a zombie waits only for whoever adopted it.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_command_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = Step(
        shown="nothing", command=[str(tmp_path / "nothing")], environment={}, folder=tmp_path, advice="install it"
    )
    with pytest.raises(StepFailed, match=r"can't be started: No such file or directory\nWhat to do: install it"):
        await run(missing)


async def test_silence_is_told_to_go_on(screen: Screen, capsys: pytest.CaptureFixture[str]) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(screen.run)
        with screen.waiting("Waiting for rain"):
            await anyio.sleep(1.5)
        with screen.waiting("Waiting for sun"):
            pass
        tasks.cancel_scope.cancel()
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "# Waiting for rain …"
    assert said[1].startswith("# Waiting for rain: done in ")
    assert len(said) == 2


async def test_nobody_who_reads_ends_the_story_and_not_the_line_that_moves(
    screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    with screen.waiting("Waiting for rain", is_command=True):
        screen._wait.quiet_since -= 60  # type: ignore[union-attr]
        with anyio.fail_after(10):
            await screen.run()
        with pytest.raises(BrokenPipeError):
            screen.comment("Does anybody read this?")
    screen.comment("What ends because of it cleans up in silence")


async def test_docker_that_is_wished_for_and_not_there_says_what_to_do(screen: Screen, tmp_path: Path) -> None:
    settings = load(None, {"docker.host": f"unix://{tmp_path}/no-engine.sock"})
    with pytest.raises(ManagedError) as caught:
        await choose(screen, "docker", settings, GuestImage(settings))
    assert "What to do: start Docker" in caught.value.message


async def test_without_an_engine_it_is_processes_and_why_is_told(screen: Screen, tmp_path: Path) -> None:
    settings = load(None, {"docker.host": f"unix://{tmp_path}/no-engine.sock"})
    choice = await choose(screen, "auto", settings, GuestImage(settings))
    assert choice.driver == "process"
    assert "engine" in choice.why


async def test_processes_as_wished_ask_no_engine(screen: Screen) -> None:
    settings = Settings()
    assert (await choose(screen, "process", settings, GuestImage(settings))).driver == "process"


async def test_a_daemon_that_does_not_start_is_quoted(screen: Screen, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    daemon = DaemonProcess(Settings(), tmp_path, "docker", None)
    with pytest.raises(StepFailed) as caught:
        await daemon.start(tmp_path / "caches")
    await daemon.remove(screen)
    assert "ended at its start with exit code 2" in caught.value.message
    assert "store.data_dir" in caught.value.message
    assert "What to do:" in caught.value.message


@pytest.mark.parametrize("is_uv_there", [True, False])
async def test_a_client_that_can_t_be_installed_says_what_to_do(
    screen: Screen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_uv_there: bool
) -> None:
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    for name, value in {
        "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple",
        "UV_HTTP_RETRIES": "0",
        "UV_NO_CONFIG": "1",
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_RETRIES": "0",
        "PIP_CONFIG_FILE": os.devnull,
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    if not is_uv_there:
        monkeypatch.setattr(client_module, "find_uv", lambda: None)
    with pytest.raises(StepFailed, match="What to do: the package index must be reachable") as caught:
        await ensure_client(screen, tmp_path / "client", tmp_path / "caches")
    assert "exit code" in caught.value.message
    assert not (tmp_path / "client" / ".complete").exists()


def test_the_files_that_it_shows_are_python() -> None:
    for name in (FLOW, DEPLOY):
        compile(_resource(name), name, "exec")
    assert "$source" in _resource(DEPLOY)


def test_this_program_starts_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_command("status") == [sys.executable, "-m", "managedd", "status"]
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert own_command("status") == [sys.executable, "status"]
