"""Runs to look at, made as clients make them: by the API, and with executions as the engine leaves them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from managedd import ids
from managedd.model.executions import EndCause, Phase
from managedd.store import executions, samples
from managedd.store.resources import FLOW_RUN
from managedd.store.rows import get
from tests.api.deployed import deploy, pool_of, run_it

if TYPE_CHECKING:
    from managedd.store.database import Tx
    from tests.ui.conftest import Pages

MIB = 1024 * 1024


@dataclass(frozen=True)
class Told:
    """A run that has much to tell."""

    run: dict[str, Any]
    task_run: str
    child: dict[str, Any]


async def deployment(site: Pages, name: str = "nightly", **more: Any) -> dict[str, Any]:
    """A deployment in a managed pool."""
    if (await site.api.get("/work_pools/mine"))[0] == 404:
        await pool_of(site.api, "mine", "process")
    return await deploy(site.api, name, work_pool_name="mine", parameters={"n": 1}, **more)


async def to(site: Pages, run: dict[str, Any], type_: str, message: str | None = None, **more: Any) -> None:
    """The run is in a state of that type, as a client sets it."""
    state = {"type": type_, "message": message, **more}
    code, answer = await site.api.post(f"/flow_runs/{run['id']}/set_state", {"state": state, "force": True})
    assert code in {200, 201}, answer
    assert answer["status"] == "ACCEPT", answer


async def telling(site: Pages, *, text: str = "orders of <today>", artifacts: list[dict[str, Any]]) -> Told:
    """A run that has failed in its second attempt, with everything that a page can show; `text` stands wherever a text can."""
    made = await deployment(site)
    run = await run_it(site.api, made, name=text, tags=[text, "daily"], parameters={"n": 2, "who": text})
    await to(site, run, "PENDING")
    await to(site, run, "RUNNING")
    task = await _task(site, run["id"], text, -90, "COMPLETED", text)
    await _task(site, run["id"], "load", -60, "FAILED", text)
    await _task(site, run["id"], "report", None, "PENDING", None)
    child = (
        await site.api.post(
            "/flow_runs/", {"flow_id": run["flow_id"], "name": f"below {text}", "parent_task_run_id": task}
        )
    )[1]
    for each in artifacts:
        code, answer = await site.api.post("/artifacts/", {**each, "flow_run_id": run["id"]})
        assert code == 201, answer
    await to(site, run, "FAILED", text)
    await site.services.db.write(lambda tx: _attempts(tx, run["id"], text), workspace=ids.DEFAULT_WORKSPACE_ID)
    return Told(run=run, task_run=task, child=child)


async def _task(site: Pages, run: str, name: str, began: int | None, type_: str, message: str | None) -> str:
    """A task run; one that `began` so many seconds from now, 25 seconds long."""
    body = {"flow_run_id": run, "name": name, "task_key": name, "dynamic_key": name, "tags": [name]}
    code, task = await site.api.post("/task_runs/", body)
    assert code == 201, task
    if began is not None:
        for state in ({"type": "RUNNING"}, {"type": type_, "message": message}):
            code, answer = await site.api.post(f"/task_runs/{task['id']}/set_state", {"state": state, "force": True})
            assert (code, answer["status"]) == (201, "ACCEPT"), answer
        await site.services.db.write(
            lambda tx: (
                tx.execute(
                    "UPDATE task_runs SET start_time = ?, end_time = ? WHERE id = ?",
                    (tx.now + began * 1_000_000, tx.now + (began + 25) * 1_000_000, task["id"]),
                )
                and None
            )
        )
    return str(task["id"])


def _attempts(tx: Tx, run_id: str, text: str) -> None:
    """Two attempts in the last ten minutes: the first one was over its memory."""
    second = 1_000_000
    assert get(tx, FLOW_RUN, run_id)
    for attempt, begin in enumerate((tx.now - 600 * second, tx.now - 200 * second), 1):
        made = executions.insert(tx, flow_run_id=run_id, work_pool_id=None, driver="docker")
        moments = {
            "claimed_at": begin, "pulled_at": begin + 3 * second, "created_at": begin + 3 * second, "started_at": begin + 4 * second,
            "installed_at": begin + 14 * second, "image": f"prefecthq/prefect:3-{text}", "memory_limit_bytes": 512 * MIB, "cpu_limit": 1.0,
        }  # fmt: skip
        executions.note(tx, made.id, moments)
        read = [
            (begin + each * 5 * second, (100 + each * 20) * MIB, round(each * 3.4 * second)) for each in range(2, 20)
        ]
        samples.add(tx, {made.id: read})
        ended = {
            "exited_at": begin + 100 * second, "exit_code": 137 if attempt == 1 else 1, "peak_memory_bytes": 512 * MIB,
            "end_cause": EndCause.MEMORY if attempt == 1 else None, "end_message": text,
        }  # fmt: skip
        executions.advance(tx, made.id, (Phase.CLAIMED,), Phase.EXITED, ended)
        executions.advance(tx, made.id, (Phase.EXITED,), Phase.FINALIZED)
