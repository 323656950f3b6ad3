"""managedd as it is, with a thread that tells what the process keeps: `python -m tests.support.weighed serve --config FILE`.

It is asked over a socket whose path is in the environment, so that what asks takes none of what the daemon gives: neither a connection nor a request.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import json
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from tests.support.daemon import LiveDaemon

if TYPE_CHECKING:
    from collections.abc import Mapping

SOCKET: Final = "WEIGHED_SOCKET"
KEEPS: Final = "WEIGHED_KEEPS"
"""Set in the environment: the daemon keeps something of each request, as none should."""
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """What a process holds at one moment."""

    requests: int
    """Answered since it began."""
    blocks: int
    """Of Python's own."""
    used_bytes: int
    """What is in use of the C library's heap: SQLite, validators, large objects. 0 where it can't be asked."""
    resident_bytes: int
    """Without what is mapped from files."""

    def __str__(self) -> str:
        return (
            f"{self.requests} requests: {self.resident_bytes / _MIB:.0f} MiB resident, {self.used_bytes / _MIB:.1f} MiB of the C library's heap in use, "
            f"{self.blocks} blocks of Python's"
        )


class WeighedDaemon(LiveDaemon):
    """A live daemon that can be asked what it keeps."""

    def __init__(self, folder: Path, *, settings: Mapping[str, Mapping[str, Any]], keeps: bool = False) -> None:
        program = (sys.executable, "-m", "tests.support.weighed")
        super().__init__(folder, docker_host=None, settings=settings, program=program)
        # Paths of sockets are short, and nobody else may make this one first.
        self._own = Path(tempfile.mkdtemp(prefix="weighed-"))
        self._path = str(self._own / "socket")
        self.environment[SOCKET] = self._path
        if keeps:
            self.environment[KEEPS] = "1"

    def weight(self, *, settled: bool = True) -> Weight:
        """What it holds now; `settled` without its bounded caches and what is garbage, else just as it is."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(120)
            asking.connect(self._path)
            asking.sendall(b"s" if settled else b"n")
            told = b""
            while part := asking.recv(65536):
                told += part
        return Weight(**json.loads(told))

    def remove_leftovers(self) -> None:
        shutil.rmtree(self._own, ignore_errors=True)
        super().remove_leftovers()


class _Heap(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks mapped usmblks fsmblks used free keepcost".split()
    ]


def _used_bytes() -> int:
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallinfo2"):
        return 0
    library.mallinfo2.restype = _Heap
    told = library.mallinfo2()
    return int(told.used + told.mapped)


def resident_bytes(pid: int | str = "self") -> int:
    """Of a process, without what is mapped from files."""
    told = Path(f"/proc/{pid}/status").read_text()
    return int(told.split("RssAnon:")[1].split()[0]) * 1024


def _settle() -> None:
    gc.unfreeze()
    for thing in gc.get_objects():
        if isinstance(thing, functools._lru_cache_wrapper):
            thing.cache_clear()
    gc.collect()
    # What is under way ends meanwhile.
    time.sleep(0.2)


def _weigh(requests: int) -> dict[str, int]:
    return {
        "requests": requests,
        "blocks": sys.getallocatedblocks(),
        "used_bytes": _used_bytes(),
        "resident_bytes": resident_bytes(),
    }


def _listen(counted: list[int]) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.environ[SOCKET])
        listening.listen()
        while True:
            asking, _ = listening.accept()
            with asking:
                if asking.recv(1) == b"s":
                    _settle()
                asking.sendall(json.dumps(_weigh(counted[0])).encode())


def _main() -> None:
    counted, kept = [0], []
    handle = web.Application._handle

    async def count(application: web.Application, request: web.Request) -> web.StreamResponse:
        counted[0] += 1
        if KEEPS in os.environ:
            kept.append(f"{request.method} {counted[0]}")
        return await handle(application, request)

    web.Application._handle = count  # type: ignore[method-assign,assignment]
    threading.Thread(target=_listen, args=(counted,), daemon=True).start()
    from managedd.cli import main

    main()


if __name__ == "__main__":
    _main()
