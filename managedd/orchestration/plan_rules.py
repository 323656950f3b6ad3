"""What a workspace's plan allows its managed pools and runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from managedd.errors import forbidden, invalid
from managedd.model import images
from managedd.model.amounts import apart, human_bytes, human_seconds
from managedd.model.limits import SLACK
from managedd.orchestration import pool_types
from managedd.store import plans, rows
from managedd.store.resources import WORK_POOL
from managedd.wire.filters.work_pools import WorkPoolFilter

if TYPE_CHECKING:
    from managedd.model.limits import HostLimits, Plan
    from managedd.orchestration.managed_job import ManagedJob
    from managedd.store.database import Tx


def check_room(tx: Tx, pool_type: str) -> None:
    """Returns when there may be so many pools of that type as there are now, one of them just made; else a FORBIDDEN error in the words
    that the client knows as a limit's. Asked afterwards, so that a name that is taken is a conflict first: the client then overwrites.
    """
    plan = plans.of_workspace(tx, tx.workspace)
    if plan.managed_pools is None or not pool_types.is_managed(pool_type):
        return
    made = rows.count(tx, WORK_POOL, [(WORK_POOL, WorkPoolFilter.model_validate({"type": {"any_": [pool_type]}}))])
    if made > plan.managed_pools:
        raise forbidden(
            f"This workspace has the maximum number of managed work pools that its plan {plan.name!r} allows: {plan.managed_pools}. "
            "Delete one, or use one of them for more deployments."
        )


def check_host(job: ManagedJob, host: HostLimits, plan: Plan) -> None:
    """Returns when the host could hold such a run; else an INVALID error names the variable and what is allowed.

    A run that asks for nothing gets the operator's default, or what its plan has where that is less. For its time the operator's setting is
    the most, too.
    """
    defaults = [most for most in (host.run_memory_bytes, plan.memory_limit_bytes) if most is not None]
    memory_bytes = job.memory_bytes or (min(defaults) if host.run_memory_bytes is not None else 0)
    cpus = job.cpus or host.run_cpus or 0
    if host.memory_bytes is not None and memory_bytes > host.memory_bytes:
        asked, most = apart(human_bytes, "bytes", memory_bytes, host.memory_bytes)
        raise invalid(
            f"job_variables.memory_limit: {asked}{_default(job.memory_bytes)} is more than all runs together may reserve of this host, {most}"
        )
    if host.cpus is not None and cpus > host.cpus + SLACK:
        raise invalid(
            f"job_variables.cpu_limit: {cpus:g}{_default(job.cpus)} are more processors than all runs together may reserve of this host, "
            f"{host.cpus:g}"
        )
    if host.run_seconds is not None and (job.timeout_seconds or 0) > host.run_seconds:
        asked, most = apart(human_seconds, "seconds", job.timeout_seconds or 0, host.run_seconds)
        raise invalid(
            f"job_variables.timeout: {asked} is longer than runs on this host may take, {most} (runs.time_limit_seconds)"
        )


def _default(asked: float | None) -> str:
    return "" if asked else " (the default)"


def check_job(job: ManagedJob, plan: Plan, *, image_is_chosen: bool) -> None:
    """Returns when the plan allows such a run; else an INVALID error names the variable and what is allowed.

    An image that nobody chose is the operator's own.
    """
    if plan.memory_limit_bytes is not None and (job.memory_bytes or 0) > plan.memory_limit_bytes:
        asked, most = apart(human_bytes, "bytes", job.memory_bytes or 0, plan.memory_limit_bytes)
        raise invalid(f"job_variables.memory_limit: {asked} is more than plan {plan.name!r} allows, {most}")
    if plan.time_limit_seconds is not None and (job.timeout_seconds or 0) > plan.time_limit_seconds:
        asked, most = apart(human_seconds, "seconds", job.timeout_seconds or 0, plan.time_limit_seconds)
        raise invalid(f"job_variables.timeout: {asked} is longer than plan {plan.name!r} allows, {most}")
    if image_is_chosen and plan.images is not None and not images.is_allowed(job.image, plan.images):
        raise invalid(
            f"job_variables.image: {job.image!r} is no image that plan {plan.name!r} allows; allowed: {', '.join(plan.images)}"
        )
