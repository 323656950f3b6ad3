"""What became of a run's time: queued, pull, install, start, run, of each attempt. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from managedd.ui import words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

NAMES: Final = ("queued", "pull", "install", "start", "run")
MEANINGS: Final = {
    "queued": "from when it was due to when it was taken",
    "pull": "until its image was there and its container was started",
    "install": "until its packages were installed",
    "start": "until its flow ran",
    "run": "until it ended",
}
OPEN_SHARE: Final = 0.3
"""How much of the bar at least is for what goes on: nobody knows how long that will be."""
_FULL_SECONDS: Final = 10.0
"""What is over takes less of it while it is less than that."""
_LEAST: Final = 0.8
_TERMINAL: Final = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A stretch of an attempt."""

    name: str
    begin: datetime
    end: datetime | None
    """None: it goes on."""
    x: float = 0.0
    width: float = 0.0
    """In hundredths of the bar."""

    @property
    def seconds(self) -> float | None:
        """How long it was; None: it goes on."""
        return None if self.end is None else (self.end - self.begin).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt's phases, in their order."""

    number: int
    phases: tuple[Phase, ...]


@dataclass(frozen=True, slots=True)
class _State:
    type: str
    at: datetime
    due: datetime


def attempts(executions: Sequence[Mapping[str, Any]], states: Sequence[Mapping[str, Any]]) -> list[Attempt]:
    """Of a run's executions and states, as the API answers them; a run that waits for its first or next attempt has one that is queued.

    Where there are no executions, as of runs by workers of the user's own, states alone tell of one attempt.
    """
    told = _told(states)
    if not executions:
        found = _of_states(told)
        return [Attempt(number=1, phases=_laid_out(found))] if found else []
    made = []
    ordered = sorted(executions, key=lambda each: each["attempt"])
    for place, execution in enumerate(ordered):
        following = ordered[place + 1]["claimed_at"] if place + 1 < len(ordered) else None
        phases = _of_execution(execution, told, words.moment(following))
        made.append(Attempt(number=execution["attempt"], phases=_laid_out(phases)))
    if told and told[-1].type == "SCHEDULED" and ordered[-1]["exited_at"]:
        waits = Phase(name="queued", begin=_due(told, len(told) - 1), end=None)
        made.append(Attempt(number=ordered[-1]["attempt"] + 1, phases=_laid_out([waits])))
    return made


def _told(states: Sequence[Mapping[str, Any]]) -> list[_State]:
    found = []
    for each in states:
        at = words.moment(each["timestamp"])
        assert at is not None
        scheduled = words.moment((each.get("state_details") or {}).get("scheduled_time"))
        found.append(_State(each["type"], at, max(at, scheduled or at)))
    return sorted(found, key=lambda each: each.at)


def _due(told: Sequence[_State], last: int) -> datetime:
    """Since when the run had been waiting in state `last`, over all the states in which it waited one after the other."""
    first = last
    while first > 0 and told[first - 1].type == "SCHEDULED":
        first -= 1
    return told[first].due


def _of_execution(execution: Mapping[str, Any], told: Sequence[_State], until: datetime | None) -> list[Phase]:
    claimed = words.moment(execution["claimed_at"])
    assert claimed is not None
    waited = [place for place, each in enumerate(told) if each.type == "SCHEDULED" and each.at <= claimed]
    started, installed = words.moment(execution["started_at"]), words.moment(execution["installed_at"])
    running = _first(told, "RUNNING", claimed, until)
    ended = words.moment(execution["exited_at"]) or _end(told, claimed, until)
    if running is not None:
        # The flow runs: whatever came before is over, also where nobody has said so.
        started = min(started, running) if started else running
        installed = min(installed, running) if installed else running
    begin = _due(told, waited[-1]) if waited else claimed
    marks = [min(begin, claimed), claimed, started, installed, running, ended]
    return _stretches(NAMES, marks)


def _of_states(told: Sequence[_State]) -> list[Phase]:
    if not told:
        return []
    begin = told[0].due if told[0].type == "SCHEDULED" else told[0].at
    running = _first(told, "RUNNING", told[0].at, None)
    pending = _first(told, "PENDING", told[0].at, None)
    ended = told[-1].at if told[-1].type in _TERMINAL else None
    taken = min((each for each in (pending, running) if each is not None), default=None)
    return _stretches(("queued", "start", "run"), [min(begin, taken or begin), taken, running, ended])


def _stretches(names: Sequence[str], marks: Sequence[datetime | None]) -> list[Phase]:
    """One stretch between each two marks; the last mark is the end, and what comes before it but never began is left out."""
    end, found = marks[-1], []
    begin = marks[0]
    for name, mark in zip(names, marks[1:], strict=True):
        assert begin is not None
        if mark is None:
            found.append(Phase(name=name, begin=begin, end=None if end is None else max(begin, end)))
            break
        found.append(Phase(name=name, begin=begin, end=max(begin, mark)))
        begin = max(begin, mark)
    return found


def _first(told: Sequence[_State], type_: str, since: datetime, until: datetime | None) -> datetime | None:
    return next(
        (each.at for each in told if each.type == type_ and each.at >= since and (until is None or each.at < until)),
        None,
    )


def _end(told: Sequence[_State], since: datetime, until: datetime | None) -> datetime | None:
    return next(
        (
            each.at
            for each in told
            if each.type in _TERMINAL and each.at >= since and (until is None or each.at < until)
        ),
        None,
    )


def _laid_out(phases: Sequence[Phase]) -> tuple[Phase, ...]:
    known = sum(each.seconds or 0.0 for each in phases)
    is_open = any(each.end is None for each in phases)
    least = _LEAST * len(phases)
    room = max(0.0, (100.0 * (1 - OPEN_SHARE) * min(1.0, known / _FULL_SECONDS) if is_open else 100.0) - least)
    made, x = [], 0.0
    for each in phases:
        if each.end is None:
            width = 100.0 - x
        else:
            width = _LEAST + (room * (each.seconds or 0.0) / known if known else room / len(phases))
        width = min(width, 100.0 - x)
        made.append(Phase(name=each.name, begin=each.begin, end=each.end, x=round(x, 3), width=round(width, 3)))
        x += width
    return tuple(made)
