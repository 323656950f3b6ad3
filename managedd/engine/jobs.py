"""Jobs: from a claimed execution's rows to what to run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from managedd.engine import run_env
from managedd.engine.means import Job
from managedd.engine.run_env import RunFacts
from managedd.errors import ManagedError, invalid
from managedd.model.drivers import PullPolicy, RunSpec
from managedd.model.limits import Needs
from managedd.orchestration.job_variables import (
    BlockById,
    BlockByName,
    VariableByName,
    find_references,
    merge,
    render,
    substitute,
)
from managedd.orchestration.managed_job import ManagedJob, managed_job, strip_reserved
from managedd.orchestration.plan_rules import check_job
from managedd.store import block_values, executions, job_facts, plans
from managedd.store.variable_values import VariableValues

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from managedd.config import Settings
    from managedd.engine.identity import Identity
    from managedd.model.executions import Execution
    from managedd.model.limits import Plan
    from managedd.store.database import Database, Tx
    from managedd.store.job_facts import JobFacts


class Jobs:
    """Makes the specification of an execution."""

    def __init__(
        self, db: Database, settings: Settings, identity: Identity, api_url: Callable[[], Awaitable[str]]
    ) -> None:
        self._db = db
        self._runs = settings.runs
        self._identity = identity
        self._api_url = api_url

    async def job(self, execution: Execution) -> Job:
        """What to run, and what to say of it; the execution's row has the limits that it will be held to.

        Raises ManagedError(INVALID or NOT_FOUND) when the job variables can't be used.
        """
        facts, job, plan = await self._db.read(lambda tx: self._load(tx, execution.flow_run_id))
        env, dropped = strip_reserved(job.env)
        spec = self._spec(execution, facts, job, plan, env, await self._api_url())
        limits = {
            "image": spec.image,
            "memory_limit_bytes": spec.memory_bytes,
            "cpu_limit": spec.cpus,
            "time_limit_seconds": spec.time_limit_seconds,
        }
        await self._db.write(lambda tx: executions.note(tx, execution.id, limits))
        return Job(spec=spec, notes=_notes(dropped))

    def needs(self, tx: Tx, flow_run_id: str) -> Needs:
        """What the run will reserve of the host; the default where its job variables can't be used, which its runner will say."""
        try:
            _, job, plan = self._load(tx, flow_run_id)
        except ManagedError:
            job, plan = ManagedJob(), None
        return Needs(memory_bytes=self._memory_bytes(job, plan), cpus=job.cpus or self._runs.cpu_limit)

    def _memory_bytes(self, job: ManagedJob, plan: Plan | None) -> int:
        return job.memory_bytes or _least(
            self._runs.memory_limit_bytes, None if plan is None else plan.memory_limit_bytes
        )

    def _load(self, tx: Tx, flow_run_id: str) -> tuple[JobFacts, ManagedJob, Plan]:
        facts = job_facts.load(tx, flow_run_id)
        if facts is None:
            raise invalid("the flow run was deleted")
        if facts.work_pool_name is None:
            raise invalid("the work pool or the work queue of the run was deleted")
        scoped = tx.scoped(facts.workspace_id)
        values = merge(facts.template, facts.deployment_variables, facts.run_variables)
        configuration = render(facts.template.get("job_configuration") or {}, values)
        resolved: dict[Any, Any] = {}
        for reference in find_references(configuration):
            found = _resolve(scoped, reference)
            if found is not None:
                resolved[reference] = found
        given = substitute(configuration, resolved)
        job = managed_job(given, default_image=self._runs.image)
        plan = plans.of_workspace(tx, facts.workspace_id)
        check_job(job, plan, image_is_chosen=bool(given.get("image")))
        return facts, job, plan

    def _spec(
        self, execution: Execution, facts: JobFacts, job: ManagedJob, plan: Plan, env: Mapping[str, str], api_url: str
    ) -> RunSpec:
        runs = self._runs
        names = RunFacts(
            account_id=facts.account_id,
            workspace_id=facts.workspace_id,
            flow_run_id=facts.flow_run_id,
            flow_run_name=facts.flow_run_name,
            flow_id=facts.flow_id,
            flow_name=facts.flow_name,
            deployment_id=facts.deployment_id,
            deployment_name=facts.deployment_name,
            work_pool_name=facts.work_pool_name,
        )
        key = self._identity.run_key(execution.id)
        return RunSpec(
            execution_id=execution.id,
            flow_run_id=execution.flow_run_id,
            instance_id=self._identity.instance_id,
            image=job.image,
            pull_policy=PullPolicy(runs.pull_policy),
            env=run_env.environment(names, api_url, key, operator=runs.env, user=env),
            packages=job.pip_packages,
            labels=run_env.labels(names),
            memory_bytes=self._memory_bytes(job, plan),
            cpus=job.cpus or runs.cpu_limit,
            pids=runs.pids_limit,
            install_timeout_seconds=runs.install_timeout_seconds,
            time_limit_seconds=_least(runs.time_limit_seconds, job.timeout_seconds, plan.time_limit_seconds),
            stop_grace_seconds=runs.stop_grace_seconds,
        )


def _least(first: int, *others: int | None) -> int:
    return min([first, *(other for other in others if other is not None)])


def _notes(dropped: Collection[str]) -> tuple[str, ...]:
    if not dropped:
        return ()
    names = ", ".join(sorted(dropped))
    return (f"Not taken from the job variables' env, because the run's own values are needed: {names}",)


def _resolve(tx: Tx, reference: Any) -> Any | None:
    match reference:
        case BlockByName(slug=slug, name=name):
            return block_values.by_name(tx, slug, name)
        case BlockById(id=document_id):
            return block_values.by_id(tx, document_id)
        case VariableByName(name=name):
            return VariableValues(tx).get(name)
        case _:
            return None
