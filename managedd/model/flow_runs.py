"""What the state rules may know of a run: plain values, loaded once, never asked for again.

The store fills these from rows, the rules only read them; so a decision can be repeated from its facts alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from managedd.clock import iso, to_us
from managedd.model.states import State, StateType, default_name

if TYPE_CHECKING:
    from collections.abc import Mapping

MODERN_API = (0, 8, 4)
"""The API version from which clients know pauses; older ones never meet the pause bookkeeping."""
MICROSECONDS = 1_000_000


class CollisionStrategy(StrEnum):
    """What becomes of a run that finds its deployment's slots taken."""

    ENQUEUE = "ENQUEUE"
    CANCEL_NEW = "CANCEL_NEW"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedState:
    """A state that somebody wants for a run: a `State` that has no id and no timestamp yet.

    Without a name it gets the type's own.
    """

    type: StateType
    name: str = ""
    message: str | None = None
    data: Any = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", default_name(self.type))

    def detailed(self, **changes: Any) -> ProposedState:
        """A copy with `changes` in its details; a change to None takes the key out."""
        merged = {**self.details, **changes}
        return replace(self, details={key: value for key, value in merged.items() if value is not None})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What flow runs and task runs have in common; times and durations are integer microseconds."""

    now_us: int
    run_id: str
    current: State | None
    run_count: int = 0
    start_time_us: int | None = None
    end_time_us: int | None = None
    total_run_time_us: int = 0
    expected_start_time_us: int | None = None
    next_scheduled_start_time_us: int | None = None
    retries: int | None = None

    @property
    def current_type(self) -> StateType | None:
        return None if self.current is None else self.current.type

    def current_detail(self, key: str) -> Any:
        """The value in the current state's details; None without a state."""
        return None if self.current is None else self.current.details.get(key)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRunFacts(RunFacts):
    """A flow run, its policy and its deployment's slots at `now_us`.

    `slots_taken` counts the deployment's *other* runs in PENDING, RUNNING or CANCELLING. It is always counted from rows; there is
    no counter that could drift.
    """

    work_queue_id: str | None = None
    deployment_id: str | None = None
    deployment_exists: bool = True
    concurrency_limit: int | None = None
    slots_taken: int = 0
    slots_leaving: int = 0
    """Containers of other runs of the deployment that have ended: gone any moment, and until then no slot to give away."""
    collision_strategy: CollisionStrategy | str = CollisionStrategy.ENQUEUE
    slot_wait_seconds: int = 30
    parent_task_run_id: str | None = None
    infrastructure_pid: str | None = None
    retry_delay_seconds: float | None = None
    pause_keys: frozenset[str] = frozenset()
    resuming: bool = False
    retry_type: str | None = None
    api_version: tuple[int, ...] | None = None
    """From X-PREFECT-API-VERSION; None: a proposal of our own."""
    client_version: str | None = None
    """From the User-Agent `prefect/<version>`."""

    @property
    def has_turn(self) -> bool:
        """Whether its states are the dispatcher's concern: it waits in a work queue, or counts for a deployment for which others wait."""
        return self.work_queue_id is not None or self.deployment_id is not None

    @property
    def knows_pauses(self) -> bool:
        """Whether the proposer speaks an API that has pauses."""
        return self.api_version is None or self.api_version >= MODERN_API

    @property
    def slots_full(self) -> bool:
        """Whether the deployment has a limit and other runs, or what is left of them, use it up."""
        return self.concurrency_limit is not None and self.slots_taken + self.slots_leaving >= self.concurrency_limit

    @property
    def slots_collide(self) -> bool:
        """Whether other runs use the deployment's limit up that have not ended."""
        return self.concurrency_limit is not None and self.slots_taken >= self.concurrency_limit


@dataclass(frozen=True, slots=True, kw_only=True)
class TagLimit:
    """A concurrency limit on a task tag, with the *other* task runs that use it (counted from rows)."""

    tag: str
    limit: int
    slots_taken: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRunFacts(RunFacts):
    """A task run and what it needs of its flow run at `now_us`."""

    flow_run_id: str | None = None
    flow_run_exists: bool = True
    """False when `flow_run_id` names a run that is gone."""
    flow_run_state: State | None = None
    flow_run_run_count: int = 0
    """The flow run's attempt this task run last ran in (the task run's own column)."""
    parent_run_count: int = 0
    """The flow run's `run_count` now."""
    retry_delay_seconds: float | tuple[float, ...] | None = None
    retry_jitter_factor: float | None = None
    tag_limits: tuple[TagLimit, ...] = ()
    tag_wait_seconds: int = 30
    cached_state: State | None = None
    """The COMPLETED state stored under the proposal's cache key and not expired; looked up by the loader."""

    @property
    def has_flow_run(self) -> bool:
        return self.flow_run_id is not None and self.flow_run_exists


def flow_policy_facts(policy: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of `FlowRunFacts` that a flow run's stored `empirical_policy` holds."""
    retries, delay = _retry_settings(policy)
    return {
        "retries": retries,
        "retry_delay_seconds": delay,
        "pause_keys": frozenset(policy.get("pause_keys") or ()),
        "resuming": bool(policy.get("resuming")),
        "retry_type": policy.get("retry_type"),
    }


def task_policy_facts(policy: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of `TaskRunFacts` that a task run's stored `empirical_policy` holds."""
    retries, delay = _retry_settings(policy)
    return {
        "retries": retries,
        "retry_delay_seconds": tuple(delay) if isinstance(delay, list) else delay,
        "retry_jitter_factor": policy.get("retry_jitter_factor"),
    }


def _retry_settings(policy: Mapping[str, Any]) -> tuple[int | None, Any]:
    # max_retries and retry_delay_seconds are the names that Prefect 2 used; they count only where the new ones say nothing or zero.
    retries = policy.get("retries")
    return retries or policy.get("max_retries") or retries, policy.get("retry_delay") or policy.get(
        "retry_delay_seconds"
    ) or None


def moment_us(value: Any) -> int | None:
    """Microseconds of an ISO time in a state's details; None for what is no time (the rules must never raise)."""
    if not isinstance(value, str):
        return None
    try:
        return to_us(datetime.fromisoformat(value))
    except ValueError:
        return None


_LAST_MOMENT_US = to_us(datetime(9999, 1, 1))


def iso_after(now_us: int, seconds: float) -> str:
    """The ISO time `seconds` after `now_us`, and no later than a datetime can say."""
    ahead_us = min(max(0.0, seconds) * MICROSECONDS, _LAST_MOMENT_US)
    return iso(min(now_us + int(ahead_us), _LAST_MOMENT_US))
