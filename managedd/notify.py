"""systemd's notification protocol: datagrams of `KEY=value` lines to $NOTIFY_SOCKET (sd_notify(3))."""

from __future__ import annotations

import os
import socket


def notify(**facts: str | int) -> None:
    """systemd knows the facts (`READY=1`, `STATUS=…`, `STOPPING=1`, `WATCHDOG=1`); nothing happens without it."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    message = "\n".join(f"{name}={value}" for name, value in facts.items())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        try:
            out.connect(address)
            out.sendall(message.encode())
        except OSError:
            return


def watchdog_seconds() -> float | None:
    """How often systemd wants to hear from us (half of WatchdogSec), or None."""
    microseconds = os.environ.get("WATCHDOG_USEC")
    if not microseconds or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 2_000_000
