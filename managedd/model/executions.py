"""Executions: one attempt to run a flow run, in one container."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from managedd.model.states import StateType

if TYPE_CHECKING:
    from collections.abc import Mapping


class Phase(StrEnum):
    """Where an execution stands. Only `executions.advance` writes it."""

    CLAIMED = "CLAIMED"
    """The run is PENDING and ours; nothing exists outside the store yet."""
    CREATED = "CREATED"
    """The container exists and its handle is saved; it may not have been started."""
    RUNNING = "RUNNING"
    """The container was started."""
    EXITED = "EXITED"
    """The container's main process ended, or the container vanished; its evidence is saved."""
    FINALIZED = "FINALIZED"
    """Logs are whole, the run has its end state, the container is removed. The end."""
    LOST = "LOST"
    """Logs are as whole as they can be, the run has its end state, the container had vanished before the run had ended. The end."""


ENDED = frozenset({Phase.FINALIZED, Phase.LOST})
"""Phases that nothing follows."""
LIVE = frozenset({Phase.CLAIMED, Phase.CREATED, Phase.RUNNING})
"""Phases in which the flow may still run."""

NEXT: Mapping[Phase, frozenset[Phase]] = {
    Phase.CLAIMED: frozenset({Phase.CREATED, Phase.EXITED}),
    Phase.CREATED: frozenset({Phase.RUNNING, Phase.EXITED}),
    Phase.RUNNING: frozenset({Phase.EXITED}),
    Phase.EXITED: frozenset({Phase.FINALIZED, Phase.LOST}),
    Phase.FINALIZED: frozenset(),
    Phase.LOST: frozenset(),
}
"""The only moves there are. CLAIMED → EXITED: it ended before a container existed (pull failed, cancelled)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndRule:
    """What a cause makes of a run that has not ended by itself."""

    type: StateType
    name: str
    template: str
    """`str.format` over the evidence."""


class EndCause(StrEnum):
    """Why an execution ended."""

    COMPLETED = "completed"
    """The engine reported the run's end itself, or that it is suspended or scheduled anew; nothing is to be said by us."""
    CANCEL = "cancel"
    MEMORY = "memory"
    TIME = "time"
    QUOTA = "quota"
    DISK = "disk"
    PIDS = "pids"
    IMAGE = "image"
    PACKAGES = "packages"
    PENDING_DEADLINE = "pending_deadline"
    ENGINE_EXIT = "engine_exit"
    HOST_RESTART = "host_restart"
    LOST = "lost"
    DRAIN = "drain"
    SPEC = "spec"
    """The job variables could not be rendered into something to run."""
    DRIVER = "driver"
    """The container engine refused to create or start the container."""
    ORPHANED = "orphaned"
    """Its deployment was deleted before it had an execution."""
    CANCEL_EARLY = "cancel_early"
    """Cancelled before it had an execution."""
    UNHELD = "unheld"
    """Pending or Running by a client's word, and no execution was ever made for it."""
    CANCEL_STUCK = "cancel_stuck"
    """Cancelled, and nothing is known that could say that it ended."""
    PARENT_CANCELLED = "parent_cancelled"
    """A run or task run below one that was cancelled."""
    PARENT_ENDED = "parent_ended"
    """A run or task run in the process of one that ended otherwise."""


def _crashed(template: str) -> EndRule:
    return EndRule(type=StateType.CRASHED, name="Crashed", template=template)


def _cancelled(template: str) -> EndRule:
    return EndRule(type=StateType.CANCELLED, name="Cancelled", template=template)


END_RULES: Mapping[EndCause, EndRule] = {
    EndCause.CANCEL: _cancelled("Flow run was cancelled: {detail}."),
    EndCause.MEMORY: _crashed(
        "Out of memory {while_doing}: the memory limit is {memory_limit}, the highest use seen was {peak_memory}. "
        "Raise the memory_limit job variable or use less memory."
    ),
    EndCause.TIME: _crashed(
        "Time limit reached {while_doing}: the run was stopped after {elapsed}; its limit is {time_limit}, installation included. "
        "Raise the timeout job variable as far as the plan allows, or let it {do_less}."
    ),
    EndCause.QUOTA: _crashed("The workspace's compute hours are used up: {detail}."),
    EndCause.DISK: _crashed("Disk limit reached: {detail}."),
    EndCause.PIDS: _crashed("Process limit reached: {detail}."),
    EndCause.IMAGE: _crashed("The image {image} could not be made ready: {detail}"),
    EndCause.PACKAGES: _crashed("Installing pip_packages failed: {detail}"),
    EndCause.PENDING_DEADLINE: _crashed(
        "The run made no progress for {elapsed} while Pending (deadline {pending_deadline}): {detail}."
    ),
    EndCause.ENGINE_EXIT: _crashed(
        "The flow run's process ended with exit code {exit_code} before the run had ended{detail}."
    ),
    EndCause.HOST_RESTART: _crashed("The host or its container engine restarted while the run was under way."),
    EndCause.LOST: _crashed("What the run ran in is gone: {detail}."),
    EndCause.DRAIN: _crashed("The run was stopped because this host is being drained."),
    EndCause.SPEC: _crashed("The run's job variables can't be used: {detail}"),
    EndCause.DRIVER: _crashed("It could not be run: {detail}"),
    EndCause.ORPHANED: _crashed("The deployment of this run was deleted before the run could start."),
    EndCause.CANCEL_EARLY: _cancelled("The flow run was cancelled before it had a container."),
    EndCause.UNHELD: _crashed(
        "The run was {state} for {elapsed} and has no container: runs of a managed work pool are started by this server, "
        "so create them Scheduled."
    ),
    EndCause.CANCEL_STUCK: _cancelled(
        "The run was still cancelling after {elapsed}, and nothing is known to run for it."
    ),
    EndCause.PARENT_CANCELLED: _cancelled("The parent flow run was cancelled."),
    EndCause.PARENT_ENDED: _crashed("The process that it ran in has ended with the parent flow run: {detail}"),
}
"""The one table: cause → end state. COMPLETED has no row because the run already has its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """A row of `executions`, as the engine sees it. Times are microseconds, sizes bytes."""

    id: str
    workspace_id: str
    flow_run_id: str
    attempt: int
    phase: Phase
    driver: str
    handle: Mapping[str, Any] | None
    image: str | None
    memory_limit_bytes: int | None
    cpu_limit: float | None
    time_limit_seconds: int | None
    claimed_at: int
    created_at: int | None
    started_at: int | None
    installed_at: int | None
    exited_at: int | None
    finalized_at: int | None
    exit_code: int | None
    oom_killed: bool
    peak_memory_bytes: int | None
    stop_requested_at: int | None
    stop_reason: EndCause | None
    end_cause: EndCause | None
    end_message: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndLine:
    """What the run's log says of the execution's end."""

    level: int
    message: str


def container_name(execution_id: str) -> str:
    """The deterministic name: creating it twice meets a 409 that means "adopt"."""
    return f"managedd-{execution_id}"
