"""The steps of provisioning: each is one command, one line of progress, and one plain reason when it cannot be done."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

REPOSITORY = Path(__file__).resolve().parents[2]
STATE = REPOSITORY / ".cache" / "managedd-tests"
LOG = STATE / "provision.log"


class CannotProvisionError(Exception):
    """Something the tests need is missing on this machine and cannot be made; the message says what and why."""


def say(line: str) -> None:
    """The line is on standard error at once, so that standard output stays free for results."""
    print(f"[provision] {line}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """What is under way has been announced, and its end or failure too, with the seconds it took."""
    say(f"{what} …")
    began = time.monotonic()
    try:
        yield
    except BaseException:
        say(f"{what}: failed after {time.monotonic() - began:.1f} s")
        raise
    say(f"{what}: done in {time.monotonic() - began:.1f} s")


def tail(text: str, lines: int = 12) -> str:
    """The last lines of the text, indented, fit to stand under a reason."""
    kept = [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]
    return "\n".join(f"    {line}" for line in kept)


def run(
    command: Sequence[str | os.PathLike[str]],
    *,
    otherwise: str,
    env: Mapping[str, str] | None = None,
    timeout_seconds: float = 900,
) -> str:
    """The command has ended with 0 and its output is returned; `otherwise` opens the reason when it has not."""
    STATE.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **(env or {})},
            timeout=timeout_seconds,
            check=False,
        )
    except FileNotFoundError as error:
        raise CannotProvisionError(f"{otherwise}: there is no command {error.filename}") from None
    except subprocess.TimeoutExpired:
        raise CannotProvisionError(f"{otherwise}: no end after {timeout_seconds:.0f} s") from None
    with LOG.open("a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(map(str, command))}\n{done.stdout}= {done.returncode}\n")
    if done.returncode != 0:
        raise CannotProvisionError(f"{otherwise} (exit code {done.returncode}):\n{tail(done.stdout)}")
    return done.stdout


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """No other process is inside a block locked on the same path; the lock ends with the process at the latest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another run that is provisioning …")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def debian_root() -> bool:
    """True when this process may install Debian packages."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install_packages(packages: Mapping[str, str]) -> None:
    """Every command (or absolute path) named as a key exists; a missing one came with the Debian package it maps to."""
    missing = {need: package for need, package in packages.items() if not _present(need)}
    if not missing:
        return
    names = sorted(set(missing.values()))
    if not debian_root():
        raise CannotProvisionError(
            f"{', '.join(sorted(missing))} missing; as root on Debian they would be installed from {', '.join(names)}"
        )
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"]
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    with step(f"installing {' '.join(names)}"):
        # One dead list among many is no failure: whether the packages can be had is what counts.
        with contextlib.suppress(CannotProvisionError):
            run([*apt, "update"], otherwise="apt-get update", env=quiet)
        run(
            [*apt, "install", "-y", "--no-install-recommends", *names],
            otherwise=f"apt-get could not install {' '.join(names)}",
            env=quiet,
        )
    if still := sorted(need for need in missing if not _present(need)):
        raise CannotProvisionError(f"{', '.join(still)} still missing after installing {', '.join(names)}")


def _present(need: str) -> bool:
    return Path(need).exists() if need.startswith("/") else shutil.which(need, path=_search_path()) is not None


def _search_path() -> str:
    # A root shell without a login lacks the system folders in which dockerd, iptables and debootstrap lie.
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
