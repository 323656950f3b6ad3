"""The host: its time, its limits, its service manager."""

from __future__ import annotations

from typing import TYPE_CHECKING

from managedd.doctor.finding import Finding, note, ok, problem, warning

if TYPE_CHECKING:
    from collections.abc import Mapping

CLOCK = "clock"
UNIT = "systemd unit"
JUMP_SECONDS = 0.5
SPARE_FILES = 256
"""Databases, container streams, the interpreter's own."""


def clock(*, synchronised: bool | None, jumped_seconds: float) -> Finding:
    """The host's own clock: set from the network, and not jumping."""
    facts = {"synchronised": synchronised, "jumped_seconds": round(jumped_seconds, 3)}
    if abs(jumped_seconds) > JUMP_SECONDS:
        return warning(
            CLOCK,
            f"the clock jumped by {jumped_seconds:+.1f} s while the doctor looked",
            "find out who sets it: two time services against each other, or a virtual machine's guest tools; schedules and time limits follow it",
            **facts,
        )
    if synchronised is False:
        return warning(
            CLOCK,
            "the clock is not set from the network",
            "timedatectl set-ntp true, or install chrony: schedules follow this clock",
            **facts,
        )
    return ok(
        CLOCK,
        "set from the network, no jumps"
        if synchronised
        else "no jumps; nothing here tells whether it is set from the network",
        **facts,
    )


def time_zones(missing: str | None, *, of_the_host: bool) -> Finding:
    """Whether schedules with a time zone can be computed."""
    name = "time zones"
    if missing is not None:
        return problem(
            name, f"there is no time zone data: {missing}", "install the package tzdata, of the system or for Python"
        )
    return ok(name, "from the system" if of_the_host else "from the Python package tzdata", of_the_host=of_the_host)


def sqlite(version: tuple[int, ...], oldest: tuple[int, ...]) -> Finding:
    """Whether the store can be opened at all."""
    shown, needed = (".".join(map(str, each)) for each in (version, oldest))
    if version < oldest:
        return problem(
            "sqlite",
            f"SQLite {shown}; managedd needs {needed}",
            "use a Python that was built with a newer SQLite",
            version=shown,
        )
    return ok("sqlite", f"SQLite {shown}", version=shown)


def open_files(limit: int | None, *, max_connections: int, whose: str) -> Finding:
    """Whether as many connections as the settings allow can be open."""
    name = "open files"
    # Two listeners take that many each; the operator's socket has a handful.
    needed = 2 * max_connections + SPARE_FILES
    facts = {"limit": limit, "needed": needed}
    if limit is None:
        return ok(name, f"no limit for {whose}", **facts)
    if limit < needed:
        return warning(
            name,
            f"{whose} may open {limit} files; server.max_connections = {max_connections} on each listener needs {needed}",
            "LimitNOFILE=65536 in the unit, ulimit -n 65536 in the shell that starts it, or a lower server.max_connections",
            **facts,
        )
    return ok(name, f"{whose} may open {limit}, needed are {needed}", **facts)


def unit(
    shown: Mapping[str, str] | None, *, groups: frozenset[str], daemon_runs: bool, processes: bool
) -> list[Finding]:
    """The service as systemd knows it; None: there is no systemd here."""
    if shown is None:
        return [note(UNIT, "no systemd runs here: nothing starts the daemon again when it fails or the host restarts")]
    if shown.get("LoadState") != "loaded":
        return [
            note(
                UNIT,
                "there is no managedd.service"
                if shown.get("LoadState") == "not-found"
                else f"managedd.service: {shown.get('LoadState')}",
                "for a daemon that starts with the host, install systemd/managedd.service: see docs/operations.md",
                installed=False,
            )
        ]
    state, result = shown.get("ActiveState", "unknown"), shown.get("Result", "")
    facts = {"installed": True, "active": state, "enabled": shown.get("UnitFileState"), "result": result}
    found = []
    missing = sorted(set(shown.get("SupplementaryGroups", "").split()) - groups)
    if missing:
        found.append(
            problem(
                "unit groups",
                f"the unit wants the group {', '.join(missing)}, which does not exist here: the service can't start",
                "install the engine, which makes the group, or take it out of SupplementaryGroups with systemctl edit managedd",
            )
        )
    if shown.get("NeedDaemonReload") == "yes":
        found.append(
            warning(
                "unit file",
                "the unit was changed and systemd has not read it",
                "systemctl daemon-reload, then systemctl restart managedd",
            )
        )
    if processes and shown.get("KillMode") not in {"process", "none", None}:
        found.append(
            warning(
                "unit and processes",
                f"KillMode={shown['KillMode']}: systemd ends the runs, which are processes of the daemon's, when the daemon is restarted",
                "KillMode=process and Delegate=yes in the unit, as systemd/managedd.service has it",
            )
        )
    if state == "failed":
        found.insert(
            0,
            problem(
                UNIT,
                f"managedd.service has failed ({result})",
                "journalctl -u managedd -n 50 says why; systemctl reset-failed managedd, then systemctl start managedd",
                **facts,
            ),
        )
    elif state != "active" and daemon_runs:
        found.insert(
            0,
            note(
                UNIT,
                f"managedd.service is {state}, and a daemon runs that somebody started by hand",
                "one of them is enough: both want the same data directory",
                **facts,
            ),
        )
    elif shown.get("UnitFileState") == "disabled":
        found.insert(
            0,
            warning(
                UNIT,
                f"managedd.service is {state} and does not start with the host",
                "systemctl enable managedd",
                **facts,
            ),
        )
    else:
        found.insert(
            0, ok(UNIT, f"managedd.service is {state}, {shown.get('UnitFileState') or 'not enabled'}", **facts)
        )
    return found
