"""Runs and executions under random proposals, claims, moves, deletions and restarts over the real store: what always holds."""

from __future__ import annotations

import itertools
import json
import math
import sqlite3
import tempfile
import uuid
from collections import Counter
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from managedd import ids
from managedd.bus import Bus
from managedd.clock import iso
from managedd.engine.dispatcher import Dispatcher
from managedd.errors import ManagedError
from managedd.model.executions import ENDED, LIVE, NEXT, EndCause, Phase
from managedd.model.flow_runs import ProposedState
from managedd.model.limits import HostLimits, Needs, Plan
from managedd.model.metering import metered, month_of
from managedd.model.states import OCCUPYING, TERMINAL, StateType, scheduled_details
from managedd.orchestration.resuming import resume
from managedd.orchestration.transition import OURSELVES, Client, create_run, propose, propose_late
from managedd.orchestration.verdicts import Status
from managedd.store import deployments, executions, flow_runs, migrate, plans, rows, usage
from managedd.store.cipher import Vault
from managedd.store.resources import DEPLOYMENT, FLOW, FLOW_RUN, WORK_POOL, WORK_QUEUE
from managedd.store.transaction import Job, Tx, commit_group, read_snapshot
from managedd.store.workspaces import ensure_default
from tests.engine.world import NEEDS, limits
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

START_US = 1_780_000_000_000_000
SECOND_US = 1_000_000
PLAN_SLOTS, POOL_SLOTS, QUEUE_SLOTS, DEPLOYMENT_SLOTS = 4, 3, 2, 1
QUEUES = (("narrow", QUEUE_SLOTS), ("wide", None))
CLIENTS = (OURSELVES, Client(api_version=(0, 8, 4), version="3.8.8"), Client(api_version=(0, 8, 3), version="2.20.0"))

types = st.sampled_from(StateType)
names = st.sampled_from(["", "", "Late", "AwaitingRetry", "Suspended", "Retrying", "Resuming"])
waits = st.sampled_from([-60, 0, 0, 30])
details = st.fixed_dictionaries(
    {},
    optional={
        "scheduled_time": st.integers(-60, 60).map(lambda seconds: iso(START_US + seconds * SECOND_US)),
        "pause_reschedule": st.booleans(),
        "pause_timeout": st.integers(0, 120).map(lambda seconds: iso(START_US + seconds * SECOND_US)),
        "pause_key": st.sampled_from(["a", "b"]),
        "transition_id": st.sampled_from(["t1", "t2"]),
    },
)
proposals = st.builds(ProposedState, type=types, name=names, details=details)
PENDING, RUNNING, COMPLETED = (
    ProposedState(type=type_) for type_ in (StateType.PENDING, StateType.RUNNING, StateType.COMPLETED)
)
PAUSED = ProposedState(type=StateType.PAUSED, details={"pause_timeout": iso(START_US + 3600 * SECOND_US)})
SUSPENDED = PAUSED.detailed(pause_reschedule=True)
AGAIN = ProposedState(type=StateType.SCHEDULED, name="AwaitingRetry", details={"scheduled_time": iso(START_US)})
PATHS = (
    (PENDING, RUNNING, COMPLETED),
    (PENDING, RUNNING, PAUSED),
    (PENDING, RUNNING, SUSPENDED),
    (RUNNING, AGAIN, RUNNING),
    (ProposedState(type=StateType.CANCELLING), ProposedState(type=StateType.CANCELLED)),
)


class Lost(Exception):
    """What a body raises so that nothing of it stays."""


class RunsAndExecutions(RuleBasedStateMachine):
    """One workspace with a pool of two queues, one of which has a limit, and three deployments, two of which have one."""

    runs = Bundle("runs")
    attempts = Bundle("attempts")

    def __init__(self) -> None:
        super().__init__()
        # Ids decide between what is due at the same time: random ones would make the same steps come out differently.
        numbers = itertools.count(1)
        self.ids = pytest.MonkeyPatch()
        self.ids.setattr(ids, "new_id", lambda: str(uuid.UUID(int=next(numbers) << 80 | 0x7 << 76 | 0x2 << 62)))
        self.folder = tempfile.TemporaryDirectory()
        self.clock = ManualClock(START_US)
        self.phases: dict[str, Phase] = {}
        self.plan = Plan(name="pro", concurrent_runs=PLAN_SLOTS)
        self.host = HostLimits()
        self.sqlite = self._open()
        self.dispatcher = self._dispatcher()
        self.write(self._furnish)

    def teardown(self) -> None:
        assert self.sqlite.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        self.sqlite.close()
        self.folder.cleanup()
        self.ids.undo()

    def _open(self) -> sqlite3.Connection:
        made = sqlite3.connect(Path(self.folder.name) / "state.db", isolation_level=None)
        made.row_factory = sqlite3.Row
        made.execute("PRAGMA foreign_keys = ON")
        made.execute("PRAGMA journal_mode = WAL")
        made.execute("PRAGMA synchronous = OFF")
        migrate.apply(made, migrate.load("managedd.store.migrations.state"), self.clock.now_us())
        return made

    def _dispatcher(self) -> Dispatcher:
        return Dispatcher(
            None,  # type: ignore[arg-type]  # only its transaction body is used
            Bus(),
            self.clock,
            driver="fake",
            limits=limits(self.host),
            needs=lambda tx, run_id: self.needs(run_id),
            poll_seconds=1,
            key_hash=lambda execution_id: f"hash of {execution_id}",
            start=lambda execution: None,
        )

    def needs(self, run_id: str) -> Needs:
        """What the run reserves of the host."""
        return NEEDS

    def _furnish(self, tx: Tx) -> None:
        ensure_default(tx, plan="pro")
        plans.replace(tx, [self.plan])
        self.flow = rows.insert(tx, FLOW, {"name": "f"})
        self.pool = self._made_pool(tx)
        self.queues = [self._made_queue(tx, which) for which in range(len(QUEUES))]
        self.deployments = [
            rows.insert(
                tx,
                DEPLOYMENT,
                {
                    "name": str(number), "flow_id": self.flow, "work_queue_id": self.queues[number % 2],
                    "concurrency_limit": limit, "concurrency_options": options,
                },
            )
            for number, (limit, options) in enumerate(
                [(DEPLOYMENT_SLOTS, None), (None, None), (DEPLOYMENT_SLOTS, {"collision_strategy": "CANCEL_NEW"})]
            )
        ]  # fmt: skip

    def _made_pool(self, tx: Tx) -> str:
        values = {"name": "p", "type": "prefect:managed", "concurrency_limit": POOL_SLOTS}
        return rows.insert(tx, WORK_POOL, values)

    def _made_queue(self, tx: Tx, which: int) -> str:
        name, limit = QUEUES[which]
        values = {"name": name, "work_pool_id": self.pool, "concurrency_limit": limit, "priority": 1}
        return rows.insert(tx, WORK_QUEUE, values)

    def write(self, body: Callable[[Tx], T]) -> T:
        job: Job[T] = Job(body, ids.DEFAULT_WORKSPACE_ID)
        commit_group(self.sqlite, [job], self.clock, 1.0, Vault())
        return job.outcome()

    def read(self, body: Callable[[Tx], T]) -> T:
        return read_snapshot(self.sqlite, body, ids.DEFAULT_WORKSPACE_ID, self.clock, Vault())  # type: ignore[no-any-return]

    # --- what happens ----------------------------------------------------------------------------------------------------

    @rule(
        target=runs,
        deployment=st.sampled_from([0, 0, 1, 2, None]),
        queue=st.integers(0, 1),
        wait=waits,
        state=proposals,
    )
    def create(self, deployment: int | None, queue: int, wait: int, state: ProposedState) -> str:
        values = {
            "name": "r", "flow_id": self.flow, "work_queue_id": self.queues[queue],
            "deployment_id": None if deployment is None else self.deployments[deployment],
        }  # fmt: skip
        due = ProposedState(type=StateType.SCHEDULED, details=scheduled_details(self.clock.now_us() + wait * SECOND_US))
        first = due if state.type in OCCUPYING else state
        return self.write(lambda tx: create_run(tx, values, first))[0]

    @rule(target=runs, deployment=st.integers(0, 2), queue=st.integers(0, 1))
    def schedule_five(self, deployment: int, queue: int) -> Any:
        """More than the limits admit."""
        values = {
            "name": "r",
            "flow_id": self.flow,
            "work_queue_id": self.queues[queue],
            "deployment_id": self.deployments[deployment],
        }
        due = ProposedState(type=StateType.SCHEDULED, details=scheduled_details(self.clock.now_us()))
        return multiple(*[self.write(lambda tx: create_run(tx, values, due))[0] for _ in range(5)])

    @rule(
        run=runs, state=proposals, force=st.sampled_from([False, False, False, True]), client=st.sampled_from(CLIENTS)
    )
    def propose(self, run: str, state: ProposedState, force: bool, client: Client) -> None:
        before = self.read(lambda tx: rows.record(tx, FLOW_RUN, id=run))
        if before is None:
            with pytest.raises(ManagedError):
                self.write(lambda tx: propose(tx, run, state, force=force, client=client))
            return
        outcome = self.write(lambda tx: propose(tx, run, state, force=force, client=client))
        after = self.read(lambda tx: rows.need(tx, FLOW_RUN, id=run))
        assert outcome.state is None or outcome.state["id"] == after["state_id"]
        assert outcome.created == (after["state_id"] != before["state_id"])
        if outcome.status is Status.ACCEPT and not force:
            assert after["state_type"] == state.type.value
            if state.type is StateType.PENDING:
                self.assert_within_deployment(after["deployment_id"])

    @rule(run=runs, state=proposals)
    def propose_in_vain(self, run: str, state: ProposedState) -> None:
        """A transaction that fails after a proposal leaves nothing of it."""

        def body(tx: Tx) -> None:
            propose(tx, run, state, force=True)
            raise Lost

        before = self.everything()
        with pytest.raises((Lost, ManagedError)):
            self.write(body)
        assert self.everything() == before

    @rule(run=runs, path=st.sampled_from(PATHS), client=st.sampled_from(CLIENTS))
    def run_along(self, run: str, path: tuple[ProposedState, ...], client: Client) -> None:
        """What a well-behaved engine reports."""
        for state in path:
            self.propose(run=run, state=state, force=False, client=client)
            self.clock.advance(1)

    @rule(run=runs)
    def mark_late(self, run: str) -> None:
        if self.read(lambda tx: rows.record(tx, FLOW_RUN, id=run, state_type="SCHEDULED")) is not None:
            self.write(lambda tx: propose_late(tx, run))

    @rule(run=runs, client=st.sampled_from(CLIENTS))
    def resume(self, run: str, client: Client) -> None:
        if self.read(lambda tx: rows.record(tx, FLOW_RUN, id=run)) is not None:
            self.write(lambda tx: resume(tx, run, None, client=client))

    @rule(target=attempts)
    def rush(self) -> Any:
        """Twice in a row more than the hours that are left would carry."""
        self.change_plan(slots=None, hours=(self.minutes() + 2) / 60)
        self.schedule_five(deployment=1, queue=1)
        return multiple(*self._claimed(), *self._claimed())

    @rule(target=attempts)
    def claim(self) -> Any:
        return multiple(*self._claimed())

    def _claimed(self) -> list[str]:
        before, minutes = self.taken(), self.minutes()
        claimed = self.write(self.dispatcher._claim)
        for execution in claimed:
            assert execution.phase is Phase.CLAIMED
            run = self.read(lambda tx, e=execution: rows.need(tx, FLOW_RUN, id=e.flow_run_id))
            assert run["state_type"] == "PENDING"
            assert run["infrastructure_pid"] == f"managedd:{execution.id}"
            self.assert_within_deployment(run["deployment_id"])
        self.assert_taken_within_limits(before)
        most = self.plan.compute_minutes
        if most is not None:
            assert len(claimed) <= max(0, math.ceil(most - minutes)), "whoever starts costs a minute"
        return [execution.id for execution in claimed]

    def assert_taken_within_limits(self, before: Counter[str]) -> None:
        """Whose limit was lowered may hold more than it, and gets no more."""
        after = self.taken()
        levels = {
            ids.DEFAULT_WORKSPACE_ID: self.plan.concurrent_runs,
            self.pool: POOL_SLOTS,
            self.queues[0]: QUEUE_SLOTS,
        }
        for level, slots in levels.items():
            assert slots is None or after[level] <= max(before[level], slots)

    @rule(slots=st.sampled_from([None, 0, 1, PLAN_SLOTS]), hours=st.sampled_from([None, None, 0, 2 / 60, 10]))
    def change_plan(self, slots: int | None, hours: float | None) -> None:
        self.plan = Plan(name="pro", concurrent_runs=slots, compute_hours=hours)
        self.write(lambda tx: plans.replace(tx, [self.plan]))

    @rule(attempt=attempts, to=st.sampled_from(Phase), believed=st.sampled_from(Phase))
    def advance(self, attempt: str, to: Phase, believed: Phase) -> None:
        if to not in NEXT[believed]:
            with pytest.raises(ValueError, match="no move"):
                self.write(lambda tx: executions.advance(tx, attempt, [believed], to))
            return
        moved = self.write(lambda tx: executions.advance(tx, attempt, [believed], to, {"exit_code": 0}))
        assert (moved is None) == (self.phases[attempt] is not believed)

    @rule(attempt=attempts)
    def step(self, attempt: str) -> None:
        """The way that most executions go."""
        onward = {
            Phase.CLAIMED: Phase.CREATED,
            Phase.CREATED: Phase.RUNNING,
            Phase.RUNNING: Phase.EXITED,
            Phase.EXITED: Phase.FINALIZED,
        }
        now_in = self.phases[attempt]
        if now_in in onward:
            self.write(lambda tx: self._go_on(tx, attempt, now_in, onward[now_in]))

    def _go_on(self, tx: Tx, attempt: str, now_in: Phase, to: Phase) -> None:
        moments = {Phase.RUNNING: {"started_at": tx.now}, Phase.EXITED: {"exited_at": tx.now}}
        moved = executions.advance(tx, attempt, [now_in], to, moments.get(to))
        assert moved is not None
        if to is Phase.EXITED:
            usage.record(tx, moved, None, UTC)

    @rule(attempt=attempts, reasons=st.lists(st.sampled_from(EndCause), min_size=1, max_size=3))
    def ask_to_stop(self, attempt: str, reasons: list[EndCause]) -> None:
        before = self.read(lambda tx: executions.get(tx, attempt))
        assert before is not None
        for reason in reasons:
            self.write(lambda tx, r=reason: executions.request_stop(tx, attempt, r))
        after = self.read(lambda tx: executions.get(tx, attempt))
        assert after is not None
        if before.phase in ENDED or before.stop_requested_at is not None:
            assert after.stop_reason is before.stop_reason
        else:
            assert after.stop_reason is reasons[0]

    @rule(run=consumes(runs))
    def delete(self, run: str) -> None:
        if self.read(lambda tx: rows.record(tx, FLOW_RUN, id=run)) is None:
            return

        def body(tx: Tx) -> None:
            executions.abandon(tx, run)
            flow_runs.delete(tx, run)

        self.write(body)

    @rule(which=st.sampled_from([0, 2]))
    def delete_deployment(self, which: int) -> None:
        if self.read(lambda tx: rows.record(tx, DEPLOYMENT, id=self.deployments[which])) is not None:
            self.write(lambda tx: deployments.delete(tx, self.deployments[which]))

    @rule(seconds=st.sampled_from([1, 30, 3600]))
    def let_time_pass(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([1, 30]))
    def set_the_clock_back(self, seconds: int) -> None:
        self.clock.set_wall(-seconds)

    @rule()
    def restart(self) -> None:
        before = self.everything()
        self.sqlite.close()
        self.sqlite = self._open()
        self.dispatcher = self._dispatcher()
        assert self.everything() == before

    # --- what holds ------------------------------------------------------------------------------------------------------

    def everything(self) -> list[tuple[Any, ...]]:
        tables = ("flow_runs", "flow_run_states", "executions", "events")
        return [tuple(row) for table in tables for row in self.sqlite.execute(f"SELECT * FROM {table} ORDER BY id")]

    def holding(self, condition: str, value: Any) -> int:
        counted: int = self.sqlite.execute(
            f"SELECT count(*) FROM flow_runs WHERE state_type IN ('PENDING', 'RUNNING', 'CANCELLING') AND {condition}",
            (value,),
        ).fetchone()[0]
        return counted

    def leaving(self, deployment: str) -> int:
        """Executions of the deployment whose containers may live though their runs have nothing more to do there."""
        found = self.sqlite.execute(
            "SELECT e.phase, r.id, r.state_type, r.state_name, s.state_details, r.empirical_policy FROM executions AS e "
            "LEFT JOIN flow_runs AS r ON r.id = e.flow_run_id LEFT JOIN flow_run_states AS s ON s.id = r.state_id "
            "WHERE e.deployment_id = ?",
            (deployment,),
        )
        return sum(Phase(row["phase"]) in LIVE and self._has_left(row) for row in found)

    @staticmethod
    def _has_left(row: sqlite3.Row) -> bool:
        """Whether the run was deleted, has ended, is suspended, or scheduled anew for another process."""
        if row["id"] is None or row["state_type"] in TERMINAL:
            return True
        if row["state_type"] == "PAUSED":
            return bool(json.loads(row["state_details"]).get("pause_reschedule"))
        in_process = json.loads(row["empirical_policy"]).get("retry_type") == "in_process"
        return row["state_type"] == "SCHEDULED" and not (row["state_name"] == "AwaitingRetry" and in_process)

    def taken(self) -> Counter[str]:
        """Slots in use of the workspace, the pools and the queues, by their ids, as the rows have it.

        A run holds one from PENDING to its end, and an execution for as long as its container may live: also when its run has ended, was
        deleted, waits in its process, or has lost its queue.
        """
        pools = dict(self.sqlite.execute("SELECT id, work_pool_id FROM work_queues").fetchall())
        runs = {row["id"]: row for row in self.sqlite.execute("SELECT id, work_queue_id, state_type FROM flow_runs")}
        found: Counter[str] = Counter()
        for run in runs.values():
            if run["state_type"] in OCCUPYING and run["work_queue_id"] is not None:
                found.update((ids.DEFAULT_WORKSPACE_ID, pools[run["work_queue_id"]], run["work_queue_id"]))
        for execution in self.sqlite.execute("SELECT flow_run_id, work_pool_id, phase FROM executions"):
            run = runs.get(execution["flow_run_id"])
            queue = None if run is None else run["work_queue_id"]
            if Phase(execution["phase"]) not in LIVE or (queue is not None and run["state_type"] in OCCUPYING):
                continue
            found.update((ids.DEFAULT_WORKSPACE_ID, execution["work_pool_id"]))
            found.update(() if queue is None else (queue,))
        return found

    def assert_within_deployment(self, deployment: str | None) -> None:
        if deployment in (self.deployments[0], self.deployments[2]):
            assert self.holding("deployment_id = ?", deployment) + self.leaving(deployment) <= DEPLOYMENT_SLOTS

    @invariant()
    def a_runs_columns_are_what_its_states_imply(self) -> None:
        for run in self.sqlite.execute("SELECT * FROM flow_runs"):
            states = self.sqlite.execute(
                "SELECT * FROM flow_run_states WHERE flow_run_id = ? ORDER BY timestamp", (run["id"],)
            ).fetchall()
            times = [state["timestamp"] for state in states]
            assert len(set(times)) == len(times)
            if not states:
                assert run["state_id"] is run["state_type"] is run["end_time"] is run["start_time"] is None
                continue
            newest = states[-1]
            assert (newest["id"], newest["type"], newest["name"], newest["timestamp"]) == (
                run["state_id"], run["state_type"], run["state_name"], run["state_timestamp"],
            )  # fmt: skip
            kinds = [StateType(state["type"]) for state in states]
            assert (run["end_time"] is not None) == (kinds[-1] in TERMINAL)
            assert (run["start_time"] is not None) == any(k in TERMINAL or k is StateType.RUNNING for k in kinds)
            assert (run["next_scheduled_start_time"] is not None) == (kinds[-1] is StateType.SCHEDULED)
            assert run["expected_start_time"] is not None
            assert run["total_run_time"] == sum(
                after - before
                for kind, before, after in zip(kinds, times, times[1:], strict=False)
                if kind is StateType.RUNNING
            )
            began = kinds.count(StateType.RUNNING)
            # A run that goes on after a pause is no new run.
            assert began - kinds.count(StateType.PAUSED) <= run["run_count"] <= began

    @invariant()
    def executions_move_only_along_their_phases(self) -> None:
        found = {row["id"]: Phase(row["phase"]) for row in self.sqlite.execute("SELECT id, phase FROM executions")}
        for execution, phase in found.items():
            before = self.phases.get(execution)
            assert phase is Phase.CLAIMED if before is None else phase is before or phase in NEXT[before]
        assert set(self.phases) <= set(found)
        self.phases = found

    @invariant()
    def a_run_has_at_most_one_live_execution(self) -> None:
        crowded = self.sqlite.execute(
            "SELECT flow_run_id FROM executions WHERE phase NOT IN ('FINALIZED', 'LOST') GROUP BY flow_run_id HAVING count(*) > 1"
        ).fetchall()
        assert not crowded
        numbers = self.sqlite.execute("SELECT flow_run_id, attempt FROM executions").fetchall()
        assert len({tuple(row) for row in numbers}) == len(numbers)

    def minutes(self) -> int:
        """What the executions' own rows say of this month, and a minute for each that is about to start."""
        now = self.clock.now_us()
        month = month_of(now, UTC)
        total = 0
        for row in self.sqlite.execute("SELECT phase, started_at, exited_at FROM executions"):
            live = Phase(row["phase"]) in LIVE
            if row["started_at"] is None:
                total += live
            elif live or row["exited_at"] is not None:
                parts = metered(row["started_at"], now if live else row["exited_at"], UTC)
                total += sum(part.minutes for part in parts if part.month == month.name)
        return total

    @invariant()
    def minutes_are_what_the_rows_say(self) -> None:
        now = self.clock.now_us()
        month = month_of(now, UTC)
        used = self.read(lambda tx: usage.used(tx, ids.DEFAULT_WORKSPACE_ID, month, UTC)).minutes
        assert self.read(lambda tx: usage.used_by_all(tx, month, UTC)[ids.DEFAULT_WORKSPACE_ID]).minutes == used
        about = self.read(lambda tx: executions.unstarted(tx).get(ids.DEFAULT_WORKSPACE_ID, 0))
        assert used + about == self.minutes()

    @invariant()
    def nothing_refers_to_what_is_gone(self) -> None:
        assert not self.sqlite.execute("PRAGMA foreign_key_check").fetchall()


RunsAndExecutions.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestRunsAndExecutions = RunsAndExecutions.TestCase
