"""`managedd serve`, for whoever says it in another way than the plainest (see `serving`)."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from managedd.cli.options import HERE, Where


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

    from managedd.cli.serving import serve as serve_with

    flags = {
        "store.data_dir": where.data_dir,
        "server.host": host,
        "server.port": port,
        "runs.driver": driver,
    }
    serve_with(where.config, flags)
