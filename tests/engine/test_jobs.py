"""Jobs: from rows to what is run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from managedd import ids
from managedd.config import Settings
from managedd.engine.identity import Identity
from managedd.engine.jobs import Jobs
from managedd.errors import ErrorCode, ManagedError, unavailable
from managedd.model.drivers import PullPolicy
from managedd.model.flow_runs import ProposedState
from managedd.model.keys import RUN_PREFIX
from managedd.model.limits import Needs
from managedd.model.states import StateType
from managedd.orchestration.pool_types import default_template
from managedd.orchestration.transition import propose
from managedd.store import executions, flow_runs, rows
from managedd.store.resources import DEPLOYMENT, FLOW_RUN, VARIABLE, WORK_POOL
from managedd.store.workspaces import create

if TYPE_CHECKING:
    from managedd.model.executions import Execution
    from managedd.store.database import Tx
    from tests.engine.world import World

pytestmark = pytest.mark.anyio

IDENTITY = Identity(instance_id="here", secret=b"s" * 32)
URL = "http://172.30.0.1:4201/api"


async def api_url() -> str:
    return URL


def jobs(world: World, **runs: Any) -> Jobs:
    return Jobs(world.db, Settings.model_validate({"runs": runs}), IDENTITY, api_url)


async def job_for(world: World, *, pool: Any = None, deployment: Any = None, run: Any = None) -> Execution:
    """A claimed run with the three layers of job variables."""
    template = default_template("prefect:managed")
    assert template is not None
    for name, value in (pool or {}).items():
        template["variables"]["properties"][name]["default"] = value
    await world.write(lambda tx: rows.patch(tx, WORK_POOL, world.pool_id, {"base_job_template": template}))
    deployed = await world.deployment("d", job_variables=deployment or {})
    return await world.claimed(deployment_id=deployed, job_variables=run)


async def test_layers(world: World) -> None:
    execution = await job_for(
        world,
        pool={"image": "pool:1", "env": {"A": "pool", "B": "pool", "C": "pool"}, "memory_limit": "64Mi", "timeout": 50},
        deployment={"env": {"B": "deployment", "C": "deployment"}, "pip_packages": ["left-pad"]},
        run={"env": {"C": "run"}, "cpu_limit": 2},
    )
    job = await jobs(world, env={"A": "operator", "D": "operator"}, pull_policy="Never").job(execution)
    spec = job.spec
    assert (spec.execution_id, spec.flow_run_id, spec.instance_id) == (execution.id, execution.flow_run_id, "here")
    assert (spec.image, spec.packages, spec.pull_policy) == ("pool:1", ("left-pad",), PullPolicy.NEVER)
    assert (spec.memory_bytes, spec.cpus) == (64 * 1024**2, 2)
    assert spec.env["C"] == "run" and spec.env["D"] == "operator"
    assert job.notes == ()
    row = await world.execution(execution.flow_run_id)
    assert (row.image, row.memory_limit_bytes, row.cpu_limit, row.time_limit_seconds) == ("pool:1", 64 * 1024**2, 2, 50)
    names = (
        "prefect.io/flow-run-id",
        "prefect.io/flow-name",
        "prefect.io/deployment-name",
        "prefect.io/work-pool-name",
    )
    assert [spec.labels[name] for name in names] == [execution.flow_run_id, "etl", "d", "managed"]


async def test_defaults_and_the_operators_limit_of_time(world: World) -> None:
    execution = await job_for(world, run={"timeout": 10_000})
    job = await jobs(world, time_limit_seconds=600, image="ours:1").job(execution)
    spec = job.spec
    assert (spec.image, spec.memory_bytes, spec.cpus, spec.pids) == ("ours:1", 2 * 1024**3, 1.0, 1024)
    assert (await world.execution(execution.flow_run_id)).time_limit_seconds == 600
    assert job.notes == ("The run may take 10 min (runs.time_limit_seconds), and not 2 h 46 min as its timeout asks",)


async def test_what_a_user_may_not_set_is_dropped_and_named(world: World) -> None:
    mine = {
        "PREFECT_API_URL": "http://evil",
        "prefect_api_key": "k",
        "PREFECT__FLOW_RUN_ID": "x",
        "MANAGEDD_X": "y",
        "OK": "1",
    }
    execution = await job_for(world, run={"env": mine})
    job = await jobs(world).job(execution)
    assert job.spec.env["PREFECT_API_URL"] == URL and job.spec.env["OK"] == "1"
    assert job.spec.env["PREFECT__FLOW_RUN_ID"] == execution.flow_run_id
    assert not {"prefect_api_key", "MANAGEDD_X"} & set(job.spec.env)
    (note,) = job.notes
    assert note.endswith("MANAGEDD_X, PREFECT_API_URL, PREFECT__FLOW_RUN_ID, prefect_api_key")
    assert "evil" not in note


async def test_the_key_in_server_form(world: World) -> None:
    execution = await job_for(world)
    env = (await jobs(world).job(execution)).spec.env
    assert env["PREFECT_API_AUTH_STRING"] == IDENTITY.run_key(execution.id)
    assert not {"PREFECT_API_KEY", "PREFECT_CLOUD_API_URL"} & set(env)


async def test_the_key_in_cloud_form(world: World) -> None:
    account, workspace = ids.new_id(), ids.new_id()
    await world.db.write(
        lambda tx: create(tx, account_id=account, account="a", workspace_id=workspace, handle="w", plan="pro")
    )
    execution = await job_for(world)
    await world.db.write(
        lambda tx: tx.execute("UPDATE flow_runs SET workspace_id = ? WHERE id = ?", (workspace, execution.flow_run_id))
    )
    env = (await jobs(world).job(execution)).spec.env
    assert env["PREFECT_API_KEY"] == IDENTITY.run_key(execution.id)
    assert env["PREFECT_CLOUD_API_URL"] == URL
    assert env["PREFECT_API_URL"] == f"{URL}/accounts/{account}/workspaces/{workspace}"
    assert "PREFECT_API_AUTH_STRING" not in env


async def test_the_key_is_the_same_after_a_restart_and_another_for_each_execution() -> None:
    again = Identity(instance_id="here", secret=b"s" * 32)
    assert IDENTITY.run_key("one") == again.run_key("one") != IDENTITY.run_key("two")
    assert IDENTITY.run_key("one").startswith(RUN_PREFIX)
    assert Identity(instance_id="here", secret=b"t" * 32).run_key("one") != IDENTITY.run_key("one")


async def test_no_secret_is_in_what_gets_printed(world: World) -> None:
    execution = await job_for(
        world, run={"env": {"TOKEN": "hush-token"}, "pip_packages": ["git+https://user:hush-url@example.org/x"]}
    )
    job = await jobs(world).job(execution)
    assert job.spec.env["TOKEN"] == "hush-token" and "hush-url" in job.spec.packages[0]
    printed = f"{job!r} {job.spec!r} {IDENTITY!r} {job.notes}"
    for secret in ("hush", IDENTITY.run_key(execution.id), "ssss"):
        assert secret not in printed


async def test_variables_are_filled_in(world: World) -> None:
    await world.write(lambda tx: rows.insert(tx, VARIABLE, {"name": "where", "value": "here"}))
    execution = await job_for(world, run={"env": {"PLACE": "{{ prefect.variables.where }}"}})
    assert (await jobs(world).job(execution)).spec.env["PLACE"] == "here"


@pytest.mark.parametrize(
    ("run", "word"),
    [
        ({"env": {"A": "{{ prefect.blocks.secret.nothing }}"}}, "nothing"),
        ({"memory_limit": "much"}, "memory"),
        ({"image": "NOT AN IMAGE"}, "image"),
    ],
)
async def test_what_cannot_be_used_is_told(world: World, run: dict[str, Any], word: str) -> None:
    execution = await job_for(world, run=run)
    with pytest.raises(ManagedError, match=word) as error:
        await jobs(world).job(execution)
    assert error.value.code in {ErrorCode.INVALID, ErrorCode.NOT_FOUND}


@pytest.mark.parametrize("gone", ["run", "pool"])
async def test_what_is_gone_is_told(world: World, gone: str) -> None:
    execution = await job_for(world)
    if gone == "run":
        await world.write(lambda tx: flow_runs.delete(tx, execution.flow_run_id))
    else:
        await world.write(lambda tx: rows.delete(tx, WORK_POOL, world.pool_id))
    with pytest.raises(ManagedError, match="deleted"):
        await jobs(world).job(execution)


async def test_a_deployment_that_is_gone_leaves_the_runs_own_variables(world: World) -> None:
    execution = await job_for(world, deployment={"image": "theirs:1"}, run={"env": {"A": "run"}})
    deployment = await world.read(lambda tx: rows.need(tx, FLOW_RUN, id=execution.flow_run_id)["deployment_id"])
    await world.write(lambda tx: rows.delete(tx, DEPLOYMENT, deployment))
    spec = (await jobs(world).job(execution)).spec
    assert spec.env["A"] == "run" and spec.image != "theirs:1"


async def test_without_an_address_nothing_is_started_yet(world: World) -> None:
    async def nowhere() -> str:
        raise unavailable("the runs' listener has no address yet")

    execution = await job_for(world)
    with pytest.raises(ManagedError) as error:
        await Jobs(world.db, Settings(), IDENTITY, nowhere).job(execution)
    assert error.value.code is ErrorCode.UNAVAILABLE


async def test_a_run_gets_what_was_reserved_for_it_whatever_was_changed_since(world: World) -> None:
    """Between claim and start somebody patches the deployment: the host must not hold more than it has promised, nor the row say other
    limits than the container has."""
    await job_for(world)
    deployed = await world.deployment("e", job_variables={"memory_limit": "512Mi", "cpu_limit": 2, "timeout": 50})
    run_id = await world.run(deployment_id=deployed)
    maker = jobs(world)

    def claim(tx: Tx) -> Execution:
        propose(tx, run_id, ProposedState(type=StateType.PENDING))
        return executions.insert(
            tx, flow_run_id=run_id, work_pool_id=world.pool_id, driver="fake", needs=maker.needs(tx, run_id)
        )

    execution = await world.write(claim)
    larger = {"job_variables": {"memory_limit": "2Gi", "cpu_limit": 4, "timeout": 90}}
    await world.write(lambda tx: rows.patch(tx, DEPLOYMENT, deployed, larger))
    job = await maker.job(execution)
    assert (job.spec.memory_bytes, job.spec.cpus, job.spec.time_limit_seconds) == (512 * 1024**2, 2, 90)
    assert job.notes == (
        "The run has what was reserved for it before its job variables changed: 512.0 MiB of memory, and not 2.0 GiB; 2 processors, and not 4",
    )
    (noted,) = await world.executions(run_id)
    assert (noted.memory_limit_bytes, noted.cpu_limit, noted.time_limit_seconds) == (512 * 1024**2, 2, 90)
    # Another daemon, with other defaults, that finds the run claimed and not started yet.
    await world.write(lambda tx: rows.patch(tx, DEPLOYMENT, deployed, {"job_variables": {}}))
    again = (await jobs(world, memory_limit_bytes=3 * 1024**3).job(noted)).spec
    assert (again.memory_bytes, again.cpus, again.time_limit_seconds) == (512 * 1024**2, 2, 90)


@pytest.mark.parametrize(("name", "value"), [("image", "mine:1"), ("memory_limit", "2Gi"), ("timeout", 3600)])
async def test_what_the_plan_does_not_allow_is_told_when_it_runs(world: World, name: str, value: str) -> None:
    """Deployed before the plan was changed."""
    await world.on_plan(images=("prefecthq/prefect:*",), memory_limit_bytes=1024**3, time_limit_seconds=3599)
    with pytest.raises(ManagedError, match=f"job_variables.{name}"):
        await jobs(world).job(await job_for(world, run={name: value}))


async def test_the_plan_bounds_what_nobody_chose(world: World) -> None:
    await world.on_plan(images=("prefecthq/prefect:*",), memory_limit_bytes=1024**3, time_limit_seconds=100)
    execution = await job_for(world)
    made = jobs(world, image="ours:1")
    spec = (await made.job(execution)).spec
    assert (spec.image, spec.memory_bytes, spec.time_limit_seconds) == ("ours:1", 1024**3, 100)
    assert await world.read(lambda tx: made.needs(tx, execution.flow_run_id)) == Needs(memory_bytes=1024**3, cpus=1.0)
