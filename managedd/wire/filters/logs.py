"""Which log records to take."""

from __future__ import annotations

from managedd.wire.filters.leaves import IdAny, IdAnyNull, NumberRange, OperatorFilter, TextSearch, TimeRange


class LogFilterFlowRunId(IdAny):
    """On the log's `flow_run_id`."""


class LogFilterLevel(NumberRange):
    """On the log's `level`."""


class LogFilterTaskRunId(IdAnyNull):
    """On the log's `task_run_id`."""


class LogFilterTextSearch(TextSearch):
    """On the log's `text_search`."""


class LogFilterTimestamp(TimeRange):
    """On the log's `timestamp`."""


class LogFilter(OperatorFilter):
    """Which log records to take."""

    level: LogFilterLevel | None = None
    timestamp: LogFilterTimestamp | None = None
    flow_run_id: LogFilterFlowRunId | None = None
    task_run_id: LogFilterTaskRunId | None = None
    text: LogFilterTextSearch | None = None
