"""Runs first in the binary: what started us meant the part that unpacks us, and what we start is to find a host without us."""

from __future__ import annotations

import os

# Programs that we start find the host's libraries, not the ones that were unpacked for us.
for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"):
    before = os.environ.pop(f"{name}_ORIG", None)
    if before is not None:
        os.environ[name] = before
    else:
        os.environ.pop(name, None)

# systemd starts the part that unpacks us and means us.
if os.environ.get("WATCHDOG_PID") == str(os.getppid()):
    os.environ["WATCHDOG_PID"] = str(os.getpid())
