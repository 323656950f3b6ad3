"""What the bench found: figures with their unit and number of samples, targets, the file, the comparison with an earlier one."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FORMAT = 1
"""Of the file; another number means that older files can't be compared."""

Better = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One number of one system, and how many samples it stands for."""

    value: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One thing that was measured. `peer` None: only managedd has it, or it could not be measured."""

    key: str
    title: str
    unit: str
    better: Better
    managedd: Reading | None = None
    peer: Reading | None = None
    shown: bool = True
    """In the table; otherwise in the file alone."""

    @property
    def ratio(self) -> float | None:
        """How many times better managedd is; None when one of both is missing or nothing."""
        if self.managedd is None or self.peer is None:
            return None
        ours, theirs = self.managedd.value, self.peer.value
        if self.better == "lower":
            ours, theirs = theirs, ours
        return ours / theirs if theirs else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What one figure shall be: managedd's own value, or its ratio to the peer."""

    key: str
    of: Literal["value", "ratio"]
    limit: float

    def held(self, figure: Figure) -> bool | None:
        """Whether the figure is within the target; None when it was not measured."""
        if self.of == "ratio":
            return None if figure.ratio is None else figure.ratio >= self.limit
        return None if figure.managedd is None else figure.managedd.value <= self.limit

    def __str__(self) -> str:
        return f"≥ {self.limit:g} ×" if self.of == "ratio" else f"≤ {self.limit:g}"


TARGETS = {
    target.key: target
    for target in (
        Target(key="start.ready", of="value", limit=1.0),
        Target(key="memory.idle", of="value", limit=80.0),
        Target(key="creates.1", of="ratio", limit=20.0),
        Target(key="set_state.1", of="ratio", limit=20.0),
        Target(key="reads.1", of="ratio", limit=20.0),
        *(
            Target(key=f"{shape}.64.errors", of="value", limit=0.0)
            for shape in ("creates", "set_state", "reads", "filter", "logs")
        ),
        Target(key="runs.dispatch.p95", of="value", limit=50.0),
        Target(key="runs.cold", of="value", limit=1.15),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One run of the bench."""

    facts: dict[str, Any]
    """When, where, with what: machine, versions, commit, options."""
    figures: Sequence[Figure]
    notes: Sequence[str] = field(default_factory=tuple)
    """What could not be measured, and why."""

    def write(self, path: Path) -> None:
        """The file holds the whole report."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"format": FORMAT, **asdict(self)}
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> Report:
        """The report in the file. Raises ValueError for another format."""
        content = json.loads(path.read_text())
        if content.get("format") != FORMAT:
            raise ValueError(f"{path} is no report of this bench (format {content.get('format')}, not {FORMAT})")
        return cls(facts=content["facts"], figures=[_figure(one) for one in content["figures"]], notes=content["notes"])


def _figure(content: dict[str, Any]) -> Figure:
    readings = {name: content[name] and Reading(**content[name]) for name in ("managedd", "peer")}
    return Figure(**{**content, **readings})


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which `percent` of the values lie, interpolated between neighbours. Raises ValueError for no values."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below, above = math.floor(place), math.ceil(place)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One system's figure in two reports."""

    key: str
    title: str
    system: str
    unit: str
    before: float
    after: float
    gain: float | None
    """How many times better it is now; below 1 worse; None when one of both is nothing."""


def changes(before: Report, after: Report) -> list[Change]:
    """Every figure that both reports have, in the order of the later one."""
    old = {figure.key: figure for figure in before.figures}
    found = []
    for figure in after.figures:
        for system in ("managedd", "peer"):
            was: Reading | None = getattr(old.get(figure.key), system, None)
            now: Reading | None = getattr(figure, system)
            if was is None or now is None:
                continue
            gain = now.value / was.value if was.value and now.value else None
            if gain is not None and figure.better == "lower":
                gain = 1 / gain
            found.append(
                Change(
                    key=figure.key, title=figure.title, system=system, unit=figure.unit, before=was.value, after=now.value, gain=gain
                )
            )  # fmt: skip
    return found
