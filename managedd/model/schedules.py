"""Schedules as values, and their JSON on the wire.

What a schedule means in time is `orchestration/recurrence.py`'s business; here is only its shape.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from managedd.clock import iso, to_us
from managedd.errors import invalid

DEFAULT_ANCHOR_US = to_us(datetime(2020, 1, 1, tzinfo=UTC))
"""Where the grid of an interval hangs, and an RRULE without DTSTART begins."""
MAX_INTERVAL_US = 1000 * 366 * 86_400 * 1_000_000
_FIELDS = {
    "cron": frozenset({"cron", "timezone", "day_or"}),
    "interval": frozenset({"interval", "anchor_date", "timezone"}),
    "rrule": frozenset({"rrule", "timezone"}),
}
_ISO_DURATION = re.compile(
    r"(?P<sign>[+-])?P(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+(?:\.\d+)?)S)?)?",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CronSchedule:
    """Wall-clock times by a cron expression; `day_or` joins day of month and weekday with "or"."""

    cron: str
    timezone: str | None = None
    day_or: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalSchedule:
    """Every `interval_us` on a grid through `anchor_us`; from a day upwards the grid is wall-clock time."""

    interval_us: int
    anchor_us: int = DEFAULT_ANCHOR_US
    timezone: str | None = "UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class RRuleSchedule:
    """Wall-clock times by RFC 5545; the zone comes from `timezone`, never from the rule's text."""

    rrule: str
    timezone: str | None = "UTC"


Schedule = CronSchedule | IntervalSchedule | RRuleSchedule


def from_json(data: Mapping[str, Any], *, default_anchor_us: int = DEFAULT_ANCHOR_US) -> Schedule:
    """The schedule that the wire's object describes; a wrong shape is an INVALID error that names the field.

    Whether a cron expression, rule or time zone is one at all is for `recurrence.validate` to say.
    """
    if not isinstance(data, Mapping):
        raise invalid("schedule: must be an object with one of 'cron', 'interval' or 'rrule'")
    kinds = [kind for kind in _FIELDS if data.get(kind) is not None]
    if len(kinds) != 1:
        what = " and ".join(repr(kind) for kind in kinds) if kinds else "none of them"
        raise invalid(f"schedule: must have exactly one of 'cron', 'interval' or 'rrule', and has {what}")
    kind = kinds[0]
    unknown = sorted(str(key) for key, value in data.items() if key not in _FIELDS[kind] and value is not None)
    if unknown:
        allowed = ", ".join(sorted(_FIELDS[kind]))
        raise invalid(f"schedule.{unknown[0]}: no such field in a schedule with '{kind}'; allowed: {allowed}")
    timezone = _timezone(data.get("timezone"))
    if kind == "cron":
        day_or = data.get("day_or", True)
        if not isinstance(day_or, bool):
            raise invalid("schedule.day_or: must be true or false")
        return CronSchedule(cron=_text(data, "cron"), timezone=timezone, day_or=day_or)
    if kind == "rrule":
        return RRuleSchedule(rrule=_text(data, "rrule"), timezone=timezone or "UTC")
    anchor = data.get("anchor_date")
    return IntervalSchedule(
        interval_us=_interval_us(data["interval"]),
        anchor_us=default_anchor_us if anchor is None else _anchor_us(anchor, timezone),
        timezone=timezone or "UTC",
    )


def to_json(schedule: Schedule) -> dict[str, Any]:
    """The wire's object: durations as seconds, the anchor as ISO-8601."""
    match schedule:
        case CronSchedule():
            return {"cron": schedule.cron, "timezone": schedule.timezone, "day_or": schedule.day_or}
        case IntervalSchedule():
            return {
                "interval": schedule.interval_us / 1_000_000,
                "anchor_date": iso(schedule.anchor_us),
                "timezone": schedule.timezone,
            }
        case RRuleSchedule():
            return {"rrule": schedule.rrule, "timezone": schedule.timezone}


def _text(data: Mapping[str, Any], field: str) -> str:
    value = data[field]
    if not isinstance(value, str):
        raise invalid(f"schedule.{field}: must be a text")
    return value


def _timezone(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise invalid("schedule.timezone: must be the name of a time zone, for example 'Europe/Berlin'")
    return value


def _interval_us(value: Any) -> int:
    allowed = "a number of seconds greater than 0, or an ISO-8601 duration such as 'PT1H30M'"
    seconds: float
    if isinstance(value, str):
        found = _ISO_DURATION.fullmatch(value.strip().upper())
        if found is not None and any(part is not None for name, part in found.groupdict().items() if name != "sign"):
            part = {name: float(number or 0) for name, number in found.groupdict().items() if name != "sign"}
            days = part["weeks"] * 7 + part["days"]
            seconds = ((days * 24 + part["hours"]) * 60 + part["minutes"]) * 60 + part["seconds"]
            seconds = -seconds if found["sign"] == "-" else seconds
        else:
            try:
                seconds = float(value)
            except ValueError:
                raise invalid(f"schedule.interval: {value[:40]!r} is not {allowed}") from None
    elif isinstance(value, int | float) and not isinstance(value, bool):
        try:
            seconds = float(value)
        except OverflowError:
            raise invalid("schedule.interval: longer than 1000 years") from None
    else:
        raise invalid(f"schedule.interval: must be {allowed}")
    if not math.isfinite(seconds) or seconds * 1_000_000 > MAX_INTERVAL_US:
        raise invalid("schedule.interval: longer than 1000 years")
    interval_us = round(seconds * 1_000_000)
    if interval_us <= 0:
        raise invalid(f"schedule.interval: must be {allowed}")
    return interval_us


def _anchor_us(value: Any, timezone: str | None) -> int:
    if not isinstance(value, str):
        raise invalid("schedule.anchor_date: must be an ISO-8601 date and time")
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        raise invalid(
            f"schedule.anchor_date: {value[:40]!r} is not an ISO-8601 date and time such as '2020-01-01T00:00:00Z'",
        ) from None
    if moment.tzinfo is None and timezone is not None:
        try:
            moment = moment.replace(tzinfo=ZoneInfo(timezone))
        except (KeyError, ValueError, OSError):
            raise invalid(f"schedule.timezone: {timezone[:60]!r} is not a time zone of the IANA database") from None
    try:
        return to_us(moment)
    except OverflowError:
        raise invalid("schedule.anchor_date: outside the years 1 to 9999") from None
