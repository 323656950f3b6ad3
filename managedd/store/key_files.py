"""Where the key of what is secret comes from: a systemd credential, a file, the environment, or a file made once beside the store."""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from managedd.errors import ErrorCode, ManagedError
from managedd.store.cipher import KEY_BYTES, Key

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

CREDENTIAL: Final = "managedd-secrets-key"
"""`LoadCredential=managedd-secrets-key:/etc/managedd/secrets.key`"""
OWN_NAME: Final = "secrets.key"
NEXT_NAME: Final = "secrets.key.next"
"""The key that takes the other's place when everything is encrypted with it."""
OWN: Final = "own"
ENVIRONMENT: Final = "MANAGEDD_SECRETS__KEY"
MAX_FILE_BYTES: Final = 4096
ALLOWED: Final = (
    f"allowed: {KEY_BYTES} random bytes, as they are, in base64 or in hexadecimal: openssl rand -base64 {KEY_BYTES}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A key, and where it was."""

    key: Key
    source: str
    """A path, `MANAGEDD_SECRETS__KEY`, or OWN."""


def configured(key_file: Path | None, text: str | None, environment: Mapping[str, str]) -> Found | None:
    """The first key that the operator gives: a systemd credential, else `secrets.key_file`, else `secrets.key`. Raises ManagedError(CONFIG)."""
    credential = _credential(environment)
    if credential is not None:
        return Found(key=read(credential), source=str(credential))
    if key_file is not None:
        return Found(key=read(key_file), source=str(key_file))
    if text is not None:
        return Found(key=parse(text.encode(), ENVIRONMENT), source=ENVIRONMENT)
    return None


def _credential(environment: Mapping[str, str]) -> Path | None:
    folder = environment.get("CREDENTIALS_DIRECTORY")
    path = None if not folder else Path(folder) / CREDENTIAL
    return path if path is not None and path.exists() else None


def own(data_dir: Path) -> list[Found]:
    """The keys that stand beside the store. Raises ManagedError(CONFIG) when one can't be read."""
    paths = (data_dir / OWN_NAME, data_dir / NEXT_NAME)
    return [Found(key=read(path), source=OWN) for path in paths if path.exists()]


def make(data_dir: Path, name: str = OWN_NAME) -> Found:
    """A new key, on the disk under that name before it is returned. Raises ManagedError(CONFIG)."""
    key, path = Key.new(), data_dir / name
    aside = path.with_name(f"{name}.new")
    try:
        # What a start that was cut short left behind is nobody's.
        aside.unlink(missing_ok=True)
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(base64.b64encode(key.material) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
        _sync(data_dir)
    except OSError as error:
        raise _unusable(path, f"can't be written: {error.strerror or error}") from error
    return Found(key=key, source=OWN)


def promote(data_dir: Path, key: Key) -> None:
    """The key beside the store is `key`, which stood there as the next one; nothing else stands there. It may be repeated."""
    following, path = data_dir / NEXT_NAME, data_dir / OWN_NAME
    if following.exists() and read(following).id == key.id:
        following.rename(path)
        _sync(data_dir)


def remove_own(data_dir: Path, key_ids: Container[str]) -> None:
    """None of those keys stands beside the store."""
    for name in (OWN_NAME, NEXT_NAME):
        path = data_dir / name
        if path.exists() and read(path).id in key_ids:
            path.unlink()
    _sync(data_dir)


def read(path: Path) -> Key:
    """The key in a file. Raises ManagedError(CONFIG)."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _unusable(path, f"can't be read: {error.strerror or error}") from error
    return parse(content, path)


def parse(content: bytes, where: Path | str) -> Key:
    """The key that a file or a variable holds. Raises ManagedError(CONFIG), which does not repeat it."""
    if len(content) == KEY_BYTES:
        return Key(content)
    for decode in (_base64, bytes.fromhex):
        try:
            material = decode(content.strip().decode("ascii"))
        except (ValueError, binascii.Error):
            continue
        if len(material) == KEY_BYTES:
            return Key(material)
    raise _unusable(where, f"holds no key; {ALLOWED}")


def _base64(text: str) -> bytes:
    plain = text.rstrip("=").translate(str.maketrans("-_", "+/"))
    return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)


def _unusable(where: Path | str, why: str) -> ManagedError:
    return ManagedError(ErrorCode.CONFIG, f"the key of what is secret: {where} {why}")


def _sync(folder: Path) -> None:
    """A rename in the folder outlives a power cut: envelopes were made with the key."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
