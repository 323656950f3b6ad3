"""One daemon per data directory: an advisory lock that the kernel drops when its holder ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from managedd.errors import ErrorCode, ManagedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK_NAME = "managedd.lock"
_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
_ATTEMPTS = 5
_PAUSE_SECONDS = 0.02


class DataDirLock:
    """The right to be the daemon of a data directory, as a context manager.

    The file stays when the lock goes: removing it would let two daemons hold locks on two files of one name.
    """

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / LOCK_NAME
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """This process holds the lock. Raises CONFIG with the holder's pid when another one does."""
        if self._descriptor is not None:
            return
        try:
            descriptor = os.open(self.path, _FLAGS | os.O_CREAT, 0o600)
        except OSError as error:
            raise ManagedError(ErrorCode.CONFIG, f"{self.path} can't be opened: {error.strerror}") from error
        try:
            if not _try_lock(descriptor):
                pid = _read_pid(descriptor)
                who = "another process" if pid is None else f"process {pid}"
                raise ManagedError(
                    ErrorCode.CONFIG,
                    f"{who} already runs managedd with the data directory {self.path.parent}",
                    detail={"pid": pid},
                )
            os.fchmod(descriptor, 0o600)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            os.close(descriptor)
            raise ManagedError(ErrorCode.CONFIG, f"{self.path} can't be locked: {error.strerror}") from error
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """This process no longer holds the lock."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            # A child between its fork and its exec still has a copy of the descriptor, so closing ours is not enough.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def is_locked(data_dir: Path) -> bool:
    """Whether a daemon runs on this data directory now."""
    with _probe(data_dir) as (locked, _):
        return locked


def holder(data_dir: Path) -> int | None:
    """The pid of the daemon that runs on this data directory; None when there is none, or it has not written it yet."""
    with _probe(data_dir) as (locked, descriptor):
        return _read_pid(descriptor) if locked else None


@contextmanager
def _probe(data_dir: Path) -> Iterator[tuple[bool, int]]:
    try:
        descriptor = os.open(data_dir / LOCK_NAME, _FLAGS)
    except FileNotFoundError:
        yield False, -1
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            yield True, descriptor
        else:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            yield False, descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    """Whether the lock was had. A probe holds it for an instant, so one refusal does not count."""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_SECONDS)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        return True
    return False


def _read_pid(descriptor: int) -> int | None:
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else None
