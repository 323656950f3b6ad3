"""A person with nothing but the public Prefect client: its command line and its library, in a home of their own."""

from __future__ import annotations

import contextlib
import copy
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support.warm_cli import warm_command_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.support.provision import Provisioned
    from tests.support.warm_cli import WarmCommandLine

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
AT_ONCE = 3
"""More commands at once than this only wait for the processors."""


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended."""

    command: str
    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """All that it said, line breaks and boxes of a terminal's width taken out."""
        return " ".join(re.sub(r"[│╭╮╰╯─┃━┏┓┗┛┡┩└┘├┤┬┴┼]", " ", self.out + self.err).split())

    @property
    def ids(self) -> list[str]:
        """The UUIDs it told, in their order."""
        return UUID.findall(self.out + self.err)

    def __str__(self) -> str:
        return f"$ {self.command}\nexit code {self.code}\n{self.out}\n{self.err}"


class PrefectUser:
    """Runs commands against one API; `folder` is their home and where they stand."""

    warm: WarmCommandLine | None = None
    """Where `prefect` runs its commands, as long as they are under the user's own environment."""

    def __init__(self, there: Provisioned, url: str, folder: Path, **environment: str) -> None:
        assert there.prefect_cli is not None
        assert there.prefect_python is not None
        self._cli = there.prefect_cli
        self._python = there.prefect_python
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MANAGEDD_"))}
        self.environment = {
            **kept,
            "PREFECT_API_URL": url,
            "PREFECT_HOME": str(folder / "prefect-home"),
            "DO_NOT_TRACK": "1",
            "NO_COLOR": "1",
            "TERM": "dumb",
            "PYTHONUTF8": "1",
            "COLUMNS": "240",
            "NO_PROXY": "*",
            **environment,
        }

    def prefect(
        self, *arguments: str, code: int | None = 0, timeout: float = 90, cwd: Path | None = None, **environment: str
    ) -> Done:
        """`prefect …` has ended, with that exit code unless None is given."""
        if self.warm is not None and not environment:
            ended = Done(" ".join(arguments), *self.warm.run(arguments, cwd or self.folder, timeout))
            return _expected(ended, code)
        return self._run([self._cli, *arguments], code=code, timeout=timeout, cwd=cwd, environment=environment)

    @contextlib.contextmanager
    def warmed(self) -> Iterator[PrefectUser]:
        """This user, whose commands start without importing the client anew."""
        user = copy.copy(self)
        with warm_command_line(self.folder / "warm", self._python, self.environment) as user.warm:
            yield user

    def python(
        self, program: str, *arguments: str, code: int | None = 0, timeout: float = 90, **environment: str
    ) -> Done:
        """A program in the user's Python has ended."""
        return self._run(
            [self._python, "-c", program, *arguments], code=code, timeout=timeout, cwd=None, environment=environment
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """`prefect …` runs; its output is one pipe."""
        return subprocess.Popen(
            [self._cli, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )

    def all(self, *commands: Sequence[str]) -> list[Done]:
        """`prefect …` for each of the commands, which don't depend on each other, has ended with 0."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(lambda command: self.prefect(*command), commands))

    def _run(
        self, command: list[str], *, code: int | None, timeout: float, cwd: Path | None, environment: dict[str, str]
    ) -> Done:
        try:
            done = subprocess.run(
                command,
                cwd=cwd or self.folder,
                env={**self.environment, **environment},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                check=False,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired as error:
            said = b"".join(part for part in (error.stdout, error.stderr) if isinstance(part, bytes))
            raise AssertionError(
                f"not done after {timeout:.0f} s: {' '.join(command[1:])}\n{said.decode(errors='replace')}"
            ) from None
        return _expected(Done(" ".join(command[1:]), done.returncode, done.stdout, done.stderr), code)


def _expected(ended: Done, code: int | None) -> Done:
    if code is not None and ended.code != code:
        raise AssertionError(f"expected exit code {code}\n{ended}")
    return ended


def somebody(there: Provisioned, url: str, folder: Path, **environment: str) -> PrefectUser:
    """A person who has only been told where Cloud is."""
    made = PrefectUser(there, url, folder, PREFECT_CLOUD_API_URL=url, **environment)
    del made.environment["PREFECT_API_URL"]
    return made


def in_threads(*works: Any) -> list[Any]:
    """What each of the functions returned; they ran beside each other."""
    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result() for future in [pool.submit(work) for work in works]]
