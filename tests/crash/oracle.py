"""What limits allow, reckoned from when each run was due, was claimed and ended: nothing here is asked of the daemon's own limiter.

All times are seconds since the epoch, of this host's clock, which is also the engine's.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

STEP_SECONDS = 0.1
"""How often utilisation is looked at."""
AT_ONCE_SECONDS = 0.3
"""What has held for so long, whoever hands out slots should have seen."""
SLACK = 1e-3


@dataclass(kw_only=True)
class Run:
    """A run and its only container; None: that never was, or not yet."""

    id: str
    workspace: str
    pool: str
    queue: str
    deployment: str
    memory_bytes: int
    due: float
    claimed: float | None = None
    over: float | None = None
    """When the run had its end state."""
    started: float | None = None
    """When the engine started its container."""
    died: float | None = None
    """When its container had ended, says the engine."""
    freed: float | None = None
    """When its end was on record, with its evidence and the rest of its log: its slot is another's from then on."""

    @property
    def levels(self) -> tuple[str, str, str]:
        """Whose slots its container takes."""
        return self.workspace, self.pool, self.queue

    def waits_at(self, moment: float) -> bool:
        gone = min(self.claimed or math.inf, self.over or math.inf)
        return self.due <= moment < gone

    def held_at(self, moment: float) -> bool:
        """Whether a slot was its."""
        return self.claimed is not None and self.claimed <= moment < (self.freed or math.inf)

    def minutes_at(self, moment: float) -> int:
        """What it has cost by then; who is about to start will cost a minute."""
        if self.claimed is None or self.claimed > moment:
            return 0
        if self.started is None or self.started >= moment:
            return 1
        return max(1, math.ceil((min(moment, self.died or math.inf) - self.started) / 60))

    @property
    def minutes(self) -> int:
        """What its container has cost in the end."""
        return 0 if self.started is None else self.minutes_at(math.inf)


@dataclass(frozen=True, kw_only=True)
class Minutes:
    """So many compute minutes, until the plan was changed."""

    limit: int
    until: float = math.inf


@dataclass(frozen=True, kw_only=True)
class Starts:
    """A rate of starts."""

    burst: int
    per_second: float


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is limited, by the names of workspaces, pools, queues and deployments; what is not named has no limit."""

    memory_bytes: int
    slots: Mapping[str, int]
    deployments: Mapping[str, int]
    minutes: Mapping[str, Minutes] = field(default_factory=dict)
    starts: Mapping[str, Starts] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Use:
    """Slot seconds that were used, and those that could have been used besides."""

    used: float
    idle: float
    idle_by_workspace: Mapping[str, float]

    @property
    def utilisation(self) -> float:
        return self.used / (self.used + self.idle)


class Oracle:
    """Judges what has happened to `runs` under `limits`."""

    def __init__(self, runs: Sequence[Run], limits: Limits) -> None:
        self._runs = runs
        self._limits = limits

    def complaints(self) -> Iterator[str]:
        """Every limit that was exceeded, in words; most of them by the engine's account of when containers ran."""
        ran = [(run, run.started, run.died) for run in self._runs if run.started is not None and run.died is not None]
        for level, slots in self._limits.slots.items():
            most = peak((began, ended, 1) for run, began, ended in ran if level in run.levels)
            if most > slots:
                yield f"{level}: {most} containers at once, allowed: {slots}"
        for deployment, slots in self._limits.deployments.items():
            most = peak(
                (run.claimed, run.over, 1)
                for run in self._runs
                if run.deployment == deployment and run.claimed is not None and run.over is not None
            )
            if most > slots:
                yield f"{deployment}: {most} runs at once, allowed: {slots}"
        memory = peak((began, ended, run.memory_bytes) for run, began, ended in ran)
        if memory > self._limits.memory_bytes:
            yield f"host: {memory} bytes at once, allowed: {self._limits.memory_bytes}"
        yield from self._begun_without_minutes()
        yield from self._begun_too_often()
        yield from self._cancelled_for_nothing()

    def _begun_without_minutes(self) -> Iterator[str]:
        for workspace, minutes in self._limits.minutes.items():
            for run in self._of(workspace):
                if run.claimed is None or run.claimed >= minutes.until:
                    continue
                before = self._minutes(workspace, run.claimed) - run.minutes_at(run.claimed)
                if before >= minutes.limit:
                    yield f"{run.id} was claimed when {before} of {minutes.limit} minutes of {workspace} were used"

    def _begun_too_often(self) -> Iterator[str]:
        for workspace, starts in self._limits.starts.items():
            claims = sorted(run.claimed for run in self._of(workspace) if run.claimed is not None)
            for first, began in enumerate(claims):
                for last in range(first, len(claims)):
                    allowed = starts.burst + (claims[last] - began) * starts.per_second + SLACK
                    if last - first + 1 > allowed:
                        yield f"{workspace}: {last - first + 1} starts in {claims[last] - began:.2f} s, allowed: {allowed:.2f}"

    def _cancelled_for_nothing(self) -> Iterator[str]:
        """Who was not let in because its deployment was full, which it was not."""
        for run in self._runs:
            if run.claimed is not None or run.over is None or run.deployment not in self._limits.deployments:
                continue
            holders = [other for other in self._runs if other.deployment == run.deployment and other is not run]
            taken = sum(
                other.claimed is not None
                and other.claimed <= run.over + SLACK
                and run.over - SLACK <= (other.over or 0)
                for other in holders
            )
            if taken < self._limits.deployments[run.deployment]:
                yield f"{run.id} was cancelled while {taken} runs of {run.deployment} held its slots"

    def passed_over(self, urgent: str, other: str) -> list[str]:
        """Runs of queue `other` that were claimed while one of `urgent` of the same pool waited and could have gone."""
        found = []
        for run in self._runs:
            if run.queue != other or run.claimed is None:
                continue
            before = run.claimed - AT_ONCE_SECONDS
            waiting = any(
                one.queue == urgent and one.waits_at(before) and one.waits_at(run.claimed) for one in self._runs
            )
            holders = sum(
                one.queue == urgent
                and one.claimed is not None
                and one.claimed < run.claimed
                and before < (one.freed or math.inf)
                for one in self._runs
            )
            if waiting and holders < self._limits.slots[urgent]:
                found.append(run.id)
        return found

    def use(self, begin: float, end: float, outages: Sequence[tuple[float, float]]) -> Use:
        """How the slots were used between the two moments, outside of the outages.

        A slot is used from the claim until the end is on record: making a container, and reading the last of its log, is work for its run,
        and most of it where runs are short. A slot idles while a run waits for which every limit has room; so many slots as such runs
        could have gone at once, beside all that were held.
        """
        used = 0
        idle: Counter[str] = Counter()
        steps = int((end - begin) / STEP_SECONDS)
        for moment in (begin + number * STEP_SECONDS for number in range(steps)):
            if any(since <= moment < until for since, until in outages):
                continue
            used += sum(run.held_at(moment) for run in self._runs)
            idle.update(run.workspace for run in self._could_go(moment))
        return Use(
            used=used * STEP_SECONDS,
            idle=idle.total() * STEP_SECONDS,
            idle_by_workspace={workspace: round(count * STEP_SECONDS, 1) for workspace, count in idle.items()},
        )

    def _could_go(self, moment: float) -> list[Run]:
        """As many waiting runs as there is room for besides what is held."""
        limits = self._limits
        waiting = sorted(
            (run for run in self._runs if run.waits_at(moment)), key=lambda run: (run.memory_bytes, run.due)
        )
        if not waiting:
            return []
        held = [run for run in self._runs if run.held_at(moment)]
        taken = Counter(level for run in held for level in run.levels)
        taken.update(run.deployment for run in held if moment < (run.over or math.inf))
        free_memory = limits.memory_bytes - sum(run.memory_bytes for run in held)
        left = {name: self._minutes_left(name, moment) for name in limits.minutes}
        starts = {name: self._starts_left(name, moment) for name in limits.starts}
        going = []
        for run in waiting:
            keys = (*run.levels, run.deployment)
            rooms = {**limits.slots, **limits.deployments}
            if any(taken[key] >= rooms[key] for key in keys if key in rooms) or run.memory_bytes > free_memory:
                continue
            if left.get(run.workspace, 1) < 1 or starts.get(run.workspace, 1) < 1:
                continue
            taken.update(keys)
            free_memory -= run.memory_bytes
            for tokens in (left, starts):
                if run.workspace in tokens:
                    tokens[run.workspace] -= 1
            going.append(run)
        return going

    def _minutes_left(self, workspace: str, moment: float) -> float:
        minutes = self._limits.minutes[workspace]
        return math.inf if moment >= minutes.until else minutes.limit - self._minutes(workspace, moment)

    def _starts_left(self, workspace: str, moment: float) -> float:
        starts = self._limits.starts[workspace]
        tokens, at = float(starts.burst), 0.0
        for claimed in sorted(run.claimed for run in self._of(workspace) if run.claimed is not None):
            if claimed > moment:
                break
            tokens, at = min(starts.burst, tokens + (claimed - at) * starts.per_second) - 1, claimed
        return min(starts.burst, tokens + (moment - at) * starts.per_second)

    def _minutes(self, workspace: str, moment: float) -> int:
        return sum(run.minutes_at(moment) for run in self._of(workspace))

    def _of(self, workspace: str) -> Iterator[Run]:
        return (run for run in self._runs if run.workspace == workspace)


def peak(stretches: Iterable[tuple[float, float, int]]) -> int:
    """The highest sum of the weights of (begin, end, weight) that go on at one moment; where one ends another may begin."""
    changes = [change for began, ended, weight in stretches for change in ((began, weight), (ended, -weight))]
    most = now = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most
