"""Limits while pools and queues are deleted, the host shrinks and starts are rationed: what is taken is what rows say, and none idles."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, multiple, rule

from managedd import ids
from managedd.model.executions import LIVE, Phase
from managedd.model.flow_runs import ProposedState
from managedd.model.limits import AWAITING_HOST, HostLimits, Needs, Plan
from managedd.model.states import OCCUPYING, StateType, scheduled_details
from managedd.orchestration.transition import create_run
from managedd.store import executions, flow_runs, plans, queue, work_pools, work_queues
from tests.property.test_state_machine import (
    DEPLOYMENT_SLOTS,
    POOL_SLOTS,
    QUEUE_SLOTS,
    QUEUES,
    SECOND_US,
    Lost,
    RunsAndExecutions,
)

if TYPE_CHECKING:
    import sqlite3

    from managedd.store.transaction import Tx

GIB = 1024**3
FEW = 60
"""So many waiting runs are looked at in one transaction."""
RIGHT_OF_WAY_US = 300 * SECOND_US
"""Whoever has waited for the host for longer is passed by nobody."""
SLACK = 1e-6
"""What a sum of fractions may be off by."""


class UnderLimits(RunsAndExecutions):
    """The same, and everything that its runs are limited by comes and goes."""

    def __init__(self) -> None:
        self.starts: list[tuple[float, int]] = []
        """When (monotonic seconds) how many were started, since the plan was changed or the clock was set back."""
        super().__init__()

    # --- what happens ----------------------------------------------------------------------------------------------------

    def needs(self, run_id: str) -> Needs:
        """One to three GiB, and half as many processors."""
        size = 1 + sum(map(ord, run_id)) % 3
        return Needs(memory_bytes=size * GIB, cpus=size / 2)

    @rule(which=st.integers(0, len(QUEUES) - 1))
    def delete_queue(self, which: int) -> None:
        """There is a new one of its name at once."""

        def body(tx: Tx) -> None:
            work_queues.delete(tx, self.queues[which])
            self.queues[which] = self._made_queue(tx, which)

        self.write(body)

    @rule()
    def delete_pool(self) -> None:
        """There is a new one of its name at once."""

        def body(tx: Tx) -> None:
            work_pools.delete(tx, self.pool)
            self.pool = self._made_pool(tx)
            self.queues = [self._made_queue(tx, which) for which in range(len(QUEUES))]

        self.write(body)

    @rule(memory=st.sampled_from([None, 2 * GIB, 4 * GIB]), cpus=st.sampled_from([None, None, 1.5]))
    def restart_on_another_host(self, memory: int | None, cpus: float | None) -> None:
        self.host = HostLimits(memory_bytes=memory, cpus=cpus)
        self.restart()

    @rule(burst=st.integers(1, 3), per_minute=st.sampled_from([1.0, 6.0, 60.0]))
    def ration_starts(self, burst: int, per_minute: float) -> None:
        self.plan = Plan(name="pro", start_burst=burst, starts_per_minute=per_minute)
        self.write(lambda tx: plans.replace(tx, [self.plan]))
        self.starts = []

    @rule(target=RunsAndExecutions.attempts)
    def rush_to_start(self) -> Any:
        """Twice in a row more than may be started."""
        self.ration_starts(burst=1, per_minute=6.0)
        self.schedule_five(deployment=1, queue=1)
        return multiple(*self._claimed(), *self._claimed())

    @rule(paused=st.booleans())
    def pause_pool(self, paused: bool) -> None:
        self.write(lambda tx: work_pools.update(tx, self.pool, {"is_paused": paused}))

    @rule(seconds=st.sampled_from([1, 30]))
    def set_the_clock_back(self, seconds: int) -> None:
        super().set_the_clock_back(seconds)
        self.starts = []

    def _claimed(self) -> list[str]:
        before = self._reserved()
        claimed = super()._claimed()
        self._assert_starts_rationed(len(claimed))
        reserved = self._reserved()
        if claimed and self.host.memory_bytes is not None:
            assert reserved.memory_bytes <= max(before.memory_bytes, self.host.memory_bytes)
        if claimed and self.host.cpus is not None:
            assert reserved.cpus <= max(before.cpus, self.host.cpus)
        self._assert_nobody_waits_who_could_go()
        return claimed

    # --- what holds ------------------------------------------------------------------------------------------------------

    def _reserved(self) -> Needs:
        """What the rows of live executions reserve, by the size of their runs."""
        live = [
            self.needs(row["flow_run_id"])
            for row in self.sqlite.execute("SELECT flow_run_id, phase FROM executions")
            if Phase(row["phase"]) in LIVE
        ]
        return Needs(memory_bytes=sum(one.memory_bytes for one in live), cpus=sum(one.cpus for one in live))

    def _free_starts(self) -> float:
        if self.plan.start_burst is None or self.plan.starts_per_minute is None:
            return float("inf")
        [row] = self.sqlite.execute("SELECT starts_taken, starts_as_of FROM workspaces").fetchall()
        passed_us = self.clock.now_us() - row["starts_as_of"]
        if passed_us < 0:
            return self.plan.start_burst
        back = passed_us / SECOND_US * self.plan.starts_per_minute / 60
        return self.plan.start_burst - max(0.0, row["starts_taken"] - back)

    def _assert_starts_rationed(self, started: int) -> None:
        """In no stretch of time were there more starts than the burst and what came back meanwhile."""
        burst, per_minute = self.plan.start_burst, self.plan.starts_per_minute
        if burst is None or per_minute is None:
            return
        now = self.clock.monotonic()
        self.starts.append((now, started))
        total = 0
        for moment, count in reversed(self.starts):
            total += count
            assert total <= burst + (now - moment) * per_minute / 60 + SLACK

    def _assert_nobody_waits_who_could_go(self) -> None:
        waiting = self._waiting()
        now_us = self.clock.now_us()
        barred = any(
            run["state_name"] == AWAITING_HOST and now_us - run["state_timestamp"] > RIGHT_OF_WAY_US for run in waiting
        )
        if len(waiting) <= FEW and not barred:
            assert [run["id"] for run in waiting if self._could_go(run)] == []

    def _waiting(self) -> list[sqlite3.Row]:
        """Due runs of the queues that are there, whose last process is gone."""
        found = self.sqlite.execute(
            "SELECT * FROM flow_runs WHERE state_type = 'SCHEDULED' "
            "AND (next_scheduled_start_time <= ? OR state_name = 'AwaitingConcurrencySlot') AND id NOT IN "
            "(SELECT flow_run_id FROM executions WHERE phase NOT IN ('FINALIZED', 'LOST'))",
            (self.clock.now_us(),),
        )
        return [run for run in found if run["work_queue_id"] in self.queues]

    def _could_go(self, run: sqlite3.Row) -> bool:
        """Whether every limit above the run has room for it."""
        taken, needs, reserved = self.taken(), self.needs(run["id"]), self._reserved()
        most = self.plan.compute_minutes
        [pool] = self.sqlite.execute("SELECT is_paused FROM work_pools").fetchall()
        rooms = (
            (self.plan.concurrent_runs, taken[ids.DEFAULT_WORKSPACE_ID], 1),
            (POOL_SLOTS, taken[self.pool], 1),
            (QUEUE_SLOTS if run["work_queue_id"] == self.queues[0] else None, taken[run["work_queue_id"]], 1),
            (
                DEPLOYMENT_SLOTS if run["deployment_id"] in (self.deployments[0], self.deployments[2]) else None,
                self.holding("deployment_id = ?", run["deployment_id"]) + self.leaving(run["deployment_id"]),
                1,
            ),
            (self.host.memory_bytes, reserved.memory_bytes, needs.memory_bytes),
            (self.host.cpus, reserved.cpus, needs.cpus),
            (None if most is None else math.ceil(most), self.minutes(), 1),
        )
        return (
            not pool["is_paused"]
            and self._free_starts() >= 1
            and all(limit is None or used + wanted <= limit for limit, used, wanted in rooms)
        )

    @invariant()
    def slots_in_use_are_runs_under_way_and_containers_that_linger(self) -> None:
        """What the daemon counts for the next run of each queue and deployment is what the rows of runs and executions say."""
        taken = self.taken()
        held = Counter(
            row["deployment_id"]
            for row in self.sqlite.execute("SELECT deployment_id, state_type FROM flow_runs")
            if row["state_type"] in OCCUPYING
        )

        leaving = {deployment: self.leaving(deployment) for deployment in self.deployments}

        def body(tx: Tx) -> None:
            work_pools.update(tx, self.pool, {"is_paused": False})
            due = ProposedState(type=StateType.SCHEDULED, details=scheduled_details(tx.now))
            values = {"name": "probe", "flow_id": self.flow}
            for queue_id in self.queues:
                create_run(tx, {**values, "work_queue_id": queue_id}, due)
            heads = {head.work_queue_id: head for head in queue.heads(tx)}
            assert heads.keys() == set(self.queues)
            for queue_id, head in heads.items():
                assert head.workspace_taken == taken[ids.DEFAULT_WORKSPACE_ID]
                assert (head.pool_taken, head.queue_taken) == (taken[self.pool], taken[queue_id])
            for deployment_id in self.deployments:
                probe, _ = create_run(tx, {**values, "deployment_id": deployment_id}, due)
                facts, _ = flow_runs.facts(tx, probe, api_version=None, client_version=None)
                if facts.concurrency_limit is not None:
                    assert (facts.slots_taken, facts.slots_leaving) == (held[deployment_id], leaving[deployment_id])
                    assert queue.is_full(tx, probe) == facts.slots_full
            raise Lost

        with pytest.raises(Lost):
            self.write(body)

    @invariant()
    def what_the_host_promised_is_what_live_executions_need(self) -> None:
        promised = self.read(executions.reserved)
        assert promised == self._reserved()


UnderLimits.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestUnderLimits = UnderLimits.TestCase
