"""The control groups that runs on this host may have: found once, where the kernel and whoever started the daemon allow it.

Version 2: the daemon has to stand in a subgroup of a group that was delegated to it (`Delegate=yes` and `DelegateSubgroup=daemon` in the
unit), since only a group without processes of its own can limit those below. Version 1: below the daemon's own groups, where writable,
in a folder of this daemon alone: another one that is done removes its own when that is empty.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from managedd.model.drivers import RunSpec

SUBGROUP: Final = "daemon"
CONTROLLERS: Final = ("memory", "pids", "cpu")
FOLDER: Final = "managedd-{instance_id}"
CPU_PERIOD_US: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """Where runs' groups may be made, by controller; empty where they may not."""

    version: int = 0
    parents: Mapping[str, str] = field(default_factory=dict)

    def leave(self) -> None:
        """What was made for groups is gone, where no run is left in it."""
        if self.version == 1:
            for parent in self.parents.values():
                with contextlib.suppress(OSError):
                    Path(parent).rmdir()

    def limits(self, spec: RunSpec) -> dict[str, dict[str, str]]:
        """What is written into the group's files, by controller and file, in this order."""
        found: dict[str, dict[str, str]] = {}
        two = self.version == 2
        if spec.memory_bytes is not None:
            swap = ("memory.swap.max", "0") if two else ("memory.memsw.limit_in_bytes", str(spec.memory_bytes))
            found["memory"] = {"memory.max" if two else "memory.limit_in_bytes": str(spec.memory_bytes)}
            if "memory" in self.parents and _has_file(self.parents["memory"], swap[0]):
                # Unset, swap would be as large again: an out-of-memory kill would come late, after long thrashing.
                found["memory"][swap[0]] = swap[1]
        if spec.pids is not None:
            found["pids"] = {"pids.max": str(spec.pids)}
        if spec.cpus is not None:
            quota = str(max(1000, round(spec.cpus * CPU_PERIOD_US)))
            found["cpu"] = {"cpu.max": f"{quota} {CPU_PERIOD_US}"} if two else {"cpu.cfs_quota_us": quota}
        return {controller: files for controller, files in found.items() if controller in self.parents}


def find(instance_id: str, root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Groups:
    """Where this daemon may make groups for its runs. Each was tried out."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return Groups()
    paths = {name: path for _, names, path in lines for name in names.split(",")}
    if (root / "cgroup.controllers").exists():
        parents = _version_2(root, paths.get("", "/"))
        return Groups(version=2 if parents else 0, parents=parents)
    folder = FOLDER.format(instance_id=instance_id)
    tried = {name: _version_1(root / name, paths.get(name), folder) for name in CONTROLLERS}
    parents = {name: parent for name, parent in tried.items() if parent is not None}
    return Groups(version=1 if parents else 0, parents=parents)


def _version_2(root: Path, path: str) -> dict[str, str]:
    here = root / path.strip("/")
    if here.name != SUBGROUP:
        return {}
    above = here.parent
    for controller in CONTROLLERS:
        with contextlib.suppress(OSError):
            (above / "cgroup.subtree_control").write_text(f"+{controller}")
    try:
        given = (above / "cgroup.subtree_control").read_text().split()
        _try_out(above)
    except OSError:
        return {}
    return {controller: str(above) for controller in CONTROLLERS if controller in given}


def _version_1(mount: Path, path: str | None, folder: str) -> str | None:
    if path is None or not mount.is_dir():
        return None
    above = mount / path.strip("/")
    # In a container the path is the host's, and the mount shows the container's own group.
    place = (above if above.is_dir() else mount) / folder
    try:
        place.mkdir(exist_ok=True)
        _try_out(place)
    except OSError:
        return None
    return str(place)


def _try_out(place: Path) -> None:
    """A group can be made here and a process put into it. Raises OSError."""
    trial = place / f"trial-{os.getpid()}"
    trial.mkdir()
    try:
        if not os.access(trial / "cgroup.procs", os.W_OK):
            raise PermissionError(trial)
    finally:
        trial.rmdir()


def _has_file(group: str, name: str) -> bool:
    return any((place / name).exists() for place in (Path(group), *Path(group).iterdir()) if place.is_dir())
