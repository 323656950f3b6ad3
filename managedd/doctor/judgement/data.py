"""The data directory: whose it is, what it lies on, and who else uses it."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from managedd.doctor.finding import Finding, note, ok, problem, warning
from managedd.doctor.words import size

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

DIRECTORY = "data directory"
DAEMON = "daemon"
FILE_SYSTEM = "file system"
NETWORK_FILE_SYSTEMS = frozenset(
    {
        "nfs",
        "nfs3",
        "nfs4",
        "cifs",
        "smb",
        "smb2",
        "smb3",
        "smbfs",
        "ncpfs",
        "afs",
        "9p",
        "virtiofs",
        "ceph",
        "fuse.ceph",
        "glusterfs",
    }
    | {
        "fuse.glusterfs",
        "lustre",
        "gpfs",
        "beegfs",
        "ocfs2",
        "gfs2",
        "fuse.sshfs",
        "sshfs",
        "davfs",
        "fuse.davfs2",
        "fuse.s3fs",
        "fuse.rclone",
    }
    | {
        "fuse.goofys",
        "fuse.mount-s3",
        "fuse.gcsfuse",
        "fuse.blobfuse",
        "moosefs",
        "fuse.mfs",
        "orangefs",
        "pvfs2",
        "prl_fs",
        "vboxsf",
        "fuse.grpcfuse",
    }
)
VOLATILE_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs"})
SLOW_SYNC_SECONDS = 0.1
FREE_PROBLEM_BYTES = 256 * 1024**2
FREE_WARNING_BYTES = 2 * 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """A file or directory, its permissions and who owns it."""

    path: Path
    uid: int
    mode: int

    @property
    def permissions(self) -> int:
        return stat.S_IMODE(self.mode)


def directory(path: Path, found: Owned | None, *, me: int, parent_writable: bool, usable: bool) -> Finding:
    """Whose the directory is, and who else can look into it."""
    if found is None:
        if not parent_writable:
            return problem(
                DIRECTORY,
                f"{path} is not there, and this user can't make it",
                "run as root or as the daemon's user, or name another one with --data-dir or store.data_dir",
                path=str(path),
                exists=False,
            )
        return note(
            DIRECTORY, f"{path} is not there yet; the daemon's first start makes it", path=str(path), exists=False
        )
    facts = {"path": str(path), "exists": True, "uid": found.uid, "mode": f"{found.permissions:04o}"}
    if not stat.S_ISDIR(found.mode):
        return problem(DIRECTORY, f"{path} is no directory", "name another one in store.data_dir", **facts)
    if not usable:
        return problem(
            DIRECTORY,
            f"{path} belongs to user {found.uid}, and this user ({me}) may not write there",
            "run the doctor as the daemon's user, or as root (sudo managedd doctor)",
            **facts,
        )
    if found.permissions & 0o077:
        return warning(
            DIRECTORY,
            f"{path} has mode {found.permissions:04o}: others than its owner can look into it",
            f"chmod 700 {path}: variables and parameters are in it as clear text, and so may be the key of the secrets",
            **facts,
        )
    return ok(DIRECTORY, f"{path}, user {found.uid}, mode {found.permissions:04o}", **facts)


_KEYS = (
    ("run-key.secret", "run key", "can be any run"),
    ("secrets.key", "secrets key", "and has the store, or a backup of it, has every block and secret job variable"),
)


def files(owned: Sequence[Owned], *, owner: int) -> list[Finding]:
    """Files in it that belong to others, or that others may read although they hold secrets."""
    found = []
    if strangers := [each for each in owned if each.uid != owner]:
        names = ", ".join(each.path.name for each in strangers)
        found.append(
            problem(
                "data files",
                f"{names}: not of the directory's owner (user {owner}), so its daemon can't open them",
                f"chown {owner} {strangers[0].path.parent}/*: somebody ran a daemon here as another user",
            )
        )
    for name, label, why in _KEYS:
        found += [
            problem(
                label, f"{each.path} has mode {each.permissions:04o}: whoever reads it {why}", f"chmod 600 {each.path}"
            )
            for each in owned
            if each.path.name == name and each.permissions & 0o077
        ]
    return found or [ok("data files", f"{len(owned)} files, all of user {owner}" if owned else "none yet")]


def file_system(kind: str, mount: str) -> Finding:
    """Whether SQLite can work on it."""
    facts = {"type": kind, "mount": mount}
    if kind.lower() in NETWORK_FILE_SYSTEMS:
        return problem(
            FILE_SYSTEM,
            f"{mount} is a network file system ({kind}): SQLite's locks and write-ahead log don't work there",
            "put store.data_dir on a local disk",
            **facts,
        )
    if kind in VOLATILE_FILE_SYSTEMS:
        return warning(
            FILE_SYSTEM,
            f"{mount} is {kind}, in memory: everything is lost when the host restarts",
            "put store.data_dir on a disk",
            **facts,
        )
    if kind in {"overlay", "aufs"}:
        return warning(
            FILE_SYSTEM,
            f"{mount} is {kind}, a container's own layer: everything is lost when that container is removed",
            "mount a volume at store.data_dir",
            **facts,
        )
    return ok(FILE_SYSTEM, f"{kind} at {mount}", **facts)


def flushing(seconds: float | None, *, synchronous: str, error: str | None = None) -> Finding:
    """How long the disk takes to keep what it was told to keep: each commit waits for it."""
    name = "flush to disk"
    if error is not None:
        return problem(name, f"a file could not be flushed to the disk: {error}", "see the disk: dmesg, smartctl")
    assert seconds is not None
    facts = {"seconds": round(seconds, 6)}
    if seconds > SLOW_SYNC_SECONDS:
        return warning(
            name,
            f"{seconds * 1000:.0f} ms for each flush: no more than {1 / seconds:.0f} groups of changes a second",
            "use a faster disk (solid state, or a controller with a battery)"
            + (
                ', or store.synchronous = "NORMAL", which may lose the last moments when power is cut'
                if synchronous == "FULL"
                else ""
            ),
            **facts,
        )
    return ok(name, f"{seconds * 1000:.2f} ms", **facts)


def space(name: str, path: str, *, free_bytes: int, total_bytes: int, free_files: int | None, mend: str) -> Finding:
    """Whether there is room for what will be written."""
    facts = {"path": path, "free_bytes": free_bytes, "total_bytes": total_bytes, "free_files": free_files}
    said = f"{size(free_bytes)} of {size(total_bytes)} are free at {path}"
    if free_bytes < FREE_PROBLEM_BYTES:
        return problem(name, said, mend, **facts)
    if free_files is not None and free_files < 10_000:
        return problem(name, f"only {free_files} more files can be made at {path}", mend, **facts)
    if free_bytes < FREE_WARNING_BYTES:
        return warning(name, said, mend, **facts)
    return ok(name, said, **facts)


def daemon(
    *, answers: bool, version: str | None, url: str | None, own_version: str, pid: int | None, locked: bool, words: str
) -> Finding:
    """Whether a daemon serves this directory."""
    facts: dict[str, Any] = {"answers": answers, "pid": pid, "version": version}
    if answers:
        if version != own_version:
            return warning(
                DAEMON,
                f"managedd {version} serves at {url}; this command is {own_version}",
                "systemctl restart managedd, for the installed version",
                **facts,
            )
        return ok(DAEMON, f"managedd {version} serves at {url}" + (f", process {pid}" if pid else ""), **facts)
    if locked:
        who = f"process {pid}" if pid else "another process"
        return problem(
            DAEMON,
            f"{who} holds the lock of this data directory and does not answer: {words}",
            "it starts, stops or hangs: look at its log, wait a moment, then stop it with SIGTERM",
            **facts,
        )
    return note(DAEMON, "no daemon serves this data directory; what it would do is tried in its place", **facts)


def plans(workspaces: Mapping[str, str], known: Collection[str], *, daemon_runs: bool) -> Finding:
    """Whether the settings have the plan that each workspace, `account/handle`, is on."""
    name = "plans of workspaces"
    without = {workspace: plan for workspace, plan in workspaces.items() if plan not in known}
    if not without:
        return ok(name, "the settings have the plan of every workspace", without={})
    told = ", ".join(f"{workspace} is on {plan!r}" for workspace, plan in sorted(without.items()))
    then = (
        "the daemon keeps the plans that it has, and would not start again"
        if daemon_runs
        else "the daemon will not start"
    )
    return problem(
        name,
        f"{told}, and the settings do not have that plan: {then}. Nothing is lost: what waits goes on waiting",
        "set [plans.NAME] for each, or move the workspace while the daemon runs: PATCH /api/managed/workspace",
        without=without,
    )


def client_port(host: str, port: int, *, error: str | None) -> Finding:
    """Whether the clients' listener could be opened now."""
    name = "clients' address"
    if error is None:
        return ok(name, f"{host} port {port} is free" if port else f"{host}, any free port")
    return problem(
        name,
        f"can't listen on {host} port {port}: {error}",
        "stop what listens there (ss -ltnp shows it), or set another server.host or server.port",
    )
