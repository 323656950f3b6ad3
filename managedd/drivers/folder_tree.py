"""Folders that a run has filled: their weight and their end, however deep they are, whatever rights they have and wherever their links lead.

Everything goes by descriptors: a run can nest folders deeper than a path, a call stack or a table of open files can be.
"""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK_BYTES: Final = 512
HELD_LEVELS: Final = 32
"""So many folders on the way down are held open; below them the way back is `..`."""
_FOLDER: Final = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def weigh(path: str) -> int:
    """What the files below take on the disk, in bytes; what vanishes meanwhile or can't be read takes none."""
    try:
        here = os.open(path, os.O_RDONLY | _FOLDER)
    except OSError:
        return 0
    total = 0
    above: list[_Level] = []
    try:
        size, folders = _content(here)
        while True:
            total += size
            size = 0
            if folders:
                with contextlib.suppress(OSError):
                    below = os.open(folders.pop(), os.O_RDONLY | _FOLDER, dir_fd=here)
                    above.append(_Level(here, folders) if len(above) < HELD_LEVELS else _Level(_let_go(here), folders))
                    here = below
                    size, folders = _content(here)
            elif above:
                here, folders = _climbed(here, above)
            else:
                return total
    finally:
        for folder in {here, *(level.held for level in above if isinstance(level.held, int))}:
            os.close(folder)


class _Level(NamedTuple):
    """A folder on the way down, and which of its folders are still to be weighed."""

    held: int | tuple[int, int]
    """Its descriptor; deep down only which it is."""
    folders: list[str]


def _climbed(here: int, above: list[_Level]) -> tuple[int, list[str]]:
    """The next folder above that can be found again, and what is left to do in it. The topmost always can."""
    lost = False
    while True:
        level = above.pop()
        if isinstance(level.held, int):
            os.close(here)
            return level.held, level.folders
        # One that was moved or removed while we were in it leads nowhere: what is beside it is left out.
        with contextlib.suppress(OSError):
            if not lost:
                back = os.open("..", os.O_RDONLY | _FOLDER, dir_fd=here)
                if _identity(back) == level.held:
                    os.close(here)
                    return back, level.folders
                os.close(back)
        lost = True


def _let_go(folder: int) -> tuple[int, int]:
    identity = _identity(folder)
    os.close(folder)
    return identity


def _content(folder: int) -> tuple[int, list[str]]:
    total = 0
    folders: list[str] = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                else:
                    total += entry.stat(follow_symlinks=False).st_blocks * BLOCK_BYTES
    return total, folders


def _identity(folder: int) -> tuple[int, int]:
    found = os.fstat(folder)
    return found.st_dev, found.st_ino


def remove(path: str, *, first: str | None = None) -> None:
    """Nothing is at that path any more; the file `first` went before all others. Raises OSError.

    What is deep is moved to the top before it goes, so that nothing is ever deeper than two folders.
    """
    try:
        with _opened(path) as top:
            if first is not None:
                with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                    os.unlink(first, dir_fd=top)
            waiting = _without_files(top)
            while waiting:
                name = waiting.pop()
                with contextlib.suppress(FileNotFoundError):
                    with _opened(name, top) as folder:
                        for below in _without_files(folder):
                            waiting.append(uuid.uuid4().hex)
                            with contextlib.suppress(FileNotFoundError):
                                # Moving a folder takes the right to write into it.
                                _give_back(below, folder)
                                os.rename(below, waiting[-1], src_dir_fd=folder, dst_dir_fd=top)
                    os.rmdir(name, dir_fd=top)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        os.unlink(path)
        return
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(path)


def _without_files(folder: int) -> list[str]:
    """Its folders; nothing else is left in it."""
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in found:
        if not is_folder:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
    return [name for name, is_folder in found if is_folder]


@contextlib.contextmanager
def _opened(name: str, above: int | None = None) -> Iterator[int]:
    """The folder's descriptor; its owner may do everything in it."""
    _give_back(name, above)
    opened = os.open(name, os.O_RDONLY | _FOLDER, dir_fd=above)
    try:
        yield opened
    finally:
        os.close(opened)


def _give_back(name: str, above: int | None) -> None:
    """A run may have taken its own rights to a folder away. By the descriptor: a link's target or a file keeps its own."""
    place = os.open(name, os.O_PATH | _FOLDER, dir_fd=above)
    try:
        if os.fstat(place).st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.chmod(f"/proc/self/fd/{place}", stat.S_IRWXU)
    finally:
        os.close(place)
