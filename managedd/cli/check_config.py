"""`managedd check-config`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from managedd.cli.options import HERE, Json, Where
from managedd.cli.output import harmless, print_json

if TYPE_CHECKING:
    from managedd.config import Loaded, Settings

MASK = "**********"
_USER = re.compile(r"://.*@", re.DOTALL)


def check_config(*, where: Where = HERE, json: Json = False) -> None:
    """Print the settings in force, secrets masked, and where each came from; or say what is wrong with them.

    Parameters
    ----------
    json
        Print JSON instead of lines.
    """
    from managedd.config import read_ca_bundle
    from managedd.config.certificates import read_certificate

    loaded = where.load()
    read_ca_bundle(loaded.settings)
    read_certificate(loaded.settings.server)
    shown = shown_settings(loaded.settings)
    if json:
        notes = _notes(loaded.settings)
        print_json({"file": loaded.file, "settings": shown, "origins": dict(loaded.origins), "notes": notes})
        return
    print(f"# file: {loaded.file or 'none'}")
    for key, value in _leaves(shown):
        print(f"{key} = {harmless(_written(value))}  # {_origin(key, loaded)}")
    for note in _notes(loaded.settings):
        print(f"# note: {harmless(note)}")


def _notes(settings: Settings) -> list[str]:
    """What is allowed, and hardly meant."""
    without = settings.plans_without_the_usual_image()
    if not without:
        return []
    note = (
        f"runs.image = {settings.runs.image!r} is no image that these plans allow: {', '.join(without)}. A run that names no image gets it all "
        "the same, one that names it is refused; add it to plans.NAME.images"
    )
    return [note]


def shown_settings(settings: Settings) -> dict[str, Any]:
    """Every setting as JSON, without its secrets; what stands in `runs.env` may be one."""
    shown: dict[str, Any] = _without_users(settings.model_dump(mode="json"))
    shown["runs"]["env"] = dict.fromkeys(shown["runs"]["env"], MASK)
    return shown


def _without_users(value: Any) -> Any:
    """`value` without what stands before the host in its URLs: it may be a password."""
    if isinstance(value, dict):
        return {name: _without_users(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_users(inner) for inner in value]
    # To the last @: a password may hold anything. Rather too much is hidden than too little.
    return _USER.sub(f"://{MASK}@", value) if isinstance(value, str) else value


def _leaves(table: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield above + name, value


def _written(value: Any) -> str:
    return json.dumps("none" if value is None else value, ensure_ascii=False)


def _origin(key: str, loaded: Loaded) -> str:
    """Where the key was set, or the table that it stands in."""
    parts = key.split(".")
    for size in range(len(parts), 0, -1):
        origin = loaded.origins.get(".".join(parts[:size]))
        if origin is not None:
            return origin
    return "default"
