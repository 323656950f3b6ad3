"""Two hundred runs of four workspaces in six pools under every kind of limit, the daemon killed five times.

No limit is ever exceeded, none idles while a run could go, no slot and no minute is lost, and no run is run twice.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.crash.oracle import Oracle, Run, peak
from tests.crash.stage import GATE_SLOTS, HOST_BYTES, LINES, LONG, MIB, SHORT, Batch, Stage, Witness, tenants
from tests.support.daemon import LiveDaemon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.provision import Provisioned

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.docker]

RUNS, KILLS = 200, 5
SECONDS = 600.0
LOOK_SECONDS = 1.0
FINISHES, STOPS = "c", "d"
"""The workspaces whose hours are used up: runs under way finish there, and are stopped here."""


@pytest.fixture
def stage(docker_engine: Provisioned, tmp_path: Path, fast_image: str) -> Iterator[Stage]:
    made = tenants()
    plans = {f"plans.{handle}": tenant.plan for handle, tenant in made.items()}
    plans |= {
        f"plans.{handle}-open": {"concurrent_runs": tenant.plan["concurrent_runs"]}
        for handle, tenant in made.items()
        if "compute_hours" in tenant.plan
    }
    settings = {**plans, "host": {"memory_bytes": HOST_BYTES}, "runs": {"stop_grace_seconds": 2.0}}
    daemon = LiveDaemon(tmp_path / "daemon", docker_host=docker_engine.docker_host, settings=settings)
    with contextlib.ExitStack() as until_the_end:
        until_the_end.callback(daemon.close)
        daemon.start()
        daemon.stop()
        # Workspaces are made by the operator; the tables are what any way to make them comes down to.
        with contextlib.closing(sqlite3.connect(daemon.data_dir / "state.db")) as connection, connection:
            for one in made.values():
                connection.execute(
                    "INSERT INTO accounts (id, handle, name, created) VALUES (?, ?, ?, 0)",
                    (one.account, one.handle, one.handle),
                )
                connection.execute(
                    "INSERT INTO workspaces (id, account_id, handle, name, plan, created, updated) VALUES (?, ?, 'w', 'w', ?, 0, 0)",
                    (one.id, one.account, one.handle),
                )
        daemon.start()
        witness = Witness(daemon, tmp_path)
        until_the_end.callback(witness.close)
        yield Stage(daemon=daemon, tenants=made, witness=witness, image=fast_image)


class Drive:
    """The runs on their way: the daemon is killed as they end, and plans are opened once their hours have been overrun or have stopped a run."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._kills = 0
        self.most = 0
        self.overrun = 0.0

    def to_the_end(self) -> None:
        deadline = time.monotonic() + SECONDS
        while (left := self._left()) > 0:
            assert time.monotonic() < deadline, f"{left} runs left\n{self._stage.daemon.log_tail()}"
            if self._kills < KILLS and left <= RUNS - (self._kills + 1) * RUNS // (KILLS + 1):
                self._stage.kill()
                self._kills += 1
            self._open()
            self.most = max(self.most, self._stage.witness.look())
            time.sleep(LOOK_SECONDS)
        assert self._kills == KILLS

    def _left(self) -> int:
        [row] = self._stage.daemon.query(
            "SELECT count(*) AS n FROM flow_runs WHERE state_type IN ('SCHEDULED', 'PENDING', 'RUNNING', 'CANCELLING')"
        )
        return int(row["n"])

    def _open(self) -> None:
        for handle in {FINISHES, STOPS} - self._stage.opened.keys():
            report = self._stage.api(handle).get("/managed/usage")
            long = [
                run_id
                for run_id, (owner, batch) in self._stage.batches.items()
                if owner == handle and batch.parameters is LONG
            ]
            if handle == FINISHES and report["overrun_minutes"] >= len(long):
                self.overrun = report["overrun_minutes"]
                self._stage.open(handle)
            if handle == STOPS and self._stage.api(handle).run(long[0])["state_type"] == "CRASHED":
                self._stage.open(handle)


@pytest.mark.timeout(SECONDS + 120)
def test_limits_hold_and_nothing_leaks(stage: Stage, record_property: Any) -> None:
    began = time.time()
    deployments = stage.submit_all()
    assert len(stage.batches) == RUNS
    drive = Drive(stage)
    drive.to_the_end()
    ended = time.time()
    stage.daemon.wait_no_containers(seconds=30)

    runs = stage.runs()
    oracle = Oracle(runs, stage.limits())
    use = oracle.use(began, ended, stage.outages)
    to_the_death = Oracle([replace(run, freed=run.died) for run in runs], stage.limits()).use(
        began, ended, stage.outages
    )
    figures = {
        "seconds": round(ended - began, 1),
        "utilisation": round(use.utilisation, 3),
        "utilisation_until_containers_end": round(to_the_death.utilisation, 3),
        "slot_seconds": round(use.used, 1),
        "idle_by_workspace": use.idle_by_workspace,
        "down_seconds": [round(until - since, 1) for since, until in stage.outages],
        "most_containers": drive.most,
        "most_memory_mib": peak((run.started, run.died, run.memory_bytes) for run in runs if run.started and run.died)
        // MIB,
        "overrun_minutes": drive.overrun,
        "minutes": {handle: sum(run.minutes for run in runs if run.workspace == handle) for handle in stage.tenants},
        "ends": Counter(f"{row['state_type']} {row['end_cause']}" for row in ends(stage)),
        "waits": Counter(
            row["name"] for row in stage.daemon.query("SELECT name FROM flow_run_states WHERE name LIKE 'Awaiting%'")
        ),
    }
    for name, value in figures.items():
        # In words: what is no plain value does not come through from a worker of pytest.
        record_property(name, str(value))

    assert list(oracle.complaints()) == []
    assert oracle.passed_over("a/a1/urgent", "a/a1/default") == []
    check_engine(stage, runs)
    check_ends(stage)
    check_waits(stage)
    check_gate(stage)
    check_minutes(stage, runs)
    assert 0 < drive.overrun <= 4, "a minute of each that was under way"
    assert use.utilisation >= 0.95, figures
    check_slots_are_free(stage, deployments)


def ends(stage: Stage) -> list[dict[str, Any]]:
    """How each run and its executions ended."""
    return stage.daemon.query(
        "SELECT r.id, r.state_type, s.message, e.attempt, e.phase, e.end_cause, e.id AS execution_id FROM flow_runs AS r "
        "JOIN flow_run_states AS s ON s.id = r.state_id LEFT JOIN executions AS e ON e.flow_run_id = r.id"
    )


def check_engine(stage: Stage, runs: list[Run]) -> None:
    """The engine has started one container for each run that was claimed, and has seen it end; with the memory limit that was asked for."""
    for run in runs:
        assert (run.claimed is None) == (run.started is None) == (run.died is None), run
    assert len(stage.witness.memory) > RUNS // 2
    for run_id, memory in stage.witness.memory.items():
        assert memory == stage.batches[run_id][1].memory_mib * MIB


def check_ends(stage: Stage) -> None:
    """Every run was executed once and completed, but for those that a limit ended as it should."""
    found = ends(stage)
    assert len(found) == RUNS, "nobody has two executions"
    by_end: dict[str, list[str]] = {"COMPLETED": [], "CANCELLED": [], "CRASHED": []}
    for row in found:
        handle, batch = stage.batches[row["id"]]
        by_end[row["state_type"]].append(row["id"])
        if row["state_type"] == "CANCELLED":
            assert (batch.strategy, row["execution_id"], row["message"]) == (
                "CANCEL_NEW", None, "Deployment concurrency limit reached.",
            )  # fmt: skip
        else:
            cause = "completed" if row["state_type"] == "COMPLETED" else "quota"
            assert (row["attempt"], row["phase"], row["end_cause"]) == (1, "FINALIZED", cause)
        if row["state_type"] == "CRASHED":
            assert handle == STOPS
            assert row["message"].startswith("The workspace's compute hours are used up: ")
    assert 0 < len(by_end["CRASHED"]) <= 3, "no more than were under way"
    newest = [run_id for run_id, (_, batch) in stage.batches.items() if batch.strategy == "CANCEL_NEW"]
    assert 0 < len(by_end["CANCELLED"]) < len(newest)
    starts = stage.daemon.query(
        "SELECT flow_run_id, count(DISTINCT data) AS n FROM artifacts WHERE type = 'start' GROUP BY 1"
    )
    counted = {row["flow_run_id"]: row["n"] for row in starts}
    assert {run_id: counted.get(run_id) for run_id in by_end["COMPLETED"]} == dict.fromkeys(by_end["COMPLETED"], 1)
    lines = stage.daemon.query(
        "SELECT flow_run_id, count(*) AS n FROM log_lines WHERE name = 'stdout' GROUP BY 1", database="logs"
    )
    printed = {row["flow_run_id"]: row["n"] for row in lines}
    assert {run_id: printed.get(run_id) for run_id in by_end["COMPLETED"]} == dict.fromkeys(by_end["COMPLETED"], LINES)


def check_waits(stage: Stage) -> None:
    """Every limit has made somebody wait, and said so where it should: the figures are about limits that bite."""
    handles = {tenant.id: handle for handle, tenant in stage.tenants.items()}
    rows = stage.daemon.query("SELECT DISTINCT workspace_id, name FROM flow_run_states WHERE name LIKE 'Awaiting%'")
    names = {(handles[row["workspace_id"]], row["name"]) for row in rows}
    assert ("a", "AwaitingConcurrencySlot") in names
    assert "AwaitingHostCapacity" in {name for _, name in names}
    assert {handle for handle, name in names if name == "AwaitingComputeHours"} == {FINISHES, STOPS}


def check_gate(stage: Stage) -> None:
    """No more runs than the global limit has slots were between taking and giving back at one moment; none is held."""
    held = stage.daemon.query("SELECT DISTINCT flow_run_id, data FROM artifacts WHERE type = 'held'")
    stretches = [tuple(map(float, row["data"].strip('"').split())) for row in held]
    gated = [run_id for run_id, (_, batch) in stage.batches.items() if "limit" in batch.parameters]
    assert {row["flow_run_id"] for row in held} == set(gated)
    assert peak((entered, left, 1) for entered, left in stretches) <= GATE_SLOTS
    # One whose answer the daemon took with it when it was killed runs out.
    deadline = time.monotonic() + 65
    while stage.api("a").get("/v2/concurrency_limits/gate")["active_slots"] > 0:
        assert time.monotonic() < deadline, "a slot of the global limit is still held"
        time.sleep(0.2)


def check_minutes(stage: Stage, runs: list[Run]) -> None:
    """The ledger has what the engine's own times of starts and ends come to, run by run, and the months add up to it."""
    ledger = {
        row["flow_run_id"]: row["n"]
        for row in stage.daemon.query("SELECT flow_run_id, sum(minutes) AS n FROM usage GROUP BY 1")
    }
    assert ledger == {run.id: run.minutes for run in runs if run.claimed is not None}
    assert max(ledger.values()) == 2
    for handle in stage.tenants:
        report = stage.api(handle).get("/managed/usage")
        spent = sum(run.minutes for run in runs if run.workspace == handle)
        assert (report["used_minutes"], report["running_minutes"]) == (spent, 0)


def check_slots_are_free(stage: Stage, deployments: dict[str, dict[str, str]]) -> None:
    """A new run of each pool goes at once: nothing of what has ended holds a slot."""
    assert stage.daemon.query("SELECT id FROM executions WHERE phase NOT IN ('FINALIZED', 'LOST')") == []
    fresh = {
        stage.submit(
            handle,
            deployments[handle][batch.name],
            Batch(name=batch.name, pool=batch.pool, count=1, parameters=SHORT),
            0.0,
        )
        for handle, tenant in stage.tenants.items()
        for batch in {batch.pool: batch for batch in tenant.batches}.values()
    }
    assert len(fresh) == 6
    for run_id in fresh:
        state = stage.api(stage.batches[run_id][0]).wait(run_id, seconds=60)["state"]
        assert state["type"] == "COMPLETED", state
    names = stage.daemon.query(
        "SELECT DISTINCT name FROM flow_run_states WHERE flow_run_id IN (SELECT value FROM json_each(?))",
        json.dumps(list(fresh)),
    )
    assert {row["name"] for row in names} == {"Scheduled", "Pending", "Running", "Completed"}, "it waited for nothing"
    stage.daemon.wait_no_containers(seconds=30)
