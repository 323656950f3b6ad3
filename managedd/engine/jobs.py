"""Jobs: from a claimed execution's rows to what to run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from managedd.engine import run_env
from managedd.engine.means import Job
from managedd.engine.run_env import RunFacts
from managedd.errors import ManagedError, invalid
from managedd.model.amounts import apart, human_bytes, human_seconds
from managedd.model.drivers import PullPolicy, RunSpec
from managedd.model.limits import Needs
from managedd.model.secrets import hidden
from managedd.orchestration.job_variables import (
    BlockById,
    BlockByName,
    VariableByName,
    find_references,
    merge,
    render,
    secret_values,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """What the rows say of a run's job."""

    facts: JobFacts
    job: ManagedJob
    plan: Plan
    size_varies: bool
    """Its size comes from a variable or a block."""


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
        """What to run, and what to say of it; the execution's row has the image, and the limits that it will be held to.

        Raises ManagedError(INVALID or NOT_FOUND) when the job variables can't be used.
        """
        loaded = await self._db.read(lambda tx: self._load(tx, execution.flow_run_id))
        env, dropped = strip_reserved(loaded.job.env)
        spec = self._spec(execution, loaded, env, await self._api_url())
        limits = {
            "image": spec.image,
            "memory_limit_bytes": spec.memory_bytes,
            "cpu_limit": spec.cpus,
            "time_limit_seconds": spec.time_limit_seconds,
        }

        def note(tx: Tx) -> Execution | None:
            executions.note(tx, execution.id, limits)
            return executions.get(tx, execution.id)

        noted = await self._db.write(note) or execution
        return Job(
            execution=noted,
            spec=spec,
            notes=(*_dropped(dropped), *self._sized(execution, loaded), *self._shortened(spec, loaded)),
        )

    def needs(self, tx: Tx, flow_run_id: str) -> Needs:
        """What the run will reserve of the host; the default where its job variables can't be used, which its runner will say."""
        try:
            loaded = self._load(tx, flow_run_id)
        except ManagedError:
            return Needs(memory_bytes=self._memory_bytes(ManagedJob(), None), cpus=self._runs.cpu_limit, varies=True)
        job = loaded.job
        return Needs(
            memory_bytes=self._memory_bytes(job, loaded.plan),
            cpus=job.cpus or self._runs.cpu_limit,
            varies=loaded.size_varies,
        )

    def _sized(self, execution: Execution, loaded: _Loaded) -> list[str]:
        """What the run's log shall say where it is not as large as its job variables ask for now."""
        asked, cpus = self._memory_bytes(loaded.job, loaded.plan), loaded.job.cpus or self._runs.cpu_limit
        kept = []
        if execution.memory_limit_bytes not in {None, asked}:
            kept.append(f"{human_bytes(execution.memory_limit_bytes)} of memory, and not {human_bytes(asked)}")
        if execution.cpu_limit not in {None, cpus}:
            kept.append(f"{execution.cpu_limit:g} processors, and not {cpus:g}")
        return (
            [f"The run has what was reserved for it before its job variables changed: {'; '.join(kept)}"]
            if kept
            else []
        )

    def _shortened(self, spec: RunSpec, loaded: _Loaded) -> list[str]:
        """What the run's log shall say where the settings were changed since it was allowed more time."""
        asked, given = loaded.job.timeout_seconds, spec.time_limit_seconds
        if asked is None or given is None or asked <= given:
            return []
        shown = apart(human_seconds, "seconds", round(given), asked)
        return [f"The run may take {shown[0]} (runs.time_limit_seconds), and not {shown[1]} as its timeout asks"]

    def _memory_bytes(self, job: ManagedJob, plan: Plan | None) -> int:
        return job.memory_bytes or _least(
            self._runs.memory_limit_bytes, None if plan is None else plan.memory_limit_bytes
        )

    def _load(self, tx: Tx, flow_run_id: str) -> _Loaded:
        facts = job_facts.load(tx, flow_run_id)
        if facts is None:
            raise invalid("the flow run was deleted")
        if facts.work_pool_name is None:
            raise invalid("the work pool or the work queue of the run was deleted")
        blocks: list[Any] = []
        try:
            return self._rendered(tx, facts, blocks)
        except ManagedError as error:
            # It is told in the run's state and log.
            secrets = secret_values(facts.template, facts.deployment_variables, facts.run_variables)
            raise ManagedError(error.code, hidden(error.message, [*secrets, *blocks]), detail=error.detail) from None

    def _rendered(self, tx: Tx, facts: JobFacts, blocks: list[Any]) -> _Loaded:
        """The job of these facts; what blocks have given to it is in `blocks`, also when it raises."""
        scoped = tx.scoped(facts.workspace_id)
        values = merge(facts.template, facts.deployment_variables, facts.run_variables)
        configuration = render(facts.template.get("job_configuration") or {}, values)
        resolved: dict[Any, Any] = {}
        for reference in find_references(configuration):
            found = _resolve(scoped, reference)
            if found is not None:
                resolved[reference] = found
            if not isinstance(reference, VariableByName):
                blocks.append(found)
        given = substitute(configuration, resolved)
        job = managed_job(given, default_image=self._runs.image)
        plan = plans.of_workspace(tx, facts.workspace_id)
        check_job(job, plan, image_is_chosen=bool(given.get("image")))
        size = [configuration.get(name) for name in ("memory_limit", "cpu_limit")]
        return _Loaded(facts=facts, job=job, plan=plan, size_varies=bool(find_references(size)))

    def _spec(self, execution: Execution, loaded: _Loaded, env: Mapping[str, str], api_url: str) -> RunSpec:
        runs, facts, job, plan = self._runs, loaded.facts, loaded.job, loaded.plan
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
            # What was reserved of the host when it was claimed, whatever was changed since.
            memory_bytes=execution.memory_limit_bytes or self._memory_bytes(job, plan),
            cpus=execution.cpu_limit or job.cpus or runs.cpu_limit,
            pids=runs.pids_limit,
            install_timeout_seconds=runs.install_timeout_seconds,
            time_limit_seconds=execution.time_limit_seconds
            or _least(runs.time_limit_seconds, job.timeout_seconds, plan.time_limit_seconds),
            stop_grace_seconds=runs.stop_grace_seconds,
        )


def _least(first: int, *others: int | None) -> int:
    return min([first, *(other for other in others if other is not None)])


def _dropped(dropped: Collection[str]) -> list[str]:
    if not dropped:
        return []
    names = ", ".join(sorted(dropped))
    return [f"Not taken from the job variables' env, because the run's own values are needed: {names}"]


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
