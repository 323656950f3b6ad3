"""`managedd secrets`."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import anyio
from cyclopts import App, Parameter

from managedd.cli.options import HERE, Json, Where
from managedd.cli.output import harmless, print_json
from managedd.store.key_files import OWN, OWN_NAME

if TYPE_CHECKING:
    from managedd.cli.client import Daemon

secrets = App(
    name="secrets",
    help="See and change the key that encrypts secrets in the store. Without a daemon they work on its closed store.",
)


@secrets.command
def status(*, json: Json = False, where: Where = HERE) -> None:
    """Show which key encrypts, where it was when it came in, and whether it is being changed.

    Parameters
    ----------
    json
        Print JSON instead.
    """

    async def ask(daemon: Daemon) -> Any:
        return await daemon.get("/managed/secrets")

    found = _asked(where, ask)
    if json:
        print_json(found)
        return
    print(f"key       {found['key_id']}, since {found['since'][:16].replace('T', ' ')} UTC")
    print(f"source    {_source(found, where)}")
    print(
        f"encrypted {found['envelopes']} rows"
        + (f", {found['left']} of them with the key before" if found["rotating"] else "")
    )
    if found["in_clear"]:
        print("in clear  some rows are still being looked through")


@secrets.command
def rotate(
    *, to: Annotated[Path | None, Parameter(metavar="FILE")] = None, json: Json = False, where: Where = HERE
) -> None:
    """Encrypt everything with another key, and forget the old one; runs and clients go on meanwhile.

    Parameters
    ----------
    to
        The file that holds the new key: 32 random bytes, as they are, in base64 or in hexadecimal. Without it, the daemon makes one where the old one
        was its own; on a closed store, the configured key is taken.
    json
        Print JSON instead.
    """
    from managedd.store import key_files

    body: dict[str, Any] = {}
    if to is not None:
        path = to.resolve()
        body = {"key": base64.b64encode(key_files.read(path).material).decode(), "source": str(path)}

    async def ask(daemon: Daemon) -> Any:
        state = await daemon.post("/managed/secrets/rotate", body)
        while state["rotating"]:
            state = await daemon.post("/managed/secrets/reseal", {})
        return state

    made = _asked(where, ask)
    if json:
        print_json(made)
        return
    print(
        f"{made['envelopes']} rows are encrypted with key {made['key_id']}, in {_source(made, where)}; the old key opens none of them."
    )
    if made["source"] != OWN:
        print(
            "The daemon needs this key at its next start: secrets.key_file, the credential or the variable must give it."
        )
    print("Keep the old key as long as backups that were made with it.")


def _source(found: dict[str, Any], where: Where) -> str:
    return str(where.settings().store.data_dir / OWN_NAME) if found["source"] == OWN else harmless(found["source"])


def _asked(where: Where, ask: Callable[[Daemon], Awaitable[Any]]) -> Any:
    async def all_of_it() -> Any:
        from managedd.cli.closed_store import reached

        async with reached(where.settings()) as daemon:
            return await ask(daemon)

    return anyio.run(all_of_it)
