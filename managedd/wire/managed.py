"""Our own surface: what the operator's `status` shows, and the executions behind a flow run."""

from __future__ import annotations

from pydantic import Field

from managedd.wire.base import Id, Int, JsonObject, Model, Timestamp


class EngineStatus(Model):
    """What runs run in."""

    driver: str | None = None
    version: str | None = None
    problem: str | None = None
    """Why no run can start now."""
    runs_api_url: str | None = None
    """The API's address as runs see it."""
    detail: JsonObject = Field(default_factory=dict)


class WorkspaceStatus(Model):
    """A workspace and the slots of its plan."""

    id: Id
    account_id: Id
    account: str
    handle: str
    plan: str
    slots_taken: Int
    slots: Int | None
    """None: no limit."""
    effective_slots: Int | None
    """As many runs of the usual size as the host holds, where that is fewer."""
    effective_because: str | None
    """What of the host it is that is short: `memory` or `processors`."""
    compute_minutes_used: Int
    """Of this month, by runs that have ended and by those under way."""
    compute_minutes: float | None
    """None: no limit."""


class HostStatus(Model):
    """What runs may reserve of the engine's host, and have reserved; None: no limit."""

    memory_bytes: Int | None
    memory_reserved_bytes: Int
    cpus: float | None
    cpus_reserved: float


class QueueHead(Model):
    """The run of a queue that is next."""

    id: Id
    name: str
    state_name: str
    due: Timestamp
    waits_for: str
    """`work_pool_paused`, `work_queue_paused`, `worker`, `engine`, `workspace_slots`, `work_pool_slots`, `work_queue_slots`,
    `deployment_slots`, `compute_hours`, `host_capacity`, `attempt` (its last one is being finished), `time`, or `nothing`: it is about to start."""
    reason: str
    """The same in words."""


class QueueStatus(Model):
    """A work queue."""

    id: Id
    name: str
    priority: Int
    is_paused: bool
    slots_taken: Int
    slots: Int | None
    due: Int
    """Runs that wait."""
    later: Int
    """Runs whose time has not come."""
    head: QueueHead | None


class PoolStatus(Model):
    """A work pool."""

    id: Id
    workspace_id: Id
    name: str
    type: str
    status: str
    slots_taken: Int
    slots: Int | None
    queues: list[QueueStatus]


class RunningStatus(Model):
    """An execution that has not ended."""

    id: Id
    workspace_id: Id
    flow_run_id: Id
    flow_run_name: str | None
    state_name: str | None
    work_pool_name: str | None
    attempt: Int
    phase: str
    driver: str
    image: str | None
    claimed_at: Timestamp
    started_at: Timestamp | None
    installed_at: Timestamp | None
    """When its packages were installed; with nothing to install: when it was started."""
    stop_reason: str | None
    memory_bytes: Int | None
    peak_memory_bytes: Int | None
    memory_limit_bytes: Int | None
    cpu_limit: float | None
    time_limit_seconds: Int | None


class LimitedStatus(Model):
    """An execution that a limit has ended."""

    id: Id
    workspace_id: Id
    flow_run_id: Id
    flow_run_name: str | None
    attempt: Int
    exited_at: Timestamp
    end_cause: str
    """`memory`, `time`, `quota`, `disk` or `pids`."""
    end_message: str | None
    limit: float | None
    reached: float | None
    """How far the run had come, as far as that was measured."""
    unit: str | None
    """Of both: `bytes`, `seconds`, `minutes` or `processes`."""


class StoreStatus(Model):
    """The databases' files, with their write-ahead logs."""

    state_bytes: Int
    logs_bytes: Int


class DaemonStatus(Model):
    """The daemon at one moment."""

    version: str
    now: Timestamp
    instance_id: str | None
    url: str | None
    engine: EngineStatus
    workspaces: list[WorkspaceStatus]
    pools: list[PoolStatus]
    running: list[RunningStatus]
    limited: list[LimitedStatus]
    """What a limit has ended in the last 24 hours, the last first, ten at most."""
    host: HostStatus
    store: StoreStatus


class FoundRun(Model):
    """A flow run, and the workspace that it is in."""

    id: Id
    account_id: Id
    workspace_id: Id
    name: str
    state_type: str | None
    state_name: str | None
    created: Timestamp


class ExecutionReport(Model):
    """One attempt to run a flow run, and how it ended."""

    id: Id
    flow_run_id: Id
    attempt: Int
    phase: str
    driver: str
    image: str | None
    memory_limit_bytes: Int | None
    cpu_limit: float | None
    time_limit_seconds: Int | None
    claimed_at: Timestamp
    pulled_at: Timestamp | None
    """When its image or environment was there; None: it was there before."""
    created_at: Timestamp | None
    installed_at: Timestamp | None
    started_at: Timestamp | None
    exited_at: Timestamp | None
    finalized_at: Timestamp | None
    exit_code: Int | None
    oom_killed: bool
    peak_memory_bytes: Int | None
    stop_requested_at: Timestamp | None
    stop_reason: str | None
    end_cause: str | None
    end_message: str | None
    evidence: JsonObject


class ResourceSample(Model):
    """What a container used at one moment."""

    at: Timestamp
    memory_bytes: Int
    cpu_seconds: float
    """Of processor time, since it was started."""


class ExecutionResources(Model):
    """What one attempt used while it ran, beside what it might use."""

    execution_id: Id
    attempt: Int
    memory_limit_bytes: Int | None
    cpu_limit: float | None
    peak_memory_bytes: Int | None
    samples: list[ResourceSample]
    """In the order of time, 120 at most: of a long run some of what was read, the highest among them."""


class RunsOfInterval(Model):
    """How many flow runs were expected to start in a stretch of time."""

    start: Timestamp
    end: Timestamp
    counts: dict[str, Int]
    """By the type of the state that they are in now; types of which there is none are left out."""
