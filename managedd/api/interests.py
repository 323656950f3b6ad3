"""What can be told of a filter of events or log lines without asking the store: whom to wake, and with whom a page can be shared."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from managedd.clock import to_us
from managedd.store.filtering import names_any

if TYPE_CHECKING:
    from managedd.store.events import EventGlimpse
    from managedd.store.logs import LogGlimpse
    from managedd.wire.filters.events import EventFilter
    from managedd.wire.filters.logs import LogFilter

_ALWAYS: Final = {"since": datetime.min.replace(tzinfo=UTC), "until": datetime.max.replace(tzinfo=UTC)}


@dataclass(frozen=True, slots=True, kw_only=True)
class EventInterest:
    """What a filter asks of an event's own name and resource; None: nothing."""

    workspace_id: str
    keys: frozenset[str] | None = None
    """Names."""
    prefixes: tuple[str, ...] | None = None
    resources: frozenset[str] | None = None

    def may_admit(self, event: EventGlimpse) -> bool:
        """False: the filter leaves the event out, whatever else it asks for."""
        return (
            event.workspace_id == self.workspace_id
            and (self.keys is None or event.key in self.keys)
            and (self.prefixes is None or event.key.startswith(self.prefixes))
            and (self.resources is None or event.resource_id in self.resources)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogInterest:
    """What a filter asks of the runs that lines are of; None: nothing."""

    workspace_id: str
    keys: frozenset[str] | None = None
    """Ids of flow runs."""

    def may_admit(self, lines: LogGlimpse) -> bool:
        """False: the filter leaves the lines out, whatever else it asks for."""
        return lines.workspace_id == self.workspace_id and (self.keys is None or lines.key in self.keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A range of times, both ends included, microseconds since the epoch."""

    since_us: float
    until_us: float

    def holds(self, at_us: int) -> bool:
        """Whether the moment lies in it."""
        return self.since_us <= at_us <= self.until_us


def of_events(workspace_id: str, filter_: EventFilter) -> EventInterest:
    """An empty list asks for nothing, as in the filter."""
    name, resource = filter_.event, filter_.resource
    return EventInterest(
        workspace_id=workspace_id,
        keys=frozenset(name.name) if name is not None and name.name else None,
        prefixes=tuple(name.prefix) if name is not None and name.prefix else None,
        resources=frozenset(resource.id) if resource is not None and resource.id else None,
    )


def of_logs(workspace_id: str, filter_: LogFilter) -> LogInterest:
    """An empty list admits nothing, as in the filter."""
    runs = filter_.flow_run_id
    if runs is None or runs.any_ is None or not names_any(filter_, "flow_run_id"):
        return LogInterest(workspace_id=workspace_id)
    return LogInterest(workspace_id=workspace_id, keys=frozenset(runs.any_))


def timeless_events(filter_: EventFilter) -> tuple[EventFilter, Span]:
    """The filter without its times, which clients take from their clocks, and those: many ask for the same but for them."""
    occurred = filter_.occurred
    anytime = filter_.model_copy(update={"occurred": occurred.model_copy(update=_ALWAYS)})
    return anytime, Span(since_us=to_us(occurred.since), until_us=to_us(occurred.until))


def timeless_logs(filter_: LogFilter) -> tuple[LogFilter, Span]:
    """The same of a filter of log lines, unless its parts are alternatives."""
    times = filter_.timestamp
    always = Span(since_us=float("-inf"), until_us=float("inf"))
    if times is None or filter_.operator != "and_":
        return filter_, always
    span = Span(
        since_us=always.since_us if times.after_ is None else to_us(times.after_),
        until_us=always.until_us if times.before_ is None else to_us(times.before_),
    )
    return filter_.model_copy(update={"timestamp": None}), span
