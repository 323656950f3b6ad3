"""The secret from which runs' keys are made: a file beside the store, made once, whole or not at all."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

from managedd.errors import ErrorCode, ManagedError

if TYPE_CHECKING:
    from pathlib import Path

SECRET_NAME = "run-key.secret"  # noqa: S105  # the name of the file, not what is in it
SECRET_BYTES = 32


def load_or_make(data_dir: Path) -> bytes:
    """The secret of this data directory; a new one is on the disk before it is returned.

    The caller holds the directory's lock. Raises ManagedError(CONFIG) when the file can't be read, or is not what was written.
    """
    path = data_dir / SECRET_NAME
    try:
        try:
            secret = path.read_bytes()
        except FileNotFoundError:
            return _make(path)
    except OSError as error:
        raise ManagedError(
            ErrorCode.CONFIG,
            f"{path} can't be read or written: {error.strerror or error}; it belongs to the daemon's user, mode 0600",
        ) from error
    if len(secret) != SECRET_BYTES:
        raise ManagedError(
            ErrorCode.CONFIG,
            f"{path} holds {len(secret)} bytes and not {SECRET_BYTES}: put it back from a backup; without one, remove it and a new one is "
            "made, but runs that wait for their container with a key of the old one will fail",
        )
    return secret


def _make(path: Path) -> bytes:
    secret = secrets.token_bytes(SECRET_BYTES)
    aside = path.with_name(f"{path.name}.new")
    # What a start that was cut short left behind is nobody's.
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
    # The rename itself must outlive a power cut: the rows have hashes of keys made from it.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return secret
