"""What a run prints, in files, as a container engine would hand it out: frames of a stream's number, a timestamp and one entry.

Placed beside the supervisor of a run and executed by the run's own Python (3.9 or newer): standard library alone. `docker_logs.py` reads
it back. Timestamps only grow, each is used once, so that a reader's place is one number.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ENTRY_BYTES = 16 * 1024
"""A longer line is several entries, of which only the last ends it."""
STDOUT, STDERR = 1, 2


class Output:
    """Files named by number in a folder, the youngest being written; the oldest go when there are more than allowed."""

    def __init__(
        self, folder: str, *, max_bytes: int, max_files: int, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._clock_ns = clock_ns
        self._partial = {STDOUT: b"", STDERR: b""}
        self._last_ns = 0
        self._second = (-1, b"")
        self._number = max(numbers(folder), default=0)
        self._file = -1
        self._size = 0
        self._next_file()

    def take(self, stream: int, data: bytes) -> None:
        """Every entry that `data` completes is in the file, unless the disk is full: then it is dropped, as a whole."""
        self._partial[stream] += data
        entries = []
        held = self._partial[stream]
        start, end = 0, len(held)
        while start < end:
            newline = held.find(b"\n", start, start + ENTRY_BYTES)
            if newline >= 0:
                stop = newline + 1
            elif end - start >= ENTRY_BYTES:
                stop = start + ENTRY_BYTES
            else:
                break
            entries.append(held[start:stop])
            start = stop
        self._partial[stream] = held[start:]
        self._write(stream, entries)

    def finish(self) -> None:
        """What was printed last without a newline is in the file too; nothing more can be taken."""
        for stream, held in self._partial.items():
            if held:
                self._write(stream, [held])
        self._partial = {STDOUT: b"", STDERR: b""}
        os.close(self._file)

    def _write(self, stream: int, entries: list[bytes]) -> None:
        if not entries:
            return
        frames = bytearray()
        head = bytes((stream, 0, 0, 0))
        now_ns = max(self._clock_ns(), self._last_ns + 1)
        for entry in entries:
            payload = self._stamp(now_ns) + entry
            frames += head + len(payload).to_bytes(4, "big") + payload
            now_ns += 1
        self._last_ns = now_ns - 1
        if self._size and self._size + len(frames) > self._max_bytes:
            self._next_file()
        try:
            view = memoryview(frames)
            while view:
                view = view[os.write(self._file, view) :]
            self._size += len(frames)
        except OSError:
            # Half a frame would make all that follows unreadable.
            os.ftruncate(self._file, self._size)
            os.lseek(self._file, self._size, os.SEEK_SET)

    def _stamp(self, ns: int) -> bytes:
        second, fraction = divmod(ns, 1_000_000_000)
        if self._second[0] != second:
            self._second = (second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode())
        return b"%s.%09dZ " % (self._second[1], fraction)

    def _next_file(self) -> None:
        path = os.path.join(self._folder, str(self._number + 1))
        try:
            opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError:
            if self._file < 0:
                raise
            return  # the present one grows beyond its bound rather than that lines are lost
        if self._file >= 0:
            os.close(self._file)
        self._file, self._size = opened, 0
        self._number += 1
        for number in numbers(self._folder)[: -self._max_files]:
            os.unlink(os.path.join(self._folder, str(number)))


def numbers(folder: str) -> list[int]:
    """The numbers of the files in the folder, the oldest first; none when there is no folder."""
    try:
        return sorted(int(name) for name in os.listdir(folder) if name.isdecimal())
    except FileNotFoundError:
        return []
