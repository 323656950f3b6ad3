"""What a handler is given: who asks, for which workspace, and the store."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio

from managedd.api.audit import Note, Refusals, recorded
from managedd.api.examinations import Examinations
from managedd.api.foretelling import Foretelling
from managedd.api.guard import Guard
from managedd.api.key_uses import KeyUses
from managedd.api.key_watch import HeldBy, Holder, KeyWatch
from managedd.api.log_view import Surveys
from managedd.api.log_windows import LogWindows
from managedd.api.news import News
from managedd.api.preconditions import when_unchanged
from managedd.api.shared_pages import SharedPages
from managedd.api.sockets import Sockets
from managedd.bus import Topic
from managedd.model.access import Level
from managedd.model.log_limits import SentGates
from managedd.store import events
from managedd.store import logs as log_store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import tzinfo

    from aiohttp import web

    from managedd.api.auth import Listener
    from managedd.api.limits import Limits
    from managedd.api.openapi import ServedDocument
    from managedd.api.operation import Operation
    from managedd.bus import Bus
    from managedd.clock import Clock
    from managedd.config import Settings
    from managedd.store.database import Database, Tx

T = TypeVar("T")

THREADS = 2
READ_SECONDS: Final = 20.0
"""How long a client's query may take, so that a few of them can't keep the others out for long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who asks."""

    kind: str
    """`operator` (the local socket or an open loopback listener), `client` (`server.auth_string`), `key`, `run` or `anonymous`."""
    level: Level
    """What it may do, beside what a run's key opens."""
    name: str = ""
    """A key's name, for people."""
    workspace_id: str | None = None
    """The only workspace it may enter; None: any."""
    account_id: str | None = None
    """That workspace's account."""
    flow_run_id: str | None = None
    """A run's key is for this run and its descendants."""
    execution_id: str | None = None
    key_id: str | None = None
    session_id: str | None = None
    """Of a browser, which its key or auth string has opened."""

    @property
    def holder(self) -> Holder | None:
        """With what its sockets end: its browser's session, its key, or its execution."""
        if self.session_id is not None:
            return Holder(HeldBy.SESSION, self.session_id)
        if self.key_id is not None:
            return Holder(HeldBy.KEY, self.key_id)
        return None if self.execution_id is None else Holder(HeldBy.EXECUTION, self.execution_id)


ANONYMOUS: Final = Actor(kind="anonymous", level=Level.ANY)
"""Who has shown no credential yet, or needs none."""


@dataclass(slots=True, kw_only=True)
class Services:
    """What the api layer works with; built once by the daemon."""

    settings: Settings
    db: Database
    logs: Database
    bus: Bus
    clock: Clock
    zone: tzinfo
    """Of whose months compute time is counted."""
    ready: bool = False
    """False: every request but /health is answered 503 + Retry-After + Prefect-Maintenance."""
    stopping: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    """What the daemon knows about itself and shows: driver, versions, listeners."""
    sockets: Sockets = field(default_factory=Sockets)
    """Every open websocket, so that the daemon can close them when it stops."""
    threads: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(THREADS))
    """For work that would keep the loop from everybody else."""
    foretelling: Foretelling = field(default_factory=Foretelling)
    """For schedules that somebody has just sent."""
    windows: LogWindows = field(init=False)
    """What the followers of runs' logs share; its reader is one of the daemon's loops."""
    event_news: News[events.EventGlimpse] = field(init=False)
    """What the followers of events share; its reader is one of the daemon's loops."""
    log_news: News[log_store.LogGlimpse] = field(init=False)
    """What those share who follow log lines by a filter; likewise."""
    keys: KeyWatch = field(init=False)
    """What ends with a key; its reader is one of the daemon's loops."""
    key_uses: KeyUses = field(init=False)
    """When each key was used last; its writer is one of the daemon's loops."""
    guard: Guard = field(init=False)
    """Who has told too many wrong credentials."""
    refusals: Refusals = field(init=False)
    """Who was refused what, for the audit log; its writer is one of the daemon's loops."""
    examinations: Examinations = field(init=False)
    """Of this host, by the doctor."""
    log_gates: SentGates = field(init=False)
    """How fast runs send log lines by themselves, and what their logs may have."""
    pages: SharedPages = field(default_factory=SharedPages)
    """What they read."""
    log_surveys: Surveys = field(default_factory=Surveys)
    """How the lines of logs lie that somebody looks into."""

    def __post_init__(self) -> None:
        self.windows = LogWindows(self.db, self.logs, self.bus, self.clock)
        self.keys = KeyWatch(self.db, self.bus)
        self.key_uses = KeyUses(self.db, self.clock)
        self.guard = Guard(self.clock)
        self.refusals = Refusals(self.db)
        self.examinations = Examinations(self.clock)
        self.log_gates = SentGates(self.settings.runs.log_limits)
        self.event_news = News(self.db, self.bus, Topic.EVENTS, events.head, events.glimpse)
        self.log_news = News(self.logs, self.bus, Topic.LOGS, log_store.head, log_store.glimpse)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One request."""

    services: Services
    workspace: str
    account: str
    actor: Actor
    operation: Operation
    path_values: Mapping[str, str]
    """What the path names, unquoted."""
    listener: Listener
    """Where the request came in; a websocket's auth message is checked against it."""
    headers: Mapping[str, str]
    request: web.Request
    document: ServedDocument
    limits: Limits
    note: Note = field(default_factory=Note)

    async def read(self, fn: Callable[[Tx], T]) -> T:
        """`fn` in a read transaction of this workspace."""
        return await self.services.db.read(fn, workspace=self.workspace, lane="clients", deadline_seconds=READ_SECONDS)

    async def look(self, fn: Callable[[Tx], T]) -> T:
        """`fn`, which reads a few rows by their keys, in a read transaction of this workspace."""
        return await self.services.db.look(fn, workspace=self.workspace, lane="clients")

    async def write(self, fn: Callable[[Tx], T]) -> T:
        """`fn` committed in this workspace, with its line in the audit log if the operation has one."""
        result = await self.services.db.write(recorded(self, fn), workspace=self.workspace)
        self.note.is_written = True
        return result

    async def change(self, fn: Callable[[Tx], T], seen: Callable[[Tx], Mapping[str, Any]]) -> T:
        """Like `write`, for what changes what `seen` shows. Raises ManagedError(CHANGED) where the request has an `If-Match` that is past."""
        return await self.write(when_unchanged(self.headers.get("If-Match"), seen, fn))

    async def read_events(self, fn: Callable[[Tx], T]) -> T:
        """`fn`, a query of events, in a read transaction of this workspace that finds all that were stored before."""
        await events.settle(self.services.db)
        return await self.read(fn)

    async def read_logs(self, fn: Callable[[Tx], T]) -> T:
        """`fn` in a read transaction of the log store."""
        return await self.services.logs.read(
            fn, workspace=self.workspace, lane="clients", deadline_seconds=READ_SECONDS
        )

    async def write_logs(self, fn: Callable[[Tx], T], *, durable: bool = True) -> T:
        """`fn` committed in the log store; durable: before the answer it is on disk."""
        return await self.services.logs.write(fn, workspace=self.workspace, durable=durable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer whose status or headers the operation decides itself; `body` is wire data, or bytes as they are."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
