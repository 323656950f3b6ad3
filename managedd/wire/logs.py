"""Log records."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from operator import itemgetter
from typing import Annotated, Any, Final

import orjson
from pydantic import AfterValidator

from managedd.clock import to_us
from managedd.model.logs import LogRecord, claimed_name
from managedd.wire.base import Body, Id, Int, Model, Row, Timestamp


class LogCreate(Body):
    """A log record to keep."""

    name: Annotated[str, AfterValidator(claimed_name)]
    """Cut, and not refused, where it is too long: the client would lose all the lines of its request."""
    level: Int
    message: str
    timestamp: Timestamp
    flow_run_id: Id | None = None
    task_run_id: Id | None = None


class Log(Row):
    """A log record."""

    name: str
    level: Int
    message: str
    timestamp: Timestamp
    flow_run_id: Id | None = None
    task_run_id: Id | None = None


class LogLine(Log):
    """A log record in a part of a log; its id is its cursor."""

    chars: Int | None
    """How long the message is that was cut, in characters; null: it is whole."""


class LogPart(Model):
    """Successive lines of one run's log."""

    lines: list[LogLine]
    first_line: Int
    """The number of the first of them, from 1 on."""
    total: Int
    """How many lines the log has, of the level that was asked for."""
    more_before: bool
    more_after: bool
    match: Id | None
    """The line that a search has found."""
    resume: Id | None
    """Where to search on, when none was found so far; null then: there is none."""
    searched: Int
    """How many lines the search has looked at."""


def records_of(logs: list[LogCreate]) -> list[LogRecord]:
    """The records as the store takes them."""
    return [
        LogRecord(log.name, log.level, log.message, to_us(log.timestamp), log.flow_run_id, log.task_run_id)
        for log in logs
    ]


_FIELDS: Final = itemgetter("name", "level", "message", "timestamp", "flow_run_id", "task_run_id")
_FIELD_COUNT: Final = 6
_MAX_LEVEL: Final = 1_000_000
_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MOMENT: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2})(?:\.([0-9]{6}))?(?:Z|\+00:00)"
)
"""Of UTC, with six digits behind the second or none."""


class _NotPlain(Exception):
    """Only the validator can tell."""


def plain_records(body: bytes) -> list[LogRecord] | None:
    """The records of a `list[LogCreate]` as JSON, where each is in the one form that clients write; None for any other body.

    Nothing is taken here that the validator would refuse, or would read in another way.
    """
    try:
        return _plain_records(body)
    # A field that is missing; one that is no text.
    except (_NotPlain, orjson.JSONDecodeError, KeyError, TypeError):
        return None


def _plain_records(body: bytes) -> list[LogRecord]:
    lines = orjson.loads(body)
    if type(lines) is not list:
        raise _NotPlain
    # The lines of one batch name few ids and few seconds.
    ids: set[str | None] = {None}
    seconds: dict[str, int] = {}
    records = []
    for line in lines:
        if type(line) is not dict or len(line) != _FIELD_COUNT:
            raise _NotPlain
        name, level, message, timestamp, flow_run_id, task_run_id = _FIELDS(line)
        if type(name) is not str or type(message) is not str or type(level) is not int or not 0 <= level <= _MAX_LEVEL:
            raise _NotPlain
        if flow_run_id not in ids:
            ids.add(_plain_id(flow_run_id))
        if task_run_id not in ids:
            ids.add(_plain_id(task_run_id))
        moment = _MOMENT.fullmatch(timestamp)
        if moment is None:
            raise _NotPlain
        second, digits = moment.groups("0")
        whole = seconds.get(second)
        if whole is None:
            whole = seconds[second] = _second_us(second)
        records.append(LogRecord(claimed_name(name), level, message, whole + int(digits), flow_run_id, task_run_id))
    return records


def _plain_id(id_: Any) -> str:
    if type(id_) is not str or not _ID.fullmatch(id_):
        raise _NotPlain
    return id_


def _second_us(second: str) -> int:
    try:
        return to_us(datetime.fromisoformat(second).replace(tzinfo=UTC))
    except ValueError:
        raise _NotPlain from None
