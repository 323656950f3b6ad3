"""The logging handler inside a run: each record is one line, a mark and a JSON object, that `model/logs.py` reads back.

Placed inside the run as the module `managedd_run_log` and imported by the run's own Python (3.9 or newer): standard library alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import logging
import os
import select
import sys
import uuid
from typing import Any

with contextlib.suppress(ImportError):
    # The client loads its logging before it fetches any code.
    import managedd_run_git  # type: ignore[import-not-found]

    managedd_run_git.guard()

RECORD_BYTES = 1_000_000
"""What one line may take; a longer message is cut, as the client itself does at this size."""
CUT = "... [truncated]"


class RunLogHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Every record that reaches it is one whole line of the stream, exactly once, however many loggers share the handler."""

    def __init__(self, stream: Any = None, skip: tuple[str, ...] = ()) -> None:
        super().__init__(stream)
        self._skip = tuple(skip)
        self._lock_of: tuple[int, int] | None = None

    def filter(self, record: logging.LogRecord) -> Any:
        if not getattr(record, "send_to_api", True) or getattr(record, "_managedd_written", False):
            return False
        if self._skip and any(record.name == name or record.name.startswith(name + ".") for name in self._skip):
            return False
        return super().filter(record)

    def emit(self, record: logging.LogRecord) -> None:
        record._managedd_written = True
        try:
            line = self.format(record)
            with self._whole_lines():
                self._write(line + self.terminator)
        except Exception:
            self.handleError(record)

    def _write(self, text: str) -> None:
        """All of it is in the stream. One without a buffer drops the rest of what a pipe takes only a part of, as at a signal."""
        descriptor = None
        if isinstance(self.stream, io.TextIOWrapper):
            with contextlib.suppress(OSError):
                descriptor = self.stream.fileno()
        if descriptor is None:
            self.stream.write(text)
            self.flush()
            return
        _patiently(descriptor, self.stream.flush)
        left = memoryview(text.encode())
        while left:
            written = _patiently(descriptor, lambda: os.write(descriptor, left))  # noqa: B023 (called at once)
            left = left[written:]

    def handleError(self, record: logging.LogRecord) -> None:
        """A record that cannot be written is dropped without a word when the stream is closed: the process is ending."""
        if not getattr(self.stream, "closed", False):
            super().handleError(record)

    def format(self, record: logging.LogRecord) -> str:
        message = super().format(record)
        flow_run_id, task_run_id = run_ids(record)
        fields = {
            "name": record.name, "level": record.levelno, "message": message, "created_us": int(record.created * 1_000_000),
            "flow_run_id": flow_run_id, "task_run_id": task_run_id,
        }  # fmt: skip
        line = json.dumps(fields)
        while len(line) > RECORD_BYTES:
            message = message[: len(message) * RECORD_BYTES // len(line) - len(CUT) - 1000]
            line = json.dumps({**fields, "message": message + CUT})
        return "\x1e" + line

    @contextlib.contextmanager
    def _whole_lines(self) -> Any:
        """No other process of the run writes a record meanwhile: a pipe tears what is longer than a page apart."""
        path = os.environ.get("PREFECT_LOGGING_SETTINGS_PATH")
        descriptor = None
        if path:
            with contextlib.suppress(OSError):
                if self._lock_of is None or self._lock_of[0] != os.getpid():
                    # A lock belongs to the open file, which a fork would share.
                    self._lock_of = (os.getpid(), os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                descriptor = self._lock_of[1]
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            if descriptor is not None:
                with contextlib.suppress(OSError):
                    fcntl.flock(descriptor, fcntl.LOCK_UN)


def _patiently(descriptor: int, write: Any) -> Any:
    """What writing came to, when there was room in a pipe of which somebody has made that it keeps nobody waiting."""
    while True:
        try:
            return write()
        except BlockingIOError:
            room = select.poll()
            room.register(descriptor, select.POLLOUT)
            room.poll()


def run_ids(record: logging.LogRecord) -> tuple[str | None, str | None]:
    """The flow run and the task run that the record belongs to: its own word, else the context it was made in."""
    flow_run_id = _uuid(getattr(record, "flow_run_id", None))
    task_run_id = _uuid(getattr(record, "task_run_id", None))
    if flow_run_id is None:
        with contextlib.suppress(Exception):
            context = sys.modules["prefect.context"]
            if (task := context.TaskRunContext.get()) is not None:
                flow_run_id, task_run_id = _uuid(task.task_run.flow_run_id), _uuid(task.task_run.id)
            elif (flow := context.FlowRunContext.get()) is not None:
                flow_run_id = _uuid(flow.flow_run.id)
    return flow_run_id, task_run_id


def _uuid(value: object) -> str | None:
    with contextlib.suppress(ValueError):
        return str(uuid.UUID(str(value)))
    return None
