"""Four workspaces with limits of every kind over one daemon, and the engine's own account of their containers."""

from __future__ import annotations

import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from managedd import ids
from managedd.orchestration.pool_types import default_template
from tests.crash.oracle import Limits, Minutes, Run, Starts
from tests.support.daemon import LABEL_EXECUTION, LABEL_FLOW_RUN, LABEL_INSTANCE, LiveDaemon
from tests.support.http import Api

if TYPE_CHECKING:
    from pathlib import Path

MANAGED = "prefect:managed"
MIB = 1024**2
LINES = 3
LONG = {"lines": LINES, "pause": 21.5}
"""More than a minute: what a run under way overruns its workspace's hours by."""
SHORT = {"lines": LINES, "pause": 0.05}
GATE, GATE_SLOTS = "gate", 2
HOST_BYTES = 704 * MIB
"""Less than all slots together would take, and more than most of them do."""
QUEUE_SLOTS = {"a/a1/urgent": 1}


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Runs of one deployment."""

    name: str
    pool: str
    count: int
    queue: str = "default"
    memory_mib: int = 64
    parameters: dict[str, Any] = field(default_factory=lambda: SHORT)
    slots: int | None = None
    strategy: str = "ENQUEUE"
    every_seconds: float = 0.0
    """How long one is due after the one before; 0: all at once."""
    at_once: int = 1
    """So many are due at the same moment."""


@dataclass(kw_only=True)
class Tenant:
    """A workspace: its plan, its pools with their slots, and its runs."""

    handle: str
    plan: dict[str, Any]
    pools: dict[str, int | None]
    batches: tuple[Batch, ...]
    id: str = field(default_factory=ids.new_id)
    account: str = field(default_factory=ids.new_id)

    @property
    def share(self) -> int:
        return sum(batch.count for batch in self.batches)

    def api(self, daemon: LiveDaemon) -> Api:
        return Api(f"{daemon.url}/accounts/{self.account}/workspaces/{self.id}")


def tenants() -> dict[str, Tenant]:
    """One with slots at every level, one whose starts are rationed, one that overruns its hours, one that is stopped by them."""
    slots = Tenant(
        handle="a",
        plan={"concurrent_runs": 4},
        pools={"a1": 3, "a2": None},
        batches=(
            Batch(name="plain", pool="a1", count=35),
            Batch(name="urgent", pool="a1", queue="urgent", count=15, every_seconds=4),
            Batch(name="single", pool="a2", count=10, slots=1),
            Batch(name="newest", pool="a2", count=10, slots=1, strategy="CANCEL_NEW", every_seconds=6, at_once=2),
            Batch(name="gated", pool="a2", count=12, parameters={**SHORT, "limit": GATE}),
        ),
    )
    rationed = Tenant(
        handle="b",
        plan={"concurrent_runs": "none", "start_burst": 3, "starts_per_minute": 30},
        pools={"b1": 3},
        batches=(Batch(name="heavy", pool="b1", count=38, memory_mib=128),),
    )
    overrunning = Tenant(
        handle="c",
        plan={"concurrent_runs": 4, "compute_hours": 6 / 60, "on_exhausted": "finish"},
        pools={"c1": 2, "c2": 2},
        batches=(
            Batch(name="long", pool="c1", count=2, parameters=LONG),
            Batch(name="short", pool="c1", count=19),
            Batch(name="other", pool="c2", count=19),
        ),
    )
    stopped = Tenant(
        handle="d",
        plan={"concurrent_runs": "none", "compute_hours": 5 / 60, "on_exhausted": "stop"},
        pools={"d1": 3},
        batches=(Batch(name="long", pool="d1", count=1, parameters=LONG), Batch(name="short", pool="d1", count=39)),
    )
    return {tenant.handle: tenant for tenant in (slots, rationed, overrunning, stopped)}


class Witness:
    """The engine's own account of containers, written down as it comes: when each was started and when it ended."""

    def __init__(self, daemon: LiveDaemon, folder: Path) -> None:
        self._daemon = daemon
        self._path = folder / "events.jsonl"
        self._file = self._path.open("wb")
        self.memory: dict[str, int] = {}
        """The memory limits that the engine has set, by run: of those that were met running."""
        host, label = str(daemon.docker_host), f"label={LABEL_INSTANCE}={daemon.instance_id}"
        command = ["docker", "-H", host, "events", "--since", str(int(time.time())), "--filter", "type=container"]
        self._process = subprocess.Popen([*command, "--filter", label, "--format", "{{json .}}"], stdout=self._file)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._file.close()

    def look(self) -> int:
        """How many containers run now; no run has two."""
        live = self._daemon.live_runs()
        assert all(count == 1 for count in live.values()), "a run has two containers"
        if live.keys() - self.memory.keys():
            label = f"label={LABEL_INSTANCE}={self._daemon.instance_id}"
            listed = self._daemon.docker("ps", "-q", "--filter", label, "--filter", f"label={LABEL_EXECUTION}").split()
            form = f'{{{{index .Config.Labels "{LABEL_FLOW_RUN}"}}}} {{{{.HostConfig.Memory}}}} {{{{.HostConfig.MemorySwap}}}}'
            # Some of them are gone by now.
            for line in self._daemon.docker("inspect", "--format", form, *listed, check=False).splitlines():
                run_id, memory, swap = line.split()
                assert memory == swap, "swap would extend the limit"
                self.memory[run_id] = int(memory)
        return live.total()

    def moments(self, action: str) -> dict[str, float]:
        """When it befell the container of each run. It befell none twice."""
        found: dict[str, float] = {}
        for line in self._path.read_text().splitlines():
            event = json.loads(line)
            labels = event["Actor"]["Attributes"]
            if event["Action"] == action and LABEL_EXECUTION in labels:
                assert found.setdefault(labels[LABEL_FLOW_RUN], event["timeNano"] / 1e9) == event["timeNano"] / 1e9
        return found


@dataclass(kw_only=True)
class Stage:
    """The daemon with all four workspaces."""

    daemon: LiveDaemon
    tenants: dict[str, Tenant]
    witness: Witness
    image: str
    batches: dict[str, tuple[str, Batch]] = field(default_factory=dict)
    """By run: its workspace's handle and its batch."""
    outages: list[tuple[float, float]] = field(default_factory=list)
    opened: dict[str, float] = field(default_factory=dict)
    """When a workspace got a plan without hours."""

    def api(self, handle: str) -> Api:
        return self.tenants[handle].api(self.daemon)

    def kill(self) -> None:
        since = time.time()
        self.daemon.kill()
        self.daemon.start()
        self.outages.append((since, time.time()))

    def open(self, handle: str) -> None:
        """The workspace's hours have no limit any more; whoever waits for them goes."""
        self.opened[handle] = time.time()
        self.api(handle).call("PATCH", "/managed/workspace", {"plan": f"{handle}-open"})

    def furnish(self, tenant: Tenant) -> dict[str, str]:
        """Its pools, queues and deployments exist: the deployments' ids by batch."""
        api = tenant.api(self.daemon)
        flow = api.post("/flows/", {"name": "numbers"})["id"]
        for pool, limit in tenant.pools.items():
            template = default_template(MANAGED)
            api.post(
                "/work_pools/",
                {"name": pool, "type": MANAGED, "base_job_template": template, "concurrency_limit": limit},
            )
        for batch in tenant.batches:
            slots = QUEUE_SLOTS.get(queue_of(tenant, batch))
            if slots is not None:
                api.post(
                    f"/work_pools/{batch.pool}/queues", {"name": batch.queue, "priority": 1, "concurrency_limit": slots}
                )
        if any("limit" in batch.parameters for batch in tenant.batches):
            api.post("/v2/concurrency_limits/", {"name": GATE, "limit": GATE_SLOTS})
        return {
            batch.name: str(api.post("/deployments/", self._deployment(flow, batch))["id"]) for batch in tenant.batches
        }

    def _deployment(self, flow: str, batch: Batch) -> dict[str, Any]:
        return {
            "name": batch.name, "flow_id": flow, "work_pool_name": batch.pool, "work_queue_name": batch.queue,
            "job_variables": {"image": self.image, "memory_limit": f"{batch.memory_mib}Mi"},
            "enforce_parameter_schema": False, "concurrency_limit": batch.slots,
            "concurrency_options": None if batch.slots is None else {"collision_strategy": batch.strategy},
        }  # fmt: skip

    def submit(self, handle: str, deployment: str, batch: Batch, delay_seconds: float) -> str:
        when = datetime.fromtimestamp(time.time() + delay_seconds, UTC).isoformat()
        body = {
            "state": {"type": "SCHEDULED", "state_details": {"scheduled_time": when}},
            "parameters": batch.parameters,
        }
        made = str(self.api(handle).post(f"/deployments/{deployment}/create_flow_run", body)["id"])
        self.batches[made] = handle, batch
        return made

    def submit_all(self) -> dict[str, dict[str, str]]:
        """Every run, those that last first; the deployments by workspace and batch."""
        made = {handle: self.furnish(tenant) for handle, tenant in self.tenants.items()}
        orders = [
            (handle, made[handle][batch.name], batch, number // batch.at_once * batch.every_seconds)
            for handle, tenant in self.tenants.items()
            for batch in tenant.batches
            for number in range(batch.count)
        ]
        long = [order for order in orders if order[2].parameters is LONG]
        for order in long:
            self.submit(*order)
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda order: self.submit(*order), (order for order in orders if order not in long)))
        return made

    def runs(self) -> list[Run]:
        """What has happened to each run: claims and ends as the rows have them, containers as the engine has them."""
        started, died = self.witness.moments("start"), self.witness.moments("die")
        rows = self.daemon.query(
            "SELECT r.id, max(r.created, r.expected_start_time) / 1e6 AS due, r.end_time / 1e6 AS over, e.claimed_at / 1e6 AS claimed, e.exited_at / 1e6 AS freed "
            "FROM flow_runs AS r LEFT JOIN executions AS e ON e.flow_run_id = r.id"
        )
        found = []
        for row in rows:
            handle, batch = self.batches[row["id"]]
            tenant = self.tenants[handle]
            found.append(
                Run(
                    workspace=handle,
                    pool=f"{handle}/{batch.pool}",
                    queue=queue_of(tenant, batch),
                    deployment=f"{handle}:{batch.name}",
                    memory_bytes=batch.memory_mib * MIB,
                    started=started.get(row["id"]),
                    died=died.get(row["id"]),
                    **row,
                )
            )
        return found

    def limits(self) -> Limits:
        slots: dict[str, int] = dict(QUEUE_SLOTS)
        deployments: dict[str, int] = {}
        minutes: dict[str, Minutes] = {}
        starts: dict[str, Starts] = {}
        for handle, tenant in self.tenants.items():
            plan = tenant.plan
            if plan["concurrent_runs"] != "none":
                slots[handle] = plan["concurrent_runs"]
            slots |= {f"{handle}/{pool}": limit for pool, limit in tenant.pools.items() if limit is not None}
            deployments |= {
                f"{handle}:{batch.name}": batch.slots for batch in tenant.batches if batch.slots is not None
            }
            if "compute_hours" in plan:
                minutes[handle] = Minutes(limit=round(plan["compute_hours"] * 60), until=self.opened[handle])
            if "start_burst" in plan:
                starts[handle] = Starts(burst=plan["start_burst"], per_second=plan["starts_per_minute"] / 60)
        return Limits(memory_bytes=HOST_BYTES, slots=slots, deployments=deployments, minutes=minutes, starts=starts)


def queue_of(tenant: Tenant, batch: Batch) -> str:
    return f"{tenant.handle}/{batch.pool}/{batch.queue}"
