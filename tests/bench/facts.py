"""On what, and with what, the figures were taken."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from managedd import __version__
from tests.support.steps import REPOSITORY


def machine(docker_host: str | None) -> dict[str, Any]:
    """The machine, and what else it does at the moment."""
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    model = [line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return {
        "processor": model[0] if model else platform.machine(),
        "processors": os.cpu_count(),
        "memory_bytes": int(memory.split()[1]) * 1024,
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
        "load_before": os.getloadavg()[0],
        "docker": _said("docker", "-H", docker_host, "version", "--format", "{{ .Server.Version }}")
        if docker_host and shutil.which("docker")
        else None,
    }


def versions(peer: dict[str, str]) -> dict[str, str]:
    """Of managedd and of the peer."""
    return {
        "managedd": __version__,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        **{f"peer {name}": version for name, version in peer.items()},
    }


def commit() -> dict[str, Any]:
    """What was checked out; `changed`: it was not all of it."""
    changed = _said("git", "-C", str(REPOSITORY), "status", "--porcelain", "--", "managedd")
    return {"commit": _said("git", "-C", str(REPOSITORY), "rev-parse", "HEAD"), "changed": bool(changed)}


def now() -> str:
    """The time, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _said(*command: str) -> str | None:
    """What the command says, or None when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
