"""Image references, by the one grammar that registries share (github.com/distribution/reference)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_LENGTH: Final = 600
MAX_NAME_LENGTH: Final = 255
ALLOWED: Final = (
    "[registry[:port]/]name[:tag][@digest] with a name in lower case, for example 'prefecthq/prefect:3-latest'"
)

_DOMAIN_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PATH_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE: Final = re.compile(
    rf"(?P<name>(?:{_DOMAIN}/)?{_PATH_PART}(?:/{_PATH_PART})*)"
    r"(?::(?P<tag>[\w][\w.-]{0,127}))?"
    r"(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,128})?",
    re.ASCII,
)


def is_image_reference(text: str) -> bool:
    """Whether `text` names an image, and so is one word, no option, and fit to be part of an engine's address."""
    found = _REFERENCE.fullmatch(text) if len(text) <= MAX_LENGTH else None
    return found is not None and len(found["name"]) <= MAX_NAME_LENGTH


def is_allowed(image: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns, in which `*` stands for any characters, means the image, in whichever spelling either is written."""
    return any(re.fullmatch(re.escape(whole(pattern)).replace(r"\*", ".*"), whole(image)) for pattern in patterns)


def whole(image: str) -> str:
    """The reference with what engines add to it: the tag `latest` where there is neither tag nor digest, and no name of Docker's own registry."""
    for registry in ("docker.io/", "index.docker.io/", "registry-1.docker.io/"):
        image = image.removeprefix(registry)
    image = image.removeprefix("library/") if image.count("/") == 1 else image
    last = image.rpartition("/")[2]
    return image if ":" in last or "@" in last or "*" in last else f"{image}:latest"
