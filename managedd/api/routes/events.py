"""Events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import FailFast, Field

from managedd.api.auth import believed
from managedd.api.context import Context
from managedd.api.event_intake import receive
from managedd.api.event_pages import MAX_PAGE_EVENTS, PAGE_EVENTS, Place, next_page, not_valid
from managedd.api.operation import EMBED, SentAs, operation
from managedd.clock import to_us
from managedd.errors import ErrorCode, ManagedError, forbidden, invalid
from managedd.model.event_counts import Spans, TooManySpans
from managedd.model.event_counts import spans as cut
from managedd.model.log_limits import told_enough
from managedd.orchestration import events as incoming
from managedd.store import events as stored
from managedd.store import positions
from managedd.store.rows import Wire
from managedd.wire.events import Countable, Event, EventCount, EventPage, TimeUnit
from managedd.wire.filters.events import EventFilter

if TYPE_CHECKING:
    from managedd.store.database import Tx

PageLimit = Annotated[int, Field(ge=0, le=MAX_PAGE_EVENTS)]
Interval = Annotated[float, Field(ge=0.01)]


@operation("POST", "/events", tag="Events", status=204)
async def create_events(ctx: Context, *, events: Annotated[list[Event], FailFast()]) -> None:
    """Record a batch of events; those that are known already are left as they are."""
    received = [incoming.from_wire(event) for event in events]
    done = await receive(ctx, ctx.actor, received)
    if done is None or done.foreign + done.excess < len(received) or not received:
        return
    if done.excess:
        raise ManagedError(ErrorCode.TOO_LARGE, told_enough(ctx.services.settings.runs.events_max_bytes or 0))
    raise forbidden(f"This run may not tell of {received[0].event} about {received[0].resource_id}")


def _next_page(ctx: Context, place: Place) -> str | None:
    return next_page(ctx.request, place, believed(ctx.listener, ctx.services.settings.server))


@operation("POST", "/events/filter", tag="Events", returns=EventPage)
async def read_events(
    ctx: Context, *, filter: EventFilter | None = None, limit: Annotated[PageLimit, EMBED] = PAGE_EVENTS
) -> Wire:
    """Query for events: the first page, how many there are in all, and where the next page is."""
    wanted = filter or EventFilter()

    def page(tx: Tx) -> tuple[stored.Found, str]:
        found = stored.find(tx, wanted, limit=limit)
        return found, positions.of(tx, "events").id(found.head)

    found, head = await ctx.read_events(page)
    place = Place(filter=wanted, count=found.total, page_size=limit, offset=0, head=head)
    return {"events": found.events, "total": found.total, "next_page": _next_page(ctx, place)}


@operation("GET", "/events/filter/next", tag="Events", returns=EventPage)
async def read_account_events_page(ctx: Context, *, page_token: Annotated[str, SentAs("page-token")]) -> Wire:
    """The page of an earlier query that its `next_page` names."""
    place = Place.of_token(page_token)

    def page(tx: Tx) -> stored.Found:
        head = positions.of(tx, "events").position(place.head)
        if head is None:
            raise not_valid()
        return stored.find(tx, place.filter, limit=place.page_size, offset=place.offset, known=(place.count, head))

    found = await ctx.read_events(page)
    return {"events": found.events, "total": found.total, "next_page": _next_page(ctx, place)}


@operation("POST", "/events/count-by/{countable}", tag="Events", returns=list[EventCount])
async def count_account_events(
    ctx: Context,
    countable: Countable,
    *,
    filter: EventFilter,
    time_unit: TimeUnit = TimeUnit.DAY,
    time_interval: Interval = 1.0,
) -> list[Wire]:
    """How many events share a day, a span of time, a name or a resource."""
    match countable:
        case Countable.EVENT:
            return await ctx.read_events(lambda tx: stored.count_by_name(tx, filter))
        case Countable.RESOURCE:
            return await ctx.read_events(lambda tx: stored.count_by_resource(tx, filter))
        case Countable.DAY:
            spans = _spans(ctx, filter, TimeUnit.DAY, 1.0)
        case Countable.TIME:
            spans = _spans(ctx, filter, time_unit, time_interval)
    return await ctx.read_events(lambda tx: stored.count_by_time(tx, filter, spans))


def _spans(ctx: Context, filter_: EventFilter, unit: TimeUnit, interval: float) -> Spans:
    since_us, until_us = to_us(filter_.occurred.since), to_us(filter_.occurred.until)
    try:
        return cut(since_us, until_us, ctx.services.clock.now_us(), unit.value, interval)
    except TooManySpans as error:
        raise invalid(str(error)) from None
