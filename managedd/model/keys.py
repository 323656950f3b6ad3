"""Keys of people and programs: how one is made, known and kept. Pure but for the random numbers."""

from __future__ import annotations

import hashlib
import secrets
import string
import zlib
from typing import Final

PREFIX: Final = "mgk_"
"""Starts every key, so that a secret scanner can find one; the last six characters are a checksum of the rest, so that it finds no other."""
RUN_PREFIX: Final = "mgr_"
"""Starts every run's key."""
SECRET_CHARS: Final = 43
"""Of 62 each: 256 bits."""
CHECK_CHARS: Final = 6
HINT_CHARS: Final = 10
_DIGITS: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase


def make() -> str:
    """A new key."""
    body = PREFIX + "".join(secrets.choice(_DIGITS) for _ in range(SECRET_CHARS))
    return body + _checksum(body)


def is_key(text: str) -> bool:
    """Whether it was made by `make`, as far as its form tells."""
    if not text.startswith(PREFIX) or len(text) != len(PREFIX) + SECRET_CHARS + CHECK_CHARS:
        return False
    return secrets.compare_digest(text[-CHECK_CHARS:].encode(), _checksum(text[:-CHECK_CHARS]).encode())


def hint(key: str) -> str:
    """How the key begins: enough to tell it from others, too little to guess it."""
    return key[:HINT_CHARS]


def hashed(key: str) -> str:
    """What the store keeps of a key. Plain SHA-256: there is nothing to guess in 256 random bits."""
    return hashlib.sha256(encoded(key)).hexdigest()


def encoded(text: str) -> bytes:
    """The text's bytes, also of one that was made from bytes that are no text."""
    return text.encode(errors="surrogatepass")


def _checksum(body: str) -> str:
    value = zlib.crc32(body.encode(errors="replace"))
    found = ""
    for _ in range(CHECK_CHARS):
        value, digit = divmod(value, len(_DIGITS))
        found = _DIGITS[digit] + found
    return found
