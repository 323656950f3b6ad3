"""Workers."""

from __future__ import annotations

from enum import StrEnum

from managedd.wire.base import Id, Int, Row, Timestamp


class WorkerStatus(StrEnum):
    """Whether a worker has been heard of lately."""

    ONLINE = "ONLINE"
    OFFLINE = "OFFLINE"


class WorkerResponse(Row):
    """A worker."""

    name: str
    work_pool_id: Id
    last_heartbeat_time: Timestamp | None = None
    heartbeat_interval_seconds: Int | None = None
    status: WorkerStatus = WorkerStatus.OFFLINE
