"""Secrets of a real run, by every way that leads into one: it gets them, and they stand nowhere else."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from managedd.model.keys import RUN_PREFIX
from managedd.model.secrets import MASK
from managedd.orchestration.pool_types import default_template

if TYPE_CHECKING:
    from tests.contract.place import Place

pytestmark = [pytest.mark.docker, pytest.mark.client, pytest.mark.slow, pytest.mark.timeout(300)]

HUSH = "hush-at-rest-"
BLOCK = "at-rest"
PREPARE = """
import sys
from prefect.blocks.system import Secret

for text in ("first", "second"):
    Secret(value=sys.argv[2] + text).save(sys.argv[1], overwrite=True)
print("LOADED", Secret.load(sys.argv[1]).get() == sys.argv[2] + "second")
"""
WORKER = """
import asyncio, hashlib, sys
from prefect.workers.process import ProcessWorker

async def main():
    async with ProcessWorker(work_pool_name=sys.argv[1]) as worker:
        await worker.sync_with_backend()
        offered = await worker._get_scheduled_flow_runs()
        job = await worker.job_configuration.resolve_for_flow_run(
            offered[0].flow_run, client=worker.client, work_pool=worker.work_pool, worker_name=worker.name
        )
        for name in sys.argv[2:]:
            print("GIVEN", name, hashlib.sha256(job.env[name].encode()).hexdigest()[:16])

asyncio.run(main())
"""
"""What a worker does with a run before it starts it."""
SECRET = {"type": "string", "format": "password", "writeOnly": True}


def _short(text: str) -> str:
    return hashlib.sha256(f"{HUSH}{text}".encode()).hexdigest()[:16]


def _with_it(folder: Path) -> list[str]:
    return [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and HUSH.encode() in path.read_bytes()
    ]


def _command_lines() -> bytes:
    lines = b""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines += path.read_bytes() + b"\n"
        except OSError:
            continue
    return lines


def test_a_run_has_its_secrets_and_nothing_else_has(place: Place) -> None:
    assert "LOADED True" in place.user.python(PREPARE, BLOCK, HUSH).out
    template = copy.deepcopy(default_template("prefect:managed"))
    assert template is not None
    env = template["variables"]["properties"]["env"]
    env["properties"] = {"FROM_VARIABLE": SECRET, "FROM_POOL": SECRET}
    env["default"] = {"FROM_POOL": f"{HUSH}pool"}
    place.api.post("/work_pools/", {"name": "secretive", "type": "prefect:managed", "base_job_template": template})
    given = {"FROM_VARIABLE": f"{HUSH}variable", "FROM_BLOCK": f"{{{{ prefect.blocks.secret.{BLOCK} }}}}"}
    deployment = place.deployment("secretive.py:secretive", pool="secretive", job_variables={"env": given})
    run_id = place.submit(deployment, {"block": BLOCK})
    place.api.wait(run_id, types={"RUNNING"})
    lines = _command_lines()
    assert HUSH.encode() not in lines
    # Nor what the run shows the API.
    assert RUN_PREFIX.encode() not in lines
    assert b"secretive.py" in lines or b"prefect" in lines
    assert place.api.wait(run_id)["state"]["type"] == "COMPLETED", place.api.text(run_id)
    wanted = {"FROM_BLOCK": "second", "FROM_POOL": "pool", "FROM_VARIABLE": "variable", "LOADED": "second"}
    said = " ".join(f"{name}={_short(text)}" for name, text in wanted.items())
    assert f"FOUND {said}" in place.api.text(run_id)

    shown = [
        place.api.get(path)
        for path in (f"/flow_runs/{run_id}", f"/deployments/{deployment}", "/work_pools/secretive",
                     f"/managed/flow_runs/{run_id}/executions", f"/block_types/slug/secret/block_documents/name/{BLOCK}")
    ]  # fmt: skip
    shown += [place.api.post(path, {}) for path in ("/events/filter", "/deployments/filter", "/block_documents/filter")]
    assert HUSH not in str(shown) and MASK in str(shown[1]) and MASK in str(shown[2])
    inspected = place.user.prefect("deployment", "inspect", "secretive/secretive").text
    assert HUSH not in inspected and MASK in inspected
    place.daemon.wait_no_containers(flow_run_id=run_id)
    assert _with_it(place.daemon.folder) == []
    place.daemon.restart()
    assert _with_it(place.daemon.folder) == []


def test_a_worker_of_the_users_own_renders_its_jobs_with_them(place: Place) -> None:
    template = copy.deepcopy(default_template("process"))
    assert template is not None
    env = template["variables"]["properties"]["env"]
    env["properties"] = dict.fromkeys(("POOL", "DEPLOYMENT", "RUN"), SECRET)
    env["default"] = {"POOL": f"{HUSH}pool", "RUN": f"{HUSH}covered"}
    place.api.post("/work_pools/", {"name": "theirs", "type": "process", "base_job_template": template})
    flow = place.api.post("/flows/", {"name": "theirs"})["id"]
    given = {
        "name": "d",
        "flow_id": flow,
        "work_pool_name": "theirs",
        "job_variables": {"env": {"DEPLOYMENT": f"{HUSH}d"}},
    }
    deployment = place.api.post("/deployments/", given)
    place.submit(deployment["id"], job_variables={"env": {"RUN": f"{HUSH}run"}})
    said = place.user.python(WORKER, "theirs", "POOL", "DEPLOYMENT", "RUN").out
    wanted = {"POOL": "pool", "DEPLOYMENT": "d", "RUN": "run"}
    assert [line for line in said.splitlines() if line.startswith("GIVEN")] == [
        f"GIVEN {name} {_short(text)}" for name, text in wanted.items()
    ]
    assert HUSH not in str(place.api.get(f"/deployments/{deployment['id']}"))
    assert _with_it(place.daemon.folder) == []
