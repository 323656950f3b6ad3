"""`prefect …` without its start: one process has imported the command line, and each command is a fork of it.

Nothing of the client is changed, every command still has a process, arguments and an end of its own; only the imports, nine tenths of a
command's time, happen once. The environment is that of the first process: commands under another one need processes of their own.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_PROGRAM = """
import importlib, json, os, pkgutil, signal, socket, sys

import prefect.cli

for module in pkgutil.iter_modules(prefect.cli.__path__, "prefect.cli."):
    importlib.import_module(module.name)

def command(job):
    os.setsid()
    os.chdir(job["cwd"])
    for number, path in enumerate((os.devnull, job["out"], job["err"])):
        opened = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.argv = ["prefect", *job["arguments"]]
    sys.exit(prefect.cli.app())

def own(connection):
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with connection.makefile() as lines:
        job = json.loads(lines.readline())
    child = os.fork()
    if child == 0:
        connection.close()
        command(job)
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(child, signal.SIGKILL))
    signal.alarm(job["seconds"])
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    connection.sendall(f"{code}\\n".encode())
    os._exit(0)

listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    connection, _ = listener.accept()
    with connection:
        if os.fork() == 0:
            listener.close()
            own(connection)
"""


class WarmCommandLine:
    """Runs commands as forks of one process."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._port = port
        self._count = itertools.count()

    def run(self, arguments: Sequence[str], cwd: Path, seconds: float) -> tuple[int, str, str]:
        """The command's exit code and what it said on both streams; a command that takes longer than that was killed."""
        number = next(self._count)
        out, err = (self._folder / f"{number}.{end}" for end in ("out", "err"))
        job = {"arguments": arguments, "cwd": str(cwd), "out": str(out), "err": str(err), "seconds": round(seconds)}
        with socket.create_connection(("127.0.0.1", self._port), timeout=seconds + 10) as connection:
            connection.sendall(json.dumps(job).encode() + b"\n")
            with connection.makefile() as lines:
                code = int(lines.readline())
        return code, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8")


@contextlib.contextmanager
def warm_command_line(folder: Path, python: str, environment: Mapping[str, str]) -> Iterator[WarmCommandLine]:
    """Commands can be run until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(
        [python, "-c", _PROGRAM], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield WarmCommandLine(folder, int(process.stdout.readline()))
        finally:
            process.kill()
