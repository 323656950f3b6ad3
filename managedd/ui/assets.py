"""What pages load beside themselves: style and scripts, under an address that changes with them, so that browsers keep them for good."""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

_TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
FOLDER: Final = "static"
ENTRY: Final = "app.js"
_IMPORT: Final = re.compile(r'^import (?:[^"]* from )?"\./([a-z-]+\.js)";$', re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """One file."""

    content_type: str
    body: bytes
    packed: bytes
    """By gzip."""


@cache
def assets() -> dict[str, Asset]:
    """Every file, by its name."""
    found = {}
    for file in resources.files("managedd.ui").joinpath(FOLDER).iterdir():
        body_type = _TYPES.get(file.name.rpartition(".")[2])
        if body_type is not None:
            body = file.read_bytes()
            found[file.name] = Asset(content_type=body_type, body=body, packed=gzip.compress(body, 9, mtime=0))
    return found


@cache
def version() -> str:
    """Another one whenever a file is another one."""
    summed = hashlib.sha256()
    for name, asset in sorted(assets().items()):
        summed.update(name.encode() + b"\0" + asset.body)
    return summed.hexdigest()[:12]


@cache
def modules() -> tuple[str, ...]:
    """What the script of every page imports, and what that imports: a browser that is told of them asks for all at once."""
    found = [ENTRY]
    for name in found:
        wanted = _IMPORT.findall(assets()[name].body.decode())
        found += [each for each in dict.fromkeys(wanted) if each not in found]
    return tuple(found[1:])
