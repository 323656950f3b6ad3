"""Concurrency limits: those with a name, with slots and leases, and those of the first kind, by tag."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from managedd.wire.base import Body, Id, Int, Model, Name, NonNegative, NonNegativeFloat, Positive, Row, at_most

MAX_LIMIT_NAMES = 1_000

SlotMode = Literal["concurrency", "rate_limit"]
"""Whether slots are held until they are given back, or come back with time."""
LeaseSeconds = Annotated[float, Field(ge=60, le=86_400)]
MAX_SLOTS = 10**12


def _slots(number: int) -> int:
    # What many leases hold together must be a number that the store can add up.
    if not 0 <= number <= MAX_SLOTS:
        raise ValueError(f"the number of slots must be between 0 and {MAX_SLOTS:,}")
    return number


Slots = Annotated[Positive, AfterValidator(_slots), Field(json_schema_extra={"maximum": MAX_SLOTS})]
LimitNames = Annotated[list[str], AfterValidator(at_most(MAX_LIMIT_NAMES, "names"))]


class ConcurrencyLimitV2Create(Body):
    """A limit to create."""

    active: bool = True
    name: Name
    limit: NonNegative
    active_slots: NonNegative = 0
    denied_slots: NonNegative = 0
    slot_decay_per_second: NonNegativeFloat = 0


class ConcurrencyLimitV2Update(Body):
    """What may change on a limit."""

    active: bool | None = None
    name: Name | None = None
    limit: NonNegative | None = None
    active_slots: NonNegative | None = None
    denied_slots: NonNegative | None = None
    slot_decay_per_second: NonNegativeFloat | None = None


class ConcurrencyLimitV2(Row):
    """A limit."""

    active: bool = True
    name: Name
    limit: Int
    active_slots: Int = 0
    denied_slots: Int = 0
    slot_decay_per_second: float = 0
    avg_slot_occupancy_seconds: float = 2.0


class ConcurrencyLeaseHolder(Body):
    """Who holds the slots of a lease."""

    type: Literal["flow_run", "task_run", "deployment"]
    id: Id


class MinimalConcurrencyLimitResponse(Model):
    """A limit whose slots were taken."""

    id: Id
    name: str
    limit: Int


class ConcurrencyLimitWithLeaseResponse(Model):
    """The limits whose slots were taken, and the lease on them."""

    lease_id: Id
    limits: list[MinimalConcurrencyLimitResponse]


class ConcurrencyLimitCreate(Body):
    """A tag's limit to create."""

    tag: str
    concurrency_limit: Annotated[Int, AfterValidator(_slots), Field(json_schema_extra={"maximum": MAX_SLOTS})]


class ConcurrencyLimit(Row):
    """A tag's limit."""

    tag: str
    concurrency_limit: Int
    active_slots: list[Id] = Field(default_factory=list)
