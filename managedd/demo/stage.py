"""The daemon, the repository and the client as a person has them, who types commands and reads what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from managedd.demo.children import Ended, Step, StepFailed, own_command, perform, typed, unproxied
from managedd.demo.git_server import git_environment

if TYPE_CHECKING:
    from pathlib import Path

    from managedd.demo.client import Client
    from managedd.demo.daemon_process import DaemonProcess
    from managedd.demo.screen import Screen

DEPLOYMENT: Final = "sales/demo"
COMMAND_SECONDS: Final = 180.0
ADVICE: Final = "read what it says above; with --keep everything stays up to be looked at"


class Stage:
    """The daemon, the repository and the client, as the person has them who types the commands."""

    def __init__(
        self, screen: Screen, config: Path | None, folder: Path, daemon: DaemonProcess, client: Client, source: str
    ) -> None:
        self.screen = screen
        self.daemon = daemon
        self._config = config
        self._client = client
        self.source = source
        self.folder = folder / "work"
        self.folder.mkdir()
        scratch = folder / "tmp"
        scratch.mkdir()
        # The home is not the person's own: the client leaves nothing there, and what is in it does not matter.
        home = folder / "home"
        home.mkdir()
        self._environment = git_environment(
            home,
            PATH=f"{client.bin}:{git_environment(home).get('PATH', '')}",
            TMPDIR=str(scratch),
            PREFECT_HOME=str(home / ".prefect"),
            PREFECT_API_AUTH_STRING=daemon.auth_string,
            DO_NOT_TRACK="1",
            PYTHONUNBUFFERED="1",
            PYTHONUTF8="1",
            NO_COLOR="1",
            TERM="dumb",
            COLUMNS=str(screen.columns),
            **unproxied("127.0.0.1", str(urlsplit(source).hostname)),
        )

    async def prefect(self, *arguments: str, seconds: float = COMMAND_SECONDS, advice: str = "") -> Ended:
        """`prefect …` has ended with 0. Raises StepFailed."""
        return await self._perform(
            [str(self._client.prefect), *arguments], typed("prefect", *arguments), seconds, advice
        )

    async def python(self, script: str) -> Ended:
        """`python SCRIPT` has ended with 0. Raises StepFailed."""
        return await self._perform([str(self._client.python), script], typed("python", script), COMMAND_SECONDS, "")

    async def managedd(self, *arguments: str) -> Ended:
        """`managedd …` over the demo's data directory has ended with 0. Raises StepFailed."""
        arguments = (*arguments, "--data-dir", str(self.daemon.data_dir))
        config = ("--config", str(self._config)) if self._config else ()
        return await self._perform(own_command(*arguments, *config), typed("managedd", *arguments), COMMAND_SECONDS, "")

    async def _perform(self, command: list[str], shown: str, seconds: float, advice: str) -> Ended:
        step = Step(
            shown=shown,
            command=command,
            environment=self._environment,
            folder=self.folder,
            advice=advice or ADVICE,
            seconds=seconds,
        )
        return await perform(self.screen, step)

    def show_file(self, name: str, text: str) -> None:
        """The file is there, and shown."""
        (self.folder / name).write_text(text, encoding="utf-8")
        self.screen.command(f"cat {name}")
        for line in text.splitlines():
            self.screen.output(line)

    async def go_on(self) -> None:
        """Nothing more; raises StepFailed when the daemon ends by itself."""
        self.screen.title("Everything stays up until Ctrl-C. In another terminal:")
        for name in ("PREFECT_HOME", "PREFECT_API_URL"):
            self.screen.command(f"export {name}={typed(self._environment.get(name, self.daemon.url))}")
        # In a file, so that it stands nowhere on a screen.
        kept = self.folder.parent / "auth"
        kept.write_text(self.daemon.auth_string, encoding="utf-8")
        self.screen.command(f'export PREFECT_API_AUTH_STRING="$(cat {typed(kept)})"')
        self.screen.command(typed(self._client.prefect, "deployment", "run", DEPLOYMENT, "--watch"))
        await self.daemon.ended()
        raise StepFailed("The daemon has ended", self.daemon.told(), "look at what it says")
