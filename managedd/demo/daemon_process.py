"""The demo's daemon: a process with a temporary data directory, and what it tells of itself."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio

from managedd.demo.children import StepFailed, end, outside_environment, own_command, start, unproxied
from managedd.drivers.docker_leavings import remove_leavings
from managedd.engine_room import make_driver
from managedd.errors import ErrorCode, ManagedError

if TYPE_CHECKING:
    from pathlib import Path

    from anyio.abc import Process

    from managedd.config import Settings
    from managedd.demo.screen import Screen

START_SECONDS = 60.0
ENGINE_SECONDS = 30.0
STOP_SECONDS = 30.0
ANSWER_SECONDS = 30.0
POLL_SECONDS = 0.05
TOLD_EVENTS = 12
TOLD_CHARACTERS = 400
LOOPBACK = "127.0.0.1"


class DaemonProcess:
    """One daemon, from its start to nothing of it being left."""

    def __init__(self, settings: Settings, folder: Path, driver: str, config: Path | None) -> None:
        self._folder = folder
        self._driver = driver
        self.data_dir = folder / "data"
        self._settings = of_its_own(settings, self.data_dir, driver)
        self.auth_string = f"demo:{secrets.token_urlsafe(24)}"
        """Nobody else on this host may start runs, which can be processes of root's."""
        self._log = folder / "daemon.log"
        self.arguments = ["serve", *(("--config", str(config)) if config else ()), "--data-dir", str(self.data_dir)]
        self.arguments += ["--host", LOOPBACK, "--port", "0", "--driver", driver]
        self._process: Process | None = None
        self.url = ""

    async def start(self, caches: Path) -> None:
        """It is ready, and runs can start. Raises StepFailed with the end of its log."""
        own = {name.upper(): value for name, value in os.environ.items() if name.upper().startswith("MANAGEDD_")}
        # A wish of the host's settings would keep the demo from a port of its own, or its client out.
        own |= {
            "MANAGEDD_SERVER__AUTH_STRING": self.auth_string,
            "MANAGEDD_LOG__FORMAT": "json",
            "MANAGEDD_LOG__LEVEL": "info",
            # The repository that runs clone is served by this host, at a port that nobody knows yet.
            "MANAGEDD_DOCKER__HOST_ALLOW": '["*"]',
        }
        if self._settings.runs.api_url is None:
            own["MANAGEDD_RUNS__LISTEN_PORT"] = "0"
        if self._settings.process.env_dir is None:
            own["MANAGEDD_PROCESS__ENV_DIR"] = str(caches / "environments")
        environment = outside_environment(**own, **unproxied(LOOPBACK), UV_CACHE_DIR=str(caches / "uv"))
        with self._log.open("wb") as log:
            self._process = await start(own_command(*self.arguments), environment, self._folder, log.fileno())
        ready = await self._wait_for("daemon.ready", START_SECONDS)
        self.url = str(ready["url"])
        deadline = anyio.current_time() + ENGINE_SECONDS
        while (problem := (await self.status())["engine"]["problem"]) is not None:
            if anyio.current_time() > deadline:
                raise StepFailed(
                    f"The daemon runs, but no run can start: {problem}",
                    self.told(),
                    "mend that, or try another --driver",
                )
            await anyio.sleep(POLL_SECONDS)

    async def _wait_for(self, event: str, seconds: float) -> dict[str, Any]:
        assert self._process is not None
        deadline = anyio.current_time() + seconds
        while True:
            found = next((each for each in self._events() if each["event"] == event), None)
            if found is not None:
                return found
            if self._process.returncode is not None:
                raise StepFailed(
                    f"The daemon ended at its start with exit code {self._process.returncode}",
                    self.told(),
                    "mend what it says; `managedd check-config` shows the settings in force",
                )
            if anyio.current_time() > deadline:
                raise StepFailed(f"The daemon is not ready after {seconds:.0f} s", self.told(), "look at what it says")
            await anyio.sleep(POLL_SECONDS)

    async def status(self) -> dict[str, Any]:
        """What `managedd status --json` says. Raises StepFailed."""
        found: dict[str, Any] = await self.get("/managed/status")
        return found

    async def get(self, path: str) -> Any:
        """The answer of a GET below the API's address. Raises StepFailed."""
        timeout, auth = aiohttp.ClientTimeout(total=ANSWER_SECONDS), aiohttp.BasicAuth(*self.auth_string.split(":"))
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, auth=auth) as session,
                session.get(self.url + path) as response,
            ):
                response.raise_for_status()
                return await response.json()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise StepFailed(
                f"The daemon does not answer: {error or type(error).__name__}", self.told(), "look at what it says"
            ) from error

    async def ended(self) -> None:
        """It has ended by itself."""
        if self._process is not None:
            await self._process.wait()

    async def remove(self, screen: Screen) -> list[str]:
        """It has ended, and nothing of its runs is left but what is returned, which was told. Nothing is raised."""
        if self._process is None:
            return []
        await end(self._process, STOP_SECONDS)
        await self._process.aclose()
        # It is in the log before anything was made for a run.
        listening = next((each for each in self._events() if each["event"] == "daemon.listening"), {})
        instance_id = listening.get("instance_id")
        if instance_id is None:
            return []
        try:
            if self._driver == "docker":
                await remove_leavings(str(instance_id), url=self._settings.docker.host)
            else:
                await _end_runs(self._settings, str(instance_id))
        except ManagedError as error:
            by_hand = (
                f"docker ps -a and docker network ls, each with --filter label=managedd.instance={instance_id}"
                if self._driver == "docker"
                else f"the processes that have their files in {self.data_dir}"
            )
            screen.comment(f"Could not be removed: {error.message}. By hand: {by_hand}")
            return [by_hand]
        return []

    def told(self) -> list[str]:
        """The end of its log, for people."""
        return [_told(each) for each in self._events()[-TOLD_EVENTS:]]

    def _events(self) -> list[dict[str, Any]]:
        found = []
        with contextlib.suppress(FileNotFoundError):
            for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:
                    entry = None
                found.append(entry if isinstance(entry, dict) and "event" in entry else {"event": line})
        return found


def of_its_own(settings: Settings, data_dir: Path, driver: str) -> Settings:
    """The settings with which what the demo's daemon has left is found."""
    return settings.model_copy(
        update={
            "store": settings.store.model_copy(update={"data_dir": data_dir}),
            "server": settings.server.model_copy(update={"host": LOOPBACK, "port": 0, "auth_string": None}),
            "runs": settings.runs.model_copy(update={"driver": driver}),
            # What it has refused to start can still be looked for.
            "process": settings.process.model_copy(update={"trusted": True}),
        }
    )


async def _end_runs(settings: Settings, instance_id: str) -> None:
    """No process of a run is left, of a daemon that has ended: such runs outlive it. Raises ManagedError with all that could not be removed."""
    failures: list[str] = []
    driver = make_driver(settings, instance_id, workspaces=1, last=None)
    await driver.open()
    try:
        for found in await driver.list_owned(instance_id):
            try:
                await driver.remove(found.handle)
            except ManagedError as error:
                # The others can be removed all the same.
                failures.append(error.message)
    finally:
        await driver.close()
    if failures:
        raise ManagedError(ErrorCode.DRIVER, "; ".join(failures))


def _told(event: dict[str, Any]) -> str:
    facts = {name: value for name, value in event.items() if name not in {"event", "level", "timestamp"}}
    # Of a traceback, what it ends with.
    shown = " ".join(f"{name}={_last_line(value)}" for name, value in facts.items())
    return " ".join(filter(None, (str(event.get("level", "")), str(event["event"]), shown)))[:TOLD_CHARACTERS]


def _last_line(value: object) -> str:
    return (str(value).strip().splitlines() or [""])[-1]
