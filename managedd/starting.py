"""What a start leaves out, or puts off, of what the libraries do while they are imported: half a second that nobody waits for."""

from __future__ import annotations

import gc
import ssl
import sys
import threading
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PR_CAP_AMBIENT, _CLEAR_ALL = 47, 4
_waiting: list[ssl.SSLContext] = []
"""The contexts that have not read the host's certificate authorities yet: megabytes, which few ever need."""
_reading = threading.Lock()


def begin() -> None:
    """The libraries are loaded, as lean as they go, and the collector is off until `settle`; called before anything else imports them."""
    # Nothing of what a start makes is garbage, and looking for it costs a tenth of the start.
    gc.disable()
    # Drawn tracebacks are for a terminal; ours stand in lines.
    with _hidden("rich"):
        import_module("structlog")
    # Its client's two contexts; the daemon asks nobody by TLS but an engine, which has a context of its own.
    with _authorities_later():
        import_module("aiohttp")
    keep_rights()


def keep_rights() -> None:
    """What a unit lets this process do beyond its user's rights, setting the rules of a firewall, no child of it may. Before there are threads."""
    with suppress(OSError, StopIteration):
        told = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapAmb:"))
        if int(told.split()[1], 16):
            import_module("ctypes").CDLL(None).prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)


def trust() -> None:
    """The host's certificate authorities are read, for whoever asks somebody by TLS. For threads: it takes a tenth of a second."""
    with _reading:
        while _waiting:
            _waiting[-1].set_default_verify_paths()
            _waiting.pop()


def settle() -> None:
    """What the start has made is no more looked through for garbage. For a thread: it takes a tenth of a second."""
    gc.collect()
    gc.freeze()
    gc.enable()


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Whoever may do without the package `name` does."""
    before = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


@contextmanager
def _authorities_later() -> Iterator[None]:
    """A context that would read the certificate authorities trusts nobody, until `trust`."""

    def later(context: ssl.SSLContext) -> None:
        _waiting.append(context)

    ssl.SSLContext.set_default_verify_paths = later  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        # What the class inherits is in sight again.
        del ssl.SSLContext.set_default_verify_paths
