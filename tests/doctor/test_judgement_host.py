"""What the doctor makes of the host and the data directory."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from managedd.doctor.finding import Finding, Level
from managedd.doctor.judgement import data, host

MIB = 1024**2
PATH = Path("/var/lib/managedd")


def levels(findings: list[Finding]) -> dict[str, Level]:
    return {finding.name: finding.level for finding in findings}


# --- the host ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("synchronised", "jumped", "level"),
    [
        (True, 0.0, Level.OK),
        (None, 0.1, Level.OK),
        (False, 0.0, Level.WARNING),
        (True, 3.0, Level.WARNING),
        (True, -3.0, Level.WARNING),
    ],
)
def test_the_clock(synchronised: bool | None, jumped: float, level: Level) -> None:
    assert host.clock(synchronised=synchronised, jumped_seconds=jumped).level is level


def test_time_zones_and_sqlite() -> None:
    assert host.time_zones(None, of_the_host=False).level is Level.OK
    assert "tzdata" in str(host.time_zones("no zone", of_the_host=False).mend)
    assert host.sqlite((3, 40, 1), (3, 37)).level is Level.OK
    assert host.sqlite((3, 36, 9), (3, 37)).level is Level.PROBLEM


def test_open_files() -> None:
    assert host.open_files(None, max_connections=1000, whose="it").level is Level.OK
    assert host.open_files(65536, max_connections=1000, whose="it").level is Level.OK
    few = host.open_files(1024, max_connections=1000, whose="the daemon")
    assert (few.level, few.facts["limit"]) == (Level.WARNING, 1024)
    assert host.open_files(1024, max_connections=300, whose="it").level is Level.OK


def unit(daemon_runs: bool = False, processes: bool = False, **changes: str) -> dict[str, Level]:
    shown = {
        "LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled", "Result": "success", "NeedDaemonReload": "no",
        "SupplementaryGroups": "docker",
    }  # fmt: skip
    return levels(
        host.unit({**shown, **changes}, groups=frozenset({"docker"}), daemon_runs=daemon_runs, processes=processes)
    )


def test_the_systemd_unit() -> None:
    assert unit() == {"systemd unit": Level.OK}
    assert unit(ActiveState="failed", Result="exit-code") == {"systemd unit": Level.PROBLEM}
    assert unit(UnitFileState="disabled") == {"systemd unit": Level.WARNING}
    assert unit(NeedDaemonReload="yes") == {"systemd unit": Level.OK, "unit file": Level.WARNING}
    assert unit(SupplementaryGroups="docker kvm") == {"systemd unit": Level.OK, "unit groups": Level.PROBLEM}
    assert unit(LoadState="not-found") == {"systemd unit": Level.NOTE}
    assert unit(daemon_runs=True, ActiveState="inactive") == {"systemd unit": Level.NOTE}
    assert levels(host.unit(None, groups=frozenset(), daemon_runs=False, processes=False)) == {
        "systemd unit": Level.NOTE
    }


def test_a_unit_that_would_end_runs() -> None:
    assert unit(processes=True, KillMode="mixed") == {"systemd unit": Level.OK, "unit and processes": Level.WARNING}
    assert unit(processes=True, KillMode="process") == {"systemd unit": Level.OK}
    assert unit(KillMode="mixed") == {"systemd unit": Level.OK}


# --- the data directory ------------------------------------------------------------------------------------------------


def owned(name: str = "", mode: int = stat.S_IFDIR | 0o700, uid: int = 7) -> data.Owned:
    return data.Owned(path=PATH / name, uid=uid, mode=mode)


def directory(found: data.Owned | None, **changes: Any) -> Finding:
    return data.directory(PATH, found, **{"me": 7, "parent_writable": True, "usable": True, **changes})


def test_the_directory() -> None:
    assert directory(owned()).level is Level.OK
    assert directory(None).level is Level.NOTE
    assert directory(None, parent_writable=False).level is Level.PROBLEM
    assert "no directory" in directory(owned(mode=stat.S_IFREG | 0o600)).seen
    assert "sudo managedd doctor" in str(directory(owned(uid=8), usable=False).mend)
    wide = directory(owned(mode=stat.S_IFDIR | 0o755))
    assert (wide.level, "0755" in wide.seen) == (Level.WARNING, True)


def test_the_files_in_it() -> None:
    mine = owned("state.db", stat.S_IFREG | 0o600)
    assert levels(data.files([mine], owner=7)) == {"data files": Level.OK}
    strange = data.files([mine, owned("logs.db", stat.S_IFREG | 0o600, uid=0)], owner=7)
    assert levels(strange) == {"data files": Level.PROBLEM}
    assert "logs.db" in strange[0].seen
    assert "state.db" not in strange[0].seen
    key = owned("run-key.secret", stat.S_IFREG | 0o640)
    assert levels(data.files([key], owner=7)) == {"run key": Level.PROBLEM}
    keys = [owned("secrets.key", stat.S_IFREG | mode) for mode in (0o600, 0o604)]
    assert levels(data.files(keys, owner=7)) == {"secrets key": Level.PROBLEM}


@pytest.mark.parametrize(
    ("kind", "level"),
    [
        ("ext4", Level.OK), ("xfs", Level.OK), ("btrfs", Level.OK), ("zfs", Level.OK), ("nfs4", Level.PROBLEM), ("nfs", Level.PROBLEM),
        ("cifs", Level.PROBLEM), ("fuse.sshfs", Level.PROBLEM), ("9p", Level.PROBLEM), ("ceph", Level.PROBLEM), ("tmpfs", Level.WARNING),
        ("overlay", Level.WARNING),
    ],
)  # fmt: skip
def test_the_file_system(kind: str, level: Level) -> None:
    found = data.file_system(kind, "/data")
    assert found.level is level
    assert kind in found.seen


def test_flushing() -> None:
    assert data.flushing(0.004, synchronous="FULL").level is Level.OK
    slow = data.flushing(0.25, synchronous="FULL")
    assert (slow.level, "store.synchronous" in str(slow.mend)) == (Level.WARNING, True)
    assert "store.synchronous" not in str(data.flushing(0.25, synchronous="NORMAL").mend)
    assert data.flushing(None, synchronous="FULL", error="Input/output error").level is Level.PROBLEM


@pytest.mark.parametrize(
    ("free", "files", "level"),
    [
        (50 * 1024 * MIB, 10**6, Level.OK),
        (50 * 1024 * MIB, None, Level.OK),
        (1024 * MIB, 10**6, Level.WARNING),
        (100 * MIB, 10**6, Level.PROBLEM),
        (50 * 1024 * MIB, 12, Level.PROBLEM),
    ],
)
def test_room(free: int, files: int | None, level: Level) -> None:
    found = data.space(
        "disk", "/data", free_bytes=free, total_bytes=100 * 1024 * MIB, free_files=files, mend="make room"
    )
    assert found.level is level


def daemon(**changes: Any) -> Finding:
    seen: dict[str, Any] = {
        "answers": True, "version": "1", "url": "u", "own_version": "1", "pid": 12, "locked": True, "words": "refused",
    }  # fmt: skip
    return data.daemon(**{**seen, **changes})


def test_the_daemon() -> None:
    assert daemon().level is Level.OK
    assert daemon(own_version="2").level is Level.WARNING
    hung = daemon(answers=False)
    assert (hung.level, "process 12" in hung.seen) == (Level.PROBLEM, True)
    assert daemon(answers=False, locked=False).level is Level.NOTE


def test_the_clients_address() -> None:
    assert data.client_port("127.0.0.1", 4200, error=None).level is Level.OK
    assert "ss -ltnp" in str(data.client_port("127.0.0.1", 4200, error="Address already in use").mend)
