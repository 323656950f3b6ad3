"""Looks at the data directory and who uses it. A file system that hangs must not hang the doctor: each look has a thread that can be left behind."""

from __future__ import annotations

import os
import socket
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import anyio
from anyio import to_thread

from managedd import __version__
from managedd.doctor.examination import NotApplicable
from managedd.doctor.finding import problem
from managedd.doctor.judgement import data as judge
from managedd.errors import ManagedError
from managedd.store import lock, peek

if TYPE_CHECKING:
    from collections.abc import Callable

    from managedd.doctor.finding import Finding
    from managedd.doctor.patient import Patient

T = TypeVar("T")
FLUSHES = 5
ANSWER_SECONDS = 10.0
"""A daemon that takes longer to say how it is hangs."""
MOUNTS = Path("/proc/self/mountinfo")


async def file_system(patient: Patient) -> list[Finding]:
    """What the directory lies on."""
    mount = await _aside(partial(_mount_of, patient.settings.store.data_dir))
    if mount is None:
        raise NotApplicable(f"{MOUNTS} does not tell what the data directory lies on")
    return [judge.file_system(*mount)]


async def directory(patient: Patient) -> list[Finding]:
    """Whose the directory is, and what lies in it."""
    path = patient.settings.store.data_dir
    return await _aside(partial(_directory, path))


def _directory(path: Path) -> list[Finding]:
    found = _owned(path)
    above = next((parent for parent in path.parents if parent.exists()), Path("/"))
    usable = os.access(path, os.R_OK | os.W_OK | os.X_OK)
    own = judge.directory(
        path, found, me=os.geteuid(), parent_writable=os.access(above, os.W_OK | os.X_OK), usable=usable
    )
    if found is None or not usable or not path.is_dir():
        return [own]
    inside = [entry for each in sorted(path.iterdir()) if (entry := _owned(each)) is not None]
    return [own, *judge.files(inside, owner=found.uid)]


def _owned(path: Path) -> judge.Owned | None:
    try:
        # A link may be meant, as systemd's own one is: what counts is where it leads.
        seen = path.stat()
    except FileNotFoundError:
        return None
    except PermissionError:
        seen = path.lstat()
    return judge.Owned(path=path, uid=seen.st_uid, mode=seen.st_mode)


async def daemon(patient: Patient) -> list[Finding]:
    """Whether a daemon holds the lock, and answers; else what its store says."""
    path = patient.settings.store.data_dir
    try:
        patient.locked = locked = await _aside(partial(lock.is_locked, path))
        patient.locked_by = await _aside(partial(lock.holder, path))
    except (PermissionError, NotADirectoryError) as error:
        return [
            problem(
                judge.DAEMON,
                f"{path / lock.LOCK_NAME} can't be looked at: {error.strerror}",
                "run the doctor as the daemon's user, or as root (sudo managedd doctor)",
            )
        ]
    words = "no answer in time"
    try:
        with anyio.move_on_after(ANSWER_SECONDS):
            patient.status = await patient.ask()
    except ManagedError as error:
        words = error.message
    status = patient.status or {}
    if patient.status is None and not locked:
        patient.facts = await _aside(partial(peek.facts, path))
        patient.workspaces = await _aside(partial(peek.workspaces, path))
        patient.plans = await _aside(partial(peek.plans, path))
    else:
        patient.plans = {f"{each['account']}/{each['handle']}": each["plan"] for each in status.get("workspaces") or ()}
    return [
        judge.daemon(
            answers=patient.status is not None,
            version=status.get("version"),
            url=status.get("url"),
            own_version=__version__,
            pid=patient.locked_by,
            locked=locked,
            words=words,
        )
    ]


async def plans(patient: Patient) -> list[Finding]:
    """Whether the settings have the plan of each workspace."""
    if not patient.plans:
        raise NotApplicable("nobody says which workspaces there are")
    return [judge.plans(patient.plans, patient.settings.plans, daemon_runs=patient.status is not None)]


async def client_port(patient: Patient) -> list[Finding]:
    """Whether clients could be listened to, while nobody does."""
    if patient.status is not None:
        raise NotApplicable("the daemon listens")
    server = patient.settings.server
    error = None
    try:
        family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
        socket.create_server((server.host, server.port), family=family).close()
    except OSError as failure:
        error = failure.strerror or str(failure)
    return [judge.client_port(server.host, server.port, error=error)]


async def flushing(patient: Patient) -> list[Finding]:
    """How long a flush takes in the directory itself, with a file that has no name."""
    store = patient.settings.store
    try:
        seconds = await _aside(partial(_flush, store.data_dir))
    except OSError as error:
        return [judge.flushing(None, synchronous=store.synchronous, error=error.strerror or str(error))]
    return [judge.flushing(seconds, synchronous=store.synchronous)]


def _flush(folder: Path) -> float:
    if not folder.is_dir():
        raise NotApplicable("the data directory is not there yet")
    taken = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(FLUSHES):
            file.write(bytes(4096))
            began = time.perf_counter()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - began)
    return statistics.median(taken)


async def space(patient: Patient) -> list[Finding]:
    """Room for the store."""
    path = patient.settings.store.data_dir
    mend = "make room, or move store.data_dir to a larger disk; retention.runs_days says how long old runs are kept"
    return [await room("disk of the data", path, mend)]


async def room(name: str, path: Path, mend: str) -> Finding:
    """The finding about the disk of `path`, or of the nearest folder above that exists."""

    def look() -> tuple[Path, os.statvfs_result]:
        there = next((each for each in (path, *path.parents) if each.exists()), Path("/"))
        return there, os.statvfs(there)

    there, seen = await _aside(look)
    return judge.space(
        name,
        str(there),
        free_bytes=seen.f_bavail * seen.f_frsize,
        total_bytes=seen.f_blocks * seen.f_frsize,
        # File systems without a fixed number of files say 0 of 0.
        free_files=seen.f_favail if seen.f_files else None,
        mend=mend,
    )


async def _aside(look: Callable[[], T]) -> T:
    return await to_thread.run_sync(look, abandon_on_cancel=True)


def _mount_of(path: Path) -> tuple[str, str] | None:
    """The type of the file system, and where it is mounted."""
    real = os.path.realpath(path)
    best: tuple[str, str] | None = None
    for line in MOUNTS.read_text().splitlines() if MOUNTS.exists() else ():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        # Spaces and the like are written in octal.
        mount = fields[4].encode().decode("unicode_escape")
        inside = real == mount or real.startswith(mount.rstrip("/") + "/")
        # Of several on one point the last covers the others.
        if inside and (best is None or len(mount) >= len(best[1])):
            best = after.split()[0], mount
    return best
