"""Looks at the host."""

from __future__ import annotations

import contextlib
import grp
import resource
import time
import zoneinfo
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from managedd.config.certificates import read_certificate
from managedd.doctor.checks.commands import said
from managedd.doctor.examination import NotApplicable
from managedd.doctor.judgement import host as judge
from managedd.doctor.judgement import tls
from managedd.store import peek
from managedd.store.database import OLDEST_SQLITE

if TYPE_CHECKING:
    from managedd.doctor.finding import Finding
    from managedd.doctor.patient import Patient

ZONE = "Europe/Berlin"
UNIT = "managedd.service"
UNIT_FACTS = (
    "LoadState", "ActiveState", "UnitFileState", "Result", "NeedDaemonReload", "SupplementaryGroups", "LimitNOFILE", "KillMode", "Delegate",
)  # fmt: skip


async def sqlite(_: Patient) -> list[Finding]:
    """The library under the store."""
    return [judge.sqlite(peek.sqlite_version(), OLDEST_SQLITE)]


async def time_zones(_: Patient) -> list[Finding]:
    """The data for schedules with a time zone."""
    missing = None
    try:
        zoneinfo.ZoneInfo.no_cache(ZONE)
    except (zoneinfo.ZoneInfoNotFoundError, OSError, ValueError) as error:
        missing = str(error)
    return [judge.time_zones(missing, of_the_host=_host_has_zones())]


def _host_has_zones() -> bool:
    return any(Path(folder, ZONE).is_file() for folder in zoneinfo.TZPATH)


async def clock(patient: Patient) -> list[Finding]:
    """The host's clock, over the time since the examination began."""
    jumped = (time.time() - patient.began_wall) - (time.monotonic() - patient.began_monotonic)
    shown = await said("timedatectl", "show", "--property=NTPSynchronized", "--value")
    words = {"yes": True, "no": False}
    synchronised = words.get(shown.out.strip()) if shown is not None and shown.code == 0 else None
    return [judge.clock(synchronised=synchronised, jumped_seconds=jumped)]


async def open_files(patient: Patient) -> list[Finding]:
    """The daemon's limit if it runs, else that of its service, else what it would have if started here."""
    limit: int | None = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    whose = "a daemon started from here"
    unit = await _unit()
    if patient.locked_by is not None and (own := _limit_of(patient.locked_by)) is not None:
        limit, whose = own, "the daemon"
    elif unit is not None and unit.get("LoadState") == "loaded" and unit.get("LimitNOFILE", "").isdecimal():
        limit, whose = int(unit["LimitNOFILE"]), "the service"
    if limit == resource.RLIM_INFINITY:
        limit = None
    return [judge.open_files(limit, max_connections=patient.settings.server.max_connections, whose=whose)]


async def certificate(patient: Patient) -> list[Finding]:
    """The clients' listener's certificate, when it has one."""
    server = patient.settings.server
    found = await anyio.to_thread.run_sync(read_certificate, server, abandon_on_cancel=True)
    if found is None or server.tls_key is None:
        raise NotApplicable("the clients' listener speaks plain HTTP (server.tls_certificate)")
    mode = (await anyio.Path(server.tls_key).stat()).st_mode
    now = datetime.now(UTC)
    return [tls.certificate(found.ends_at, found.names, now=now, key=server.tls_key, key_mode=mode)]


async def unit(patient: Patient) -> list[Finding]:
    """The service."""
    groups = frozenset(group.gr_name for group in grp.getgrall())
    processes = patient.choice is not None and patient.choice.driver == "process"
    return judge.unit(await _unit(), groups=groups, daemon_runs=patient.status is not None, processes=processes)


async def _unit() -> dict[str, str] | None:
    if not await anyio.Path("/run/systemd/system").is_dir():
        return None
    shown = await said("systemctl", "show", UNIT, f"--property={','.join(UNIT_FACTS)}")
    if shown is None or shown.code != 0:
        return None
    return dict(line.partition("=")[::2] for line in shown.out.splitlines() if "=" in line)


def _limit_of(pid: int) -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/limits").read_text().splitlines():
            if line.startswith("Max open files"):
                return int(line.split()[3])
    return None
