"""The limiter: token buckets over the rows, as they stand in one transaction. What it hands out there is reckoned on top.

Nothing outlives the transaction: the next one makes its buckets from the rows anew, so that a slot or a minute can't be leaked.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from managedd.clock import from_us
from managedd.model.amounts import human_bytes
from managedd.model.limits import HostLimits, Needs, Plan, TokenBucket
from managedd.model.metering import month_of, used_of
from managedd.store import executions, plans, usage, workspaces

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import tzinfo

    from managedd.config import HostSection
    from managedd.store.database import Tx
    from managedd.store.queue import QueueHead
    from managedd.store.usage import Used

RESERVE_BYTES: Final = 1024**3
UNBOUNDED: Final = 1 << 60
"""More than anybody needs, and a number that the store can compare with."""


class Shortage(StrEnum):
    """What there is too little of, or what else keeps a whole queue."""

    PAUSED = "paused"
    SLOTS = "slots"
    STARTS = "starts"
    HOURS = "hours"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the limiter is made with."""

    zone: tzinfo
    host: HostLimits


class Limiter:
    """Every limit above the runs of one transaction."""

    def __init__(self, tx: Tx, limits: Limits) -> None:
        self._tx = tx
        self._now = tx.now
        self._limits = limits
        self._plans = plans.every(tx)
        self._month = month_of(tx.now, limits.zone)
        self._buckets: dict[tuple[Shortage, str], TokenBucket] = {}
        self._ledger: tuple[Mapping[str, Used], Mapping[str, int]] | None = None
        """What was used by those that were started, and how many are not; by workspace."""
        self._host: tuple[TokenBucket, TokenBucket] | None = None

    def shortage(self, head: QueueHead) -> Shortage | None:
        """What no run of that queue gets now, whatever it needs; None: one more may go."""
        if head.is_paused:
            return Shortage.PAUSED
        if not self.has_hours(head):
            return Shortage.HOURS
        if not all(bucket.has(1, self._now) for bucket in self._slots(head).values()):
            return Shortage.SLOTS
        return None if self._starts(head).has(1, self._now) else Shortage.STARTS

    def has_hours(self, head: QueueHead) -> bool:
        """Whether the workspace has compute time left this month."""
        return self._hours(head).free(self._now) > 0

    def ready_us(self, head: QueueHead, shortage: Shortage) -> int | None:
        """When the shortage ends by itself; None: not by itself."""
        match shortage:
            case Shortage.HOURS:
                return self._month.ends_us
            case Shortage.STARTS:
                return self._starts(head).ready_us(1, self._now)
            case _:
                return None

    def free(self) -> Needs:
        """What of the host no run has reserved."""
        memory, cpus = (bucket.free(self._now) for bucket in self._host_buckets())
        return Needs(memory_bytes=int(min(memory, UNBOUNDED)), cpus=min(cpus, float(UNBOUNDED)))

    def fits(self, needs: Needs) -> bool:
        """Whether the host has so much that no run has reserved."""
        memory, cpus = self._host_buckets()
        return memory.has(needs.memory_bytes, self._now) and cpus.has(needs.cpus, self._now)

    def could_fit(self, needs: Needs, beside: Iterable[Needs] = ()) -> bool:
        """Whether the host has so much at all, besides those."""
        memory, cpus = self._beside(beside)
        return memory.has(needs.memory_bytes, self._now) and cpus.has(needs.cpus, self._now)

    def room(self, beside: Iterable[Needs]) -> Needs:
        """What the host has at all, besides those."""
        memory, cpus = (bucket.free(self._now) for bucket in self._beside(beside))
        return Needs(memory_bytes=int(min(memory, UNBOUNDED)), cpus=min(cpus, float(UNBOUNDED)))

    def _beside(self, beside: Iterable[Needs]) -> tuple[TokenBucket, TokenBucket]:
        host, others = self._limits.host, list(beside)
        memory = TokenBucket(capacity=host.memory_bytes, taken=sum(other.memory_bytes for other in others))
        return memory, TokenBucket(capacity=host.cpus, taken=sum(other.cpus for other in others))

    def take(self, head: QueueHead, needs: Needs) -> None:
        """One run of that queue was given what it needs."""
        for owner, bucket in self._slots(head).items():
            self._buckets[Shortage.SLOTS, owner] = bucket.take(1, self._now)
        starts = self._buckets[Shortage.STARTS, head.workspace_id] = self._starts(head).take(1, self._now)
        if starts.capacity is not None:
            workspaces.note_starts(self._tx, head.workspace_id, starts.taken, starts.as_of_us)
        # A run that starts costs a minute at least.
        self._buckets[Shortage.HOURS, head.workspace_id] = self._hours(head).take(1, self._now)
        memory, cpus = self._host_buckets()
        self._host = memory.take(needs.memory_bytes, self._now), cpus.take(needs.cpus, self._now)

    def hours_message(self, head: QueueHead) -> str:
        """Why a run of that workspace waits for compute hours: used, kept for those that start, limit and reset.

        It stands in the run's state for as long as that waits, whatever is used or allowed meanwhile: so it says when that was.
        """
        bucket = self._hours(head)
        assert bucket.capacity is not None
        used = self._minutes(head.workspace_id)[0]
        told = used_of(bucket.capacity, used, kept=bucket.taken - used, plan=head.plan, month=self._month)
        return f"As of {from_us(self._now):%Y-%m-%d %H:%M} UTC, {told}."

    def host_message(self, needs: Needs) -> str:
        """Why a run waits for the host."""
        memory, cpus = self._host_buckets()
        short = []
        if not memory.has(needs.memory_bytes, self._now):
            free = max(0, int(memory.free(self._now)))
            whole = human_bytes(int(memory.capacity or 0))
            short.append(
                f"{human_bytes(needs.memory_bytes)} of memory, and {human_bytes(free)} of {whole} are not reserved"
            )
        if not cpus.has(needs.cpus, self._now):
            free_cpus = max(0.0, cpus.free(self._now))
            short.append(f"{needs.cpus:g} processors, and {free_cpus:g} of {cpus.capacity:g} are not reserved")
        return f"The run needs {'; and '.join(short) or 'more than runs that wait longer leave'} on this host."

    def _plan(self, head: QueueHead) -> Plan:
        return self._plans.get(head.plan) or plans.nothing(head.plan)

    def _slots(self, head: QueueHead) -> dict[str, TokenBucket]:
        levels = (
            (head.workspace_id, self._plan(head).concurrent_runs, head.workspace_taken),
            (head.work_pool_id, head.pool_limit, head.pool_taken),
            (head.work_queue_id, head.queue_limit, head.queue_taken),
        )
        return {
            owner: self._buckets.get((Shortage.SLOTS, owner)) or TokenBucket(capacity=limit, taken=taken)
            for owner, limit, taken in levels
        }

    def _starts(self, head: QueueHead) -> TokenBucket:
        found = self._buckets.get((Shortage.STARTS, head.workspace_id))
        if found is None:
            plan = self._plan(head)
            found = TokenBucket(capacity=None)
            if plan.start_burst is not None and plan.starts_per_minute is not None:
                found = TokenBucket(
                    capacity=plan.start_burst,
                    refill_per_second=plan.starts_per_minute / 60,
                    # A clock that was set back must not stop everything until it has caught up: then the burst is there once more.
                    taken=head.starts_taken if head.starts_as_of <= self._now else 0.0,
                    as_of_us=min(head.starts_as_of, self._now),
                )
            self._buckets[Shortage.STARTS, head.workspace_id] = found
        return found

    def _hours(self, head: QueueHead) -> TokenBucket:
        found = self._buckets.get((Shortage.HOURS, head.workspace_id))
        if found is None:
            minutes = self._plan(head).compute_minutes
            # Nobody asks how much of "no limit" is used.
            # What is about to start costs a minute at least.
            taken = 0 if minutes is None else sum(self._minutes(head.workspace_id))
            found = TokenBucket(capacity=minutes, taken=taken, as_of_us=self._now, renewed_at_us=self._month.ends_us)
            self._buckets[Shortage.HOURS, head.workspace_id] = found
        return found

    def _minutes(self, workspace_id: str) -> tuple[int, int]:
        if self._ledger is None:
            used = usage.used_by_all(self._tx, self._month, self._limits.zone)
            self._ledger = used, executions.unstarted(self._tx)
        used_by, unstarted = self._ledger
        return used_by[workspace_id].minutes, unstarted.get(workspace_id, 0)

    def _host_buckets(self) -> tuple[TokenBucket, TokenBucket]:
        if self._host is None:
            host, reserved = self._limits.host, executions.reserved(self._tx)
            self._host = (
                TokenBucket(capacity=host.memory_bytes, taken=reserved.memory_bytes),
                TokenBucket(capacity=host.cpus, taken=reserved.cpus),
            )
        return self._host


def host_limits(section: HostSection, *, memory_bytes: int, cpus: float) -> HostLimits:
    """What all runs together may reserve of a host with so much: by default not the last of its memory, on which everything else lives."""
    left = max(RESERVE_BYTES, memory_bytes // 10)
    chosen = section.memory_bytes
    return HostLimits(
        memory_bytes=max(0, memory_bytes - left) if chosen is None else chosen, cpus=cpus * section.cpu_overcommit
    )
