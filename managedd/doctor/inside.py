"""The program that looks around inside a container of the runs' image. Standard library only, for any Python 3; handed over as text.

Its one argument is JSON: `{"listen": {"port", "seconds"}}`, or `{"targets": [{"name", "kind", "host", "port", "path"}], "timeout_seconds"}`. It
prints one line of JSON that begins with MARK.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import importlib.metadata
import json
import os
import platform
import socket
import ssl
import sys
import threading
import time
from pathlib import Path
from typing import Any

MARK = "managedd-doctor: "
CGROUP = Path("/sys/fs/cgroup")
BODY_BYTES = 2000
UNREACHABLE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES, errno.EPERM}


def say(found: dict[str, Any]) -> None:
    sys.stdout.write(MARK + json.dumps(found) + "\n")
    sys.stdout.flush()


def listen(port: int, seconds: float) -> None:
    """Takes connections on every address for so long; says so once it does."""
    until = time.monotonic() + seconds
    with socket.create_server(("", port)) as server:
        say({"listening": port})
        while (left := until - time.monotonic()) > 0:
            server.settimeout(left)
            with contextlib.suppress(OSError):
                server.accept()[0].close()


def tried(target: dict[str, Any], timeout_seconds: float) -> dict[str, Any]:
    """What became of an attempt to reach the target."""
    began = time.monotonic()
    try:
        found = ask(target, timeout_seconds) if target["kind"] != "tcp" else connect(target, timeout_seconds)
    except socket.gaierror as error:
        found = {"outcome": "unresolved", "words": error.strerror}
    except TimeoutError:
        found = {"outcome": "timeout"}
    except ConnectionRefusedError:
        found = {"outcome": "refused"}
    except ssl.SSLError as error:
        found = {"outcome": "tls", "words": str(error)}
    except OSError as error:
        outcome = "unreachable" if error.errno in UNREACHABLE else "failed"
        found = {"outcome": outcome, "words": error.strerror or str(error)}
    except (http.client.HTTPException, ValueError) as error:
        found = {"outcome": "failed", "words": f"{type(error).__name__}: {error}"}
    return {**found, "seconds": round(time.monotonic() - began, 4)}


def connect(target: dict[str, Any], timeout_seconds: float) -> dict[str, Any]:
    socket.create_connection((target["host"], target["port"]), timeout_seconds).close()
    return {"outcome": "answered"}


def ask(target: dict[str, Any], timeout_seconds: float) -> dict[str, Any]:
    connection: http.client.HTTPConnection
    if target["kind"] == "https":
        trusted = ssl.create_default_context()
        if extra := os.environ.get("MANAGEDD_DOCTOR_CA"):
            trusted.load_verify_locations(cadata=extra)
        connection = http.client.HTTPSConnection(
            target["host"], target["port"], timeout=timeout_seconds, context=trusted
        )
    else:
        connection = http.client.HTTPConnection(target["host"], target["port"], timeout=timeout_seconds)
    with contextlib.closing(connection):
        connection.request("GET", target["path"])
        answer = connection.getresponse()
        return {
            "outcome": "answered",
            "status": answer.status,
            "body": answer.read(BODY_BYTES).decode(errors="replace"),
        }


def limits() -> dict[str, int | None]:
    """What the control group says, version 2 or 1; None: no limit, or none to be seen."""
    return {
        "memory_bytes": number("memory.max", "memory/memory.limit_in_bytes"),
        "swap_bytes": number("memory.swap.max"),
        "memory_and_swap_bytes": number("memory/memory.memsw.limit_in_bytes"),
        "pids": number("pids.max", "pids/pids.max"),
        "cpu_us_per_second": cpu(),
    }


def number(*places: str) -> int | None:
    for place in places:
        with contextlib.suppress(OSError, ValueError):
            found = int((CGROUP / place).read_text())
            # Version 1 says "no limit" as the largest number of pages.
            return None if found >= 2**62 else found
    return None


def cpu() -> int | None:
    with contextlib.suppress(OSError, ValueError):
        quota, period = (CGROUP / "cpu.max").read_text().split()
        return int(quota) * 1_000_000 // int(period)
    for folder in ("cpu", "cpu,cpuacct"):
        with contextlib.suppress(OSError, ValueError):
            quota_us = int((CGROUP / folder / "cpu.cfs_quota_us").read_text())
            period_us = int((CGROUP / folder / "cpu.cfs_period_us").read_text())
            return None if quota_us < 0 else quota_us * 1_000_000 // period_us
    return None


def version_of(package: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def look(targets: list[dict[str, Any]], timeout_seconds: float) -> None:
    """Tries every target at the same time, and says what it saw."""
    now = time.time()
    answers: dict[str, dict[str, Any]] = {}

    def one(target: dict[str, Any]) -> None:
        answers[target["name"]] = tried(target, target.get("timeout_seconds", timeout_seconds))

    threads = [threading.Thread(target=one, args=(target,), daemon=True) for target in targets]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 2 * timeout_seconds
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    say(
        {
            "now": now,
            "answers": dict(answers),
            "limits": limits(),
            "python": platform.python_version(),
            "prefect": version_of("prefect"),
        }
    )


def main() -> None:
    asked = json.loads(sys.argv[1])
    if "listen" in asked:
        listen(asked["listen"]["port"], asked["listen"]["seconds"])
    else:
        look(asked["targets"], asked["timeout_seconds"])


if __name__ == "__main__":
    main()
