"""`managedd demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def demo(
    *,
    config: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    driver: Literal["auto", "docker", "process"] = "auto",
    keep: Annotated[bool, Parameter(negative="")] = False,
    keep_image: Annotated[bool, Parameter(negative="")] = False,
    cache: Annotated[Path | None, Parameter(metavar="DIR")] = None,
) -> None:
    """Show the whole of it in a few minutes: a daemon of its own, a work pool, a deployment, a run, with the real Prefect client. Nothing is left behind.

    Parameters
    ----------
    config
        The TOML file with the settings; ports, data directory and credential are the demo's own.
    driver
        What runs run in; auto: Docker when an engine answers and has or can pull the image, else processes.
    keep
        When all is shown, leave it up until Ctrl-C.
    keep_image
        Keep the image, when it had to be pulled, for the next time.
    cache
        Keep the Prefect client in this directory for the next time.
    """
    import anyio

    from managedd.config import load, read_ca_bundle
    from managedd.demo.story import Wishes, tell

    settings = load(config, {})
    read_ca_bundle(settings)
    wishes = Wishes(
        driver=driver,
        settings=settings,
        config=None if config is None else config.resolve(),
        cache=None if cache is None else cache.resolve(),
        keep=keep,
        keep_image=keep_image,
    )
    anyio.run(tell, wishes)
