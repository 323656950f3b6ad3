"""Prefect's states: the words a run's life is told in."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from managedd.clock import iso

if TYPE_CHECKING:
    from collections.abc import Mapping


class StateType(StrEnum):
    """Prefect's nine state types."""

    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CRASHED = "CRASHED"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"
    PAUSED = "PAUSED"


TERMINAL = frozenset({StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED})
"""Types after which nothing runs any more."""

OCCUPYING = frozenset({StateType.PENDING, StateType.RUNNING, StateType.CANCELLING})
"""Types that hold a concurrency slot."""


def default_name(type_: StateType) -> str:
    """Prefect's display name of a type: `RUNNING` → `Running`."""
    return type_.value.capitalize()


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """One state of a flow run or task run.

    `details` is Prefect's `state_details` with JSON values (times are ISO strings); `data` is the result metadata, opaque JSON.
    """

    type: StateType
    name: str
    id: str
    timestamp_us: int
    message: str | None = None
    data: Any = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_terminal(self) -> bool:
        return self.type in TERMINAL


def details_with(details: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """A copy of `details` with `changes`; a change to None drops the key; `…_us` integers are not translated."""
    merged = {**details, **changes}
    return {key: value for key, value in merged.items() if value is not None}


def scheduled_details(at_us: int, **more: Any) -> dict[str, Any]:
    """`state_details` of a state scheduled for `at_us`."""
    return details_with({"scheduled_time": iso(at_us)}, **more)
