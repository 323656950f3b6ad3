"""The daemon, started without the library of the command line: that takes a tenth of a start, and some megabytes for as long as it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from managedd import heap, starting

if TYPE_CHECKING:
    from managedd.config import Settings

COMMAND: Final = "serve"
FLAGS: Final[Mapping[str, str]] = {
    "--data-dir": "store.data_dir",
    "--host": "server.host",
    "--port": "server.port",
    "--driver": "runs.driver",
}
"""The command's flags and the settings that they are."""
CONFIG: Final = "--config"
DRIVERS: Final = ("auto", "docker", "process")


def plainly(arguments: Sequence[str]) -> Callable[[], None] | None:
    """What serves as the arguments say. None when they say it in any other way than the plainest, or wrongly, or something else."""
    if not arguments or arguments[0] != COMMAND:
        return None
    given: dict[str, str] = {}
    rest = list(arguments[1:])
    while rest:
        name, is_joined, value = rest.pop(0).partition("=")
        if not is_joined:
            value = rest.pop(0) if rest else ""
        if name in given or not _is_plain(name, value):
            return None
        given[name] = value
    config = given.pop(CONFIG, None)
    flags = {FLAGS[name]: int(value) if name == "--port" else value for name, value in given.items()}
    return lambda: serve(None if config is None else Path(config), flags)


def _is_plain(name: str, value: str) -> bool:
    if not value or value.startswith("-"):
        return False
    if name == "--port":
        return value.isascii() and value.isdecimal()
    return value in DRIVERS if name == "--driver" else name == CONFIG or name in FLAGS


def serve(config: Path | None, flags: Mapping[str, Any]) -> None:
    """Serves with the settings of that file, the environment and the flags, by key, until it is told to stop. Raises ManagedError."""
    starting.begin()
    heap.hold()

    def read() -> Settings:
        from managedd.config import load_with_origins

        return load_with_origins(config, dict(flags)).settings

    settings = read()
    import anyio

    from managedd import daemon
    from managedd.config import read_ca_bundle
    from managedd.config.certificates import read_certificate

    # Before anything is made on the disk, as all that is wrong in the settings.
    read_ca_bundle(settings)
    read_certificate(settings.server)
    anyio.run(daemon.serve, settings, read, _examine)


async def _examine(settings: Settings) -> dict[str, Any]:
    from managedd.cli.patient import patient_of
    from managedd.doctor.examination import examine
    from managedd.doctor.rounds import ROUNDS

    # The daemon has its own way with signals.
    return (await examine(patient_of(settings), ROUNDS, interruptible=False)).as_json()
