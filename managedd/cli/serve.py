"""`managedd serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from managedd import heap, starting
from managedd.cli.options import HERE, Where

if TYPE_CHECKING:
    from managedd.config import Settings


def serve(
    *,
    where: Where = HERE,
    host: Annotated[str | None, Parameter(metavar="ADDRESS")] = None,
    port: Annotated[int | None, Parameter(metavar="PORT")] = None,
    driver: Literal["auto", "docker", "process"] | None = None,
) -> None:
    """Run the daemon until it is told to stop (SIGTERM or Ctrl-C). Runs under way go on without it.

    Parameters
    ----------
    host
        The address that clients use (server.host).
    port
        Its port; 0 for a free one (server.port).
    driver
        What runs run in (runs.driver).
    """

    starting.begin()
    heap.hold()

    def read() -> Settings:
        return where.settings(server__host=host, server__port=port, runs__driver=driver)

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
    from managedd.cli.doctor import patient_of
    from managedd.doctor.examination import examine
    from managedd.doctor.rounds import ROUNDS

    # The daemon has its own way with signals.
    return (await examine(patient_of(settings), ROUNDS, interruptible=False)).as_json()
