"""URLs that are shown: what they may hold of credentials is hidden. Pure.

`drivers/shim.py` has the same function once more, because it runs where this package is not; a test compares the two.
"""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "****"
_END: Final = re.compile(r"[\s'\"<>`]")
_VERSION_CONTROL: Final = re.compile(r"(?:git|hg|svn|bzr)\+[a-z]{2,6}$")
_PATH: Final = re.compile(r"[/?#]")
_QUERY: Final = re.compile(r"\?[^#]+")


def mask_urls(text: str) -> str:
    """The text with the user names, passwords and queries of its URLs hidden.

    Credentials that are not percent-encoded may hold '@' or '/': everything up to the last '@' of the URL is hidden. Only in a
    requirement such as `git+https://host/path@branch` is the last one known to be something else.
    """
    before, *rest = text.split("://")
    shown = [before]
    for body in rest:
        address = _END.split(body, maxsplit=1)[0]
        version_control = _VERSION_CONTROL.search(before[-12:]) is not None
        shown.append(_masked(address, version_control=version_control) + body[len(address) :])
        before = body
    return "://".join(shown)


def has_unclear_credentials(url: str) -> bool:
    """Whether a user name or password in the URL holds '@', '/', '?' or '#' as they are, so that its host is not certain."""
    address = url.partition("://")[2]
    authority = _authority(address)
    return authority.count("@") > 1 or (_has_password_last(authority) and "@" in address)


def _masked(address: str, *, version_control: bool) -> str:
    authority = _authority(address)
    within = authority if version_control and not _has_password_last(authority) else address
    end = within.rfind("@")
    if end >= 0:
        address = HIDDEN + address[end:]
    return _QUERY.sub("?" + HIDDEN, address)


def _authority(address: str) -> str:
    return _PATH.split(address, maxsplit=1)[0]


def _has_password_last(authority: str) -> bool:
    """Whether what follows the ':' is no port: then it is a password that was cut at its '/', and the host comes later."""
    if "@" in authority or authority.endswith("]"):
        return False
    _, colon, port = authority.rpartition(":")
    return bool(colon) and not port.isdecimal()
