"""What an examination of the host has found."""

from __future__ import annotations

from typing import Literal

from managedd.wire.base import Int, JsonObject, Model, Timestamp


class DoctorFinding(Model):
    """What was looked at, how bad it is, and what to do about it."""

    name: str
    level: Literal["ok", "note", "warning", "problem"]
    seen: str
    mend: str | None
    facts: JsonObject
    group: str
    """`data`, `host`, `engine` or `runs`."""


class DoctorReport(Model):
    """All findings, in the order of the checks."""

    made: Timestamp
    version: str
    healthy: bool
    """Whether there is no problem."""
    counts: dict[str, Int]
    """By level."""
    findings: list[DoctorFinding]


class DoctorState(Model):
    """The last report, and whether another one is being made."""

    report: DoctorReport | None
    is_under_way: bool
