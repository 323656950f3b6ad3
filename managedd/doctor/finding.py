"""Findings: what was looked at, how bad it is, what was seen, how to mend it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from managedd import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

NOT_CHECKED = "not checked: "


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing; nothing has to be done. Also what could not be checked because of something else."""
    WARNING = "warning"
    """Runs can run; something will go wrong one day, or is not as it was asked for."""
    PROBLEM = "problem"
    """Runs can't run, or what the daemon answers for is not safe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One sentence of the report."""

    name: str
    level: Level
    seen: str
    mend: str | None = None
    """What to do about it."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """The same for programs. Never a secret."""
    group: str = ""
    """Set by the examination: what kind of check found it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All findings, in the order of the checks."""

    findings: tuple[Finding, ...]

    def count(self, level: Level) -> int:
        """How many findings are of `level`."""
        return sum(finding.level is level for finding in self.findings)

    @property
    def healthy(self) -> bool:
        """Whether there is no problem; warnings are none."""
        return self.count(Level.PROBLEM) == 0

    def as_json(self) -> dict[str, Any]:
        """The stable shape for programs: keys are only ever added."""
        return {
            "version": __version__,
            "healthy": self.healthy,
            "counts": {level.value: self.count(level) for level in Level},
            "findings": [asdict(finding) for finding in self.findings],
        }


def ok(name: str, seen: str, **facts: Any) -> Finding:
    """As it should be."""
    return Finding(name=name, level=Level.OK, seen=seen, facts=facts)


def note(name: str, seen: str, mend: str | None = None, **facts: Any) -> Finding:
    """Worth knowing."""
    return Finding(name=name, level=Level.NOTE, seen=seen, mend=mend, facts=facts)


def warning(name: str, seen: str, mend: str, **facts: Any) -> Finding:
    """Will go wrong one day."""
    return Finding(name=name, level=Level.WARNING, seen=seen, mend=mend, facts=facts)


def problem(name: str, seen: str, mend: str, **facts: Any) -> Finding:
    """Is wrong now."""
    return Finding(name=name, level=Level.PROBLEM, seen=seen, mend=mend, facts=facts)


def not_checked(name: str, why: str) -> Finding:
    """Nothing is known, because of `why`."""
    return Finding(name=name, level=Level.NOTE, seen=NOT_CHECKED + why, facts={"checked": False})
