"""Two hundred runs of four workspaces in six pools, the daemon killed five times: no limit is ever exceeded, none idles, nothing leaks."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from managedd import ids
from managedd.orchestration.pool_types import default_template
from tests.support.daemon import LiveDaemon
from tests.support.http import Api

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.provision import Provisioned

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.docker]

MANAGED = "prefect:managed"
RUNS, KILLS = 200, 5
SECONDS = 300.0
LINES = 3


@dataclass(kw_only=True)
class Tenant:
    """A workspace: its plan's slots, and its pools with theirs."""

    handle: str
    slots: int | None
    pools: dict[str, int | None]
    share: int
    """How many of the runs are its."""
    id: str = field(default_factory=ids.new_id)
    account: str = field(default_factory=ids.new_id)

    @property
    def room(self) -> int:
        """How many of its runs can go at once while all of its pools have some that wait."""
        pools = [limit for limit in self.pools.values() if limit is not None]
        most = sum(pools) if len(pools) == len(self.pools) else RUNS
        return min(most, RUNS if self.slots is None else self.slots)


TENANTS = (
    Tenant(handle="a", slots=4, pools={"a1": 3, "a2": None}, share=70),
    Tenant(handle="b", slots=2, pools={"b1": None}, share=30),
    Tenant(handle="c", slots=4, pools={"c1": 3, "c2": 2}, share=60),
    Tenant(handle="d", slots=None, pools={"d1": 3}, share=40),
)


@pytest.fixture
def daemon(docker_engine: Provisioned, tmp_path: Path) -> Iterator[LiveDaemon]:
    plans = {f"plans.{one.handle}": {"concurrent_runs": "none" if one.slots is None else one.slots} for one in TENANTS}
    made = LiveDaemon(tmp_path / "daemon", docker_host=docker_engine.docker_host, settings=plans)
    try:
        made.start()
        made.stop()
        # Workspaces are made by the operator; the tables are what any way to make them comes down to.
        with contextlib.closing(sqlite3.connect(made.data_dir / "state.db")) as connection, connection:
            for one in TENANTS:
                connection.execute(
                    "INSERT INTO accounts (id, handle, name, created) VALUES (?, ?, ?, 0)",
                    (one.account, one.handle, one.handle),
                )
                connection.execute(
                    "INSERT INTO workspaces (id, account_id, handle, name, plan, created, updated) VALUES (?, ?, 'w', 'w', ?, 0, 0)",
                    (one.id, one.account, one.handle),
                )
        made.start()
        yield made
    finally:
        made.close()


def submit(daemon: LiveDaemon, tenant: Tenant, image: str) -> list[str]:
    """The tenant's pools, a deployment in each, and its share of the runs over them; their ids."""
    api = Api(f"{daemon.url}/accounts/{tenant.account}/workspaces/{tenant.id}")
    flow = api.post("/flows/", {"name": "numbers"})["id"]
    deployments = []
    for pool, limit in tenant.pools.items():
        template = default_template(MANAGED)
        api.post(
            "/work_pools/", {"name": pool, "type": MANAGED, "base_job_template": template, "concurrency_limit": limit}
        )
        body = {"name": pool, "flow_id": flow, "work_pool_name": pool, "job_variables": {"image": image}}
        deployments.append(api.post("/deployments/", body)["id"])
    parameters = {"lines": LINES, "pause": 0.05}
    turns = list(itertools.islice(itertools.cycle(deployments), tenant.share))
    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(lambda deployment: start(api, deployment, parameters), turns))


def start(api: Api, deployment: str, parameters: dict[str, Any]) -> str:
    body = {"state": {"type": "SCHEDULED"}, "parameters": parameters}
    return str(api.post(f"/deployments/{deployment}/create_flow_run", body)["id"])


class Watch:
    """Looks at the engine and at the rows, and sums up how well the slots are used while more runs wait than there are slots."""

    def __init__(self, daemon: LiveDaemon) -> None:
        self._daemon = daemon
        self.used = 0
        self.usable = 0
        self.most = 0

    def look(self, *, counts: bool) -> int:
        """How many runs have not ended. Fails when a limit is exceeded."""
        self._check_engine()
        rows = self._daemon.query(
            "SELECT r.workspace_id, p.name AS pool, sum(r.state_type IN ('PENDING', 'RUNNING', 'CANCELLING')) AS taken, "
            "sum(r.state_type = 'SCHEDULED') AS waiting FROM flow_runs AS r JOIN work_queues AS q ON q.id = r.work_queue_id "
            "JOIN work_pools AS p ON p.id = q.work_pool_id GROUP BY 1, 2"
        )
        for tenant in TENANTS:
            mine = {row["pool"]: row for row in rows if row["workspace_id"] == tenant.id}
            taken = sum(row["taken"] for row in mine.values())
            assert tenant.slots is None or taken <= tenant.slots
            assert all(
                limit is None or mine[pool]["taken"] <= limit for pool, limit in tenant.pools.items() if pool in mine
            )
            # What lingers keeps its slot: only the engine knows of it, and it is not idle.
            if counts and all(mine[pool]["waiting"] > 0 for pool in tenant.pools):
                self.used += min(taken + self._lingering(tenant), tenant.room)
                self.usable += tenant.room
        return sum(row["taken"] + row["waiting"] for row in rows)

    def _lingering(self, tenant: Tenant) -> int:
        [row] = self._daemon.query(
            "SELECT count(*) AS n FROM executions AS e JOIN flow_runs AS r ON r.id = e.flow_run_id WHERE e.workspace_id = ? "
            "AND e.phase IN ('CLAIMED', 'CREATED', 'RUNNING') AND r.state_type NOT IN ('PENDING', 'RUNNING', 'CANCELLING')",
            tenant.id,
        )
        return int(row["n"])

    def _check_engine(self) -> None:
        live = self._daemon.live_runs()
        assert all(count == 1 for count in live.values()), "a run has two containers"
        rows = self._daemon.query(
            "SELECT r.id, r.workspace_id, p.name AS pool FROM flow_runs AS r JOIN work_queues AS q ON q.id = r.work_queue_id "
            "JOIN work_pools AS p ON p.id = q.work_pool_id"
        )
        owner = {row["id"]: (row["workspace_id"], row["pool"]) for row in rows}
        by_pool = Counter(owner[run_id] for run_id in live if run_id in owner)
        self.most = max(self.most, len(live))
        for tenant in TENANTS:
            containers = {pool: by_pool[tenant.id, pool] for pool in tenant.pools}
            assert tenant.slots is None or sum(containers.values()) <= tenant.slots, (tenant.handle, containers)
            for pool, limit in tenant.pools.items():
                assert limit is None or containers[pool] <= limit, (pool, containers)


@pytest.mark.timeout(SECONDS + 120)
def test_limits_hold_and_nothing_leaks(daemon: LiveDaemon, fast_image: str, record_property: Any) -> None:
    runs = [run_id for tenant in TENANTS for run_id in submit(daemon, tenant, fast_image)]
    assert len(runs) == len(set(runs)) == RUNS
    watch = Watch(daemon)
    began, kills, quiet_until = time.monotonic(), 0, 0.0
    while (left := watch.look(counts=time.monotonic() > quiet_until)) > 0:
        assert time.monotonic() < began + SECONDS, f"{left} runs left\n{daemon.log_tail()}"
        if kills < KILLS and left <= RUNS - (kills + 1) * RUNS // (KILLS + 1):
            daemon.kill()
            daemon.start()
            kills, quiet_until = kills + 1, time.monotonic() + 1.0
        time.sleep(0.1)
    assert kills == KILLS
    utilisation = watch.used / watch.usable
    record_property("utilisation", round(utilisation, 3))
    record_property("seconds", round(time.monotonic() - began, 1))
    record_property("most_containers", watch.most)
    assert utilisation > 0.9, f"{watch.used} of {watch.usable} slots"

    daemon.wait_no_containers(seconds=30)
    states = Counter(row["state_type"] for row in daemon.query("SELECT state_type FROM flow_runs"))
    assert states == {"COMPLETED": RUNS}
    ended = daemon.query("SELECT flow_run_id, attempt, phase, end_cause FROM executions")
    assert sorted((row["flow_run_id"], row["attempt"]) for row in ended) == sorted((run_id, 1) for run_id in runs)
    assert {(row["phase"], row["end_cause"]) for row in ended} == {("FINALIZED", "completed")}
    starts = daemon.query("SELECT flow_run_id, count(DISTINCT data) AS n FROM artifacts GROUP BY 1")
    assert {row["flow_run_id"]: row["n"] for row in starts} == dict.fromkeys(runs, 1)
    lines = daemon.query(
        "SELECT flow_run_id, count(*) AS n FROM logs WHERE name = 'stdout' GROUP BY 1", database="logs"
    )
    assert {row["flow_run_id"]: row["n"] for row in lines} == dict.fromkeys(runs, LINES)
    # Every execution is in the ledger once, and the months add up to it.
    minutes = {
        row["workspace_id"]: row["n"]
        for row in daemon.query("SELECT workspace_id, sum(minutes) AS n FROM usage GROUP BY 1")
    }
    assert minutes == {tenant.id: tenant.share for tenant in TENANTS}
    for tenant in TENANTS:
        report = Api(f"{daemon.url}/accounts/{tenant.account}/workspaces/{tenant.id}").get("/managed/usage")
        assert (report["used_minutes"], report["running_minutes"]) == (tenant.share, 0)
