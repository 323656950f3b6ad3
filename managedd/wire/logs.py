"""Log records."""

from __future__ import annotations

from managedd.wire.base import Body, Id, Int, Row, Timestamp


class LogCreate(Body):
    """A log record to keep."""

    name: str
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
