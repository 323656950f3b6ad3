"""What the demo does, in its order: a daemon, a repository, the client, a pool, a deployment, a run, its end; then nothing is left."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import string
import tempfile
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import anyio

from managedd import observe
from managedd.clock import to_us
from managedd.demo.children import StepFailed, typed
from managedd.demo.choice import choose
from managedd.demo.client import ensure_client
from managedd.demo.daemon_process import DaemonProcess
from managedd.demo.git_server import GitServer, make_repository
from managedd.demo.guest_image import KEEP, GuestImage
from managedd.demo.screen import Screen
from managedd.demo.stage import ADVICE, DEPLOYMENT, Stage
from managedd.errors import ErrorCode, ManagedError
from managedd.model import metering

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import TaskStatus

    from managedd.config import Settings
    from managedd.demo.choice import Wish
    from managedd.demo.client import Client

POOL: Final = "my-managed-pool"
FLOW: Final = "sales.py"
DEPLOY: Final = "deploy.py"
RUN_SECONDS: Final = 900.0
END_SECONDS: Final = 90.0
LOG_LINES: Final = 3
PLACE_MAX_BYTES: Final = 70
"""A unix socket's path has room for about 100."""
TERMINATED: Final = 143
RUN_ADVICE: Final = f"{ADVICE}; `managedd doctor` tries on this host what a run needs"
_UUID: Final = re.compile(r"UUID: ([0-9a-f-]{36})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the caller wants of the demo."""

    driver: Wish
    settings: Settings
    config: Path | None
    cache: Path | None
    """Where the client stays for the next time; None: it goes with everything else."""
    keep: bool
    """Go on until told to stop, once the story is told."""
    keep_image: bool
    """An image that had to be pulled stays for the next time."""


async def tell(wishes: Wishes) -> None:
    """The story was told and nothing of it is left. Raises ManagedError with what failed, KeyboardInterrupt or SystemExit when told to stop."""
    # What drivers log is the daemon's business; here it would stand among what is shown.
    observe.configure("error", "console")
    screen = Screen()
    failure: Exception | None = None
    told: list[signal.Signals] = []
    async with anyio.create_task_group() as tasks:
        scope = anyio.CancelScope()
        await tasks.start(_listen_for_signals, scope, told, screen)
        tasks.start_soon(screen.run)
        with scope:
            try:
                await _tell(screen, wishes)
            except Exception as error:
                failure = error
        tasks.cancel_scope.cancel()
    if told:
        raise KeyboardInterrupt if told[0] == signal.SIGINT else SystemExit(TERMINATED)
    if failure is not None:
        raise failure


async def _listen_for_signals(
    scope: anyio.CancelScope, told: list[signal.Signals], screen: Screen, *, task_status: TaskStatus[None]
) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        task_status.started()
        async for received in signals:
            with contextlib.suppress(OSError):
                screen.comment("Told to stop: removing what was made …" if not told else "Still removing …")
            told.append(received)
            scope.cancel()


async def _tell(screen: Screen, wishes: Wishes) -> None:
    if shutil.which("git") is None:
        raise ManagedError(
            ErrorCode.INTERNAL,
            "git is missing.\nWhat to do: install the package git (Debian, Ubuntu: apt-get install git)",
        )
    left: list[str] = []
    image = GuestImage(wishes.settings)
    async with _folder(screen, left) as folder, _image_as_before(screen, image, wishes, left):
        screen.title("What runs run in")
        choice = await choose(screen, wishes.driver, wishes.settings, image)
        screen.comment(f"{'Docker' if choice.driver == 'docker' else 'The process driver'}: {choice.why}.")
        if image.is_ours and not wishes.keep_image:
            screen.comment(f"It goes at the end, as it was not there before; {KEEP} keeps it for the next time.")

        caches = wishes.cache or folder / "cache"
        daemon = DaemonProcess(wishes.settings, folder, choice.driver, wishes.config)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(_shielded, daemon, screen, left)
            screen.title("The daemon, on a free port and with a temporary data directory")
            screen.command(typed("managedd", *daemon.arguments))
            with screen.waiting("Starting the daemon"):
                await daemon.start(caches)
            status = await daemon.status()
            engine = status["engine"]
            screen.comment(f"Clients reach it at {daemon.url}, runs at {engine['runs_api_url']}.")
            if choice.driver == "docker":
                screen.comment(f"Its containers and network carry the label managedd.instance={status['instance_id']}.")

            screen.title("The Prefect client as everybody has it, in a virtual environment of its own")
            client = await ensure_client(screen, (wishes.cache or folder) / "client", caches)
            stage = await stack.enter_async_context(_stage(screen, wishes, folder, daemon, client, engine))
            try:
                await _act(stage)
            except StepFailed as failure:
                if not wishes.keep:
                    raise
                screen.title("This failed:")
                screen.comment(failure.message)
            if wishes.keep:
                await stage.go_on()
        screen.title("The end")
    _sum_up_the_end(screen, left, wishes.cache)


def _sum_up_the_end(screen: Screen, left: list[str], cache: Path | None) -> None:
    """What is left was told. Raises ManagedError when that should not be there."""
    if left:
        raise ManagedError(
            ErrorCode.INTERNAL,
            f"All was shown, but not all could be removed.\nWhat to do: look for it and remove it by hand: {'; '.join(left)}",
        )
    if cache is not None:
        screen.comment(
            f"The daemon, what its runs made and all files are removed; what was downloaded stays in {cache}."
        )
    else:
        screen.comment("Nothing is left behind: the daemon, what its runs made and all files are removed.")


async def _shielded(daemon: DaemonProcess, screen: Screen, left: list[str]) -> None:
    with anyio.CancelScope(shield=True), screen.waiting("Stopping the daemon and removing what its runs left"):
        left += await daemon.remove(screen)


@contextlib.asynccontextmanager
async def _image_as_before(screen: Screen, image: GuestImage, wishes: Wishes, left: list[str]) -> AsyncIterator[None]:
    """After the block the engine has the image if it had it before."""
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            left += await image.leave(screen, keep=wishes.keep_image)


@contextlib.asynccontextmanager
async def _folder(screen: Screen, left: list[str]) -> AsyncIterator[Path]:
    """A folder that is gone after the block, or in `left`."""
    folder = Path(tempfile.mkdtemp(prefix="managedd-demo-", dir=_place()))
    try:
        yield folder
    finally:
        with anyio.CancelScope(shield=True), screen.waiting("Removing the files"):
            await anyio.to_thread.run_sync(lambda: shutil.rmtree(folder, ignore_errors=True))
        if await anyio.Path(folder).exists():
            screen.comment(f"{folder} could not be removed, do so by hand")
            left.append(str(folder))


def _place() -> str:
    """Where folders for a time are made; where their names are too long for the daemon's socket, where they are short."""
    place = tempfile.gettempdir()
    return place if len(os.fsencode(place)) < PLACE_MAX_BYTES else "/tmp"  # noqa: S108 (mkdtemp's name can't be guessed)


@contextlib.asynccontextmanager
async def _stage(
    screen: Screen, wishes: Wishes, folder: Path, daemon: DaemonProcess, client: Client, engine: dict[str, Any]
) -> AsyncIterator[Stage]:
    """The repository is served where host and runs reach it, until the block ends."""
    screen.title("A git repository with a flow, served where this host and the runs reach it")
    repository = folder / "repository"
    flow = _resource(FLOW)
    await make_repository(repository, {FLOW: flow})
    reached = str(urlsplit(engine["runs_api_url"]).hostname)
    listens = wishes.settings.runs.listen_host or reached
    server = GitServer(repository, "demo")
    async with server.serving(listens, reached, wishes.settings.server) as source:
        stage = Stage(screen, wishes.config, folder, daemon, client, source)
        stage.show_file(FLOW, flow)
        screen.comment(f"To clone from {source}")
        yield stage


async def _act(stage: Stage) -> None:
    """What a person types, from the first command to the end of the run."""
    screen = stage.screen
    screen.title("A work pool")
    await stage.prefect("config", "set", f"PREFECT_API_URL={stage.daemon.url}")
    await stage.prefect("work-pool", "create", POOL, "--type", "prefect:managed")
    await stage.prefect("work-pool", "ls")

    screen.title("A deployment of the flow, with a package of its own and a schedule")
    stage.show_file(DEPLOY, string.Template(_resource(DEPLOY)).substitute(source=stage.source))
    await stage.python(DEPLOY)

    screen.title("A run of it, watched")
    try:
        watched = await stage.prefect(
            "deployment", "run", DEPLOYMENT, "--watch", seconds=RUN_SECONDS, advice=RUN_ADVICE
        )
    except StepFailed:
        with contextlib.suppress(StepFailed):
            await stage.managedd("status")
        for line in stage.daemon.told():
            screen.comment(f"daemon: {line}")
        raise
    run_id = next((found[1] for line in watched.lines if (found := _UUID.search(line))), None)
    if run_id is None:
        raise StepFailed("The client did not name the run", (), "try again with another release of the client")
    await _sum_up(stage, run_id)
    screen.title("What the run has published")
    await stage.prefect("artifact", "inspect", "sales", "--limit", "1")

    screen.title("What the operator sees")
    await stage.managedd("status")
    await stage.managedd("logs", run_id, "--lines", str(LOG_LINES))


async def _sum_up(stage: Stage, run_id: str) -> None:
    """The final state, the attempts of the tasks and the minutes used were told. Raises StepFailed when the run did not complete."""
    run = await stage.daemon.get(f"/flow_runs/{run_id}")
    executions = await _ended_executions(stage, run_id)
    spans = [_span_us(each) for each in executions if each["started_at"]]
    seconds = sum(ended - began for began, ended in spans) / 1_000_000
    minutes = sum(metering.minutes(began, ended) for began, ended in spans)
    stage.screen.comment(
        f"Final state: {run['state_name']}. Compute time: {seconds:.1f} s, which counts as {minutes} minute{'' if minutes == 1 else 's'} "
        f"of the plan; peak memory: {_peak(executions)}."
    )
    if run["state_type"] != "COMPLETED":
        raise StepFailed(
            f"The run ended as {run['state_name']}: {(run['state'] or {}).get('message')}", (), "read its log above"
        )


async def _ended_executions(stage: Stage, run_id: str) -> list[dict[str, Any]]:
    """The attempts to run it. The client has seen the run's last state, and its process needs a moment more to end."""
    deadline = anyio.current_time() + END_SECONDS
    with stage.screen.waiting("Waiting for the run's process to end"):
        while True:
            found: list[dict[str, Any]] = await stage.daemon.get(f"/managed/flow_runs/{run_id}/executions")
            if found and all(each["finalized_at"] or each["phase"] == "LOST" for each in found):
                return found
            if anyio.current_time() > deadline:
                raise StepFailed("The run has ended, and its process has not", stage.daemon.told(), ADVICE)
            await anyio.sleep(0.1)


def _span_us(execution: dict[str, Any]) -> tuple[int, int]:
    """When it was started and when it ended."""
    began = to_us(datetime.fromisoformat(execution["started_at"]))
    return began, to_us(datetime.fromisoformat(execution["exited_at"])) if execution["exited_at"] else began


def _peak(executions: list[dict[str, Any]]) -> str:
    peak = max((each["peak_memory_bytes"] or 0 for each in executions), default=0)
    return f"{peak / 1024**2:.0f} MiB" if peak else "not measured"


def _resource(name: str) -> str:
    # As text files: they are no modules of this package.
    return resources.files("managedd.demo").joinpath("files", f"{name}.txt").read_text(encoding="utf-8")
