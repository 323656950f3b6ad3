"""One workspace with something of everything in it, and by what each thing is named: for tests of who sees it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from managedd import ids
from managedd.model.executions import Phase
from managedd.orchestration.pool_types import default_template
from managedd.store import events, executions
from tests.api.deployed import CRON
from tests.api.test_automations import TRIGGER
from tests.api.test_blocks import block_type, document, schema

if TYPE_CHECKING:
    from managedd.store.database import Tx
    from tests.api.conftest import ApiClient

NOW = "2026-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class Things:
    """What a workspace has."""

    ids: dict[str, str]
    """Kind → UUID."""
    names: dict[str, str]
    """Kind → what people call it."""

    @property
    def words(self) -> list[str]:
        """Everything that names something, the longest first."""
        return sorted({*self.ids.values(), *self.names.values()}, key=len, reverse=True)

    def missing(self) -> Things:
        """What looks just like it and is nowhere."""
        renamed = {kind: _turned(name) for kind, name in self.names.items()}
        return Things(ids={kind: ids.new_id() for kind in self.ids}, names=renamed)


def _turned(name: str) -> str:
    """The name with other letters behind its kind: as long, and of the same form."""
    return re.sub(r"[a-f0-9](?=[a-f0-9]*$)", lambda found: "f" if found[0] != "f" else "0", name)


async def furnish(api: ApiClient, workspace: str, mark: str) -> Things:
    """The workspace has one of everything; its names end with `mark`, of hexadecimal digits."""
    made = _Furnisher(api, workspace, mark)
    await made.code()
    await made.runs()
    await made.records()
    await made.limits()
    return Things(ids=made.ids, names=made.names)


class _Furnisher:
    def __init__(self, api: ApiClient, workspace: str, mark: str) -> None:
        self._api = api
        self._workspace = workspace
        self.ids: dict[str, str] = {}
        kinds = (
            "flow", "deployment", "slug", "block_document", "work_pool", "work_queue", "worker", "variable", "artifact_key", "limit", "tag",
            "input_key", "flow_run", "task_run", "task_key", "automation", "idempotency_key", "event", "word", "schedule_slug",
        )  # fmt: skip
        self.names = {kind: f"{kind.replace('_', '-')}-{mark}" for kind in kinds}
        self.names["variable"] = f"variable_{mark}"

    async def _make(self, method: str, path: str, body: Any = None) -> Any:
        status, made = await self._api.call(method, path, body)
        assert status in {200, 201, 204}, (path, made)
        return made

    async def code(self) -> None:
        """Flow, pool, queue, worker, deployment, blocks, variable, automation."""
        names, made = self.names, self.ids
        made["flow"] = (await self._make("POST", "/flows/", {"name": names["flow"], "tags": [names["word"]]}))["id"]
        template = default_template("process") or {}
        pool = {"name": names["work_pool"], "type": "process", "base_job_template": template}
        made["work_pool"] = (await self._make("POST", "/work_pools/", pool))["id"]
        queues = f"/work_pools/{names['work_pool']}/queues"
        made["work_queue"] = (await self._make("POST", queues, {"name": names["work_queue"]}))["id"]
        await self._make("POST", f"/work_pools/{names['work_pool']}/workers/heartbeat", {"name": names["worker"]})
        kind = await block_type(self._api, names["slug"])
        shape = await schema(self._api, kind, title2=names["word"])
        kept = await document(self._api, shape, {"value": names["word"]}, names["block_document"])
        made |= {"block_type": kind["id"], "block_schema": shape["id"], "block_document": kept["id"]}
        names["checksum"] = shape["checksum"]
        deployment = {
            "name": names["deployment"], "flow_id": made["flow"], "work_pool_name": names["work_pool"], "work_queue_name": names["work_queue"],
            "schedules": [{"schedule": CRON, "slug": names["schedule_slug"]}], "concurrency_limit": 1, "job_variables": {"env": {"W": names["word"]}},
        }  # fmt: skip
        deployed = await self._make("POST", "/deployments/", deployment)
        made |= {"deployment": deployed["id"], "schedule": deployed["schedules"][0]["id"]}
        variable = {"name": names["variable"], "value": names["word"]}
        made["variable"] = (await self._make("POST", "/variables/", variable))["id"]
        acting = {"name": names["automation"], "trigger": TRIGGER, "actions": [self._run_it()]}
        made["automation"] = (await self._make("POST", "/automations/", acting))["id"]

    def _run_it(self) -> dict[str, Any]:
        return {"type": "run-deployment", "source": "selected", "deployment_id": self.ids["deployment"]}

    async def runs(self) -> None:
        """A run under way with a task run and a child, a paused one with an input, an execution."""
        names, made = self.names, self.ids
        run = {
            "flow_id": made["flow"], "name": names["flow_run"], "deployment_id": made["deployment"], "idempotency_key": names["idempotency_key"],
            "state": {"type": "RUNNING", "message": names["word"]}, "work_pool_name": names["work_pool"], "work_queue_name": names["work_queue"],
            "parameters": {"secret": names["word"]}, "tags": [names["tag"]],
        }  # fmt: skip
        begun = await self._make("POST", "/flow_runs/", run)
        made |= {"flow_run": begun["id"], "flow_run_state": begun["state_id"]}
        task = {
            "flow_run_id": begun["id"], "name": names["task_run"], "task_key": names["task_key"], "dynamic_key": "0",
            "state": {"type": "RUNNING", "message": names["word"], "data": {"word": names["word"]}},
        }  # fmt: skip
        tried = await self._make("POST", "/task_runs/", task)
        made |= {"task_run": tried["id"], "task_run_state": tried["state_id"]}
        child = {
            "flow_id": made["flow"],
            "name": f"child-{names['flow_run']}",
            "parent_task_run_id": tried["id"],
            "state": {"type": "RUNNING"},
        }
        made["child_run"] = (await self._make("POST", "/flow_runs/", child))["id"]
        paused = {"flow_id": made["flow"], "name": f"paused-{names['flow_run']}", "state": {"type": "PAUSED"}}
        made["paused_run"] = (await self._make("POST", "/flow_runs/", paused))["id"]
        given = {"key": names["input_key"], "value": f'"{names["word"]}"'}
        await self._make("POST", f"/flow_runs/{begun['id']}/input", given)

        def execution(tx: Tx) -> str:
            found = executions.insert(tx, flow_run_id=begun["id"], work_pool_id=made["work_pool"], driver="fake")
            executions.advance(tx, found.id, [Phase.CLAIMED], Phase.CREATED)
            return found.id

        made["execution"] = await self._api.services.db.write(execution, workspace=self._workspace)

    async def records(self) -> None:
        """Log lines, an artifact, events."""
        names, made = self.names, self.ids
        line = {"name": "n", "level": 20, "message": names["word"], "timestamp": NOW, "flow_run_id": made["flow_run"]}
        await self._make("POST", "/logs/", [line, {**line, "task_run_id": made["task_run"]}])
        artifact = {
            "key": names["artifact_key"],
            "data": names["word"],
            "flow_run_id": made["flow_run"],
            "task_run_id": made["task_run"],
        }
        made["artifact"] = (await self._make("POST", "/artifacts/", artifact))["id"]
        latest = await self._make(
            "POST", "/artifacts/latest/filter", {"artifacts": {"key": {"any_": [names["artifact_key"]]}}}
        )
        made["collection"] = latest[0]["id"]
        made["event"] = ids.new_id()
        await self._make(
            "POST",
            "/events",
            [told(made["event"], names["event"], f"prefect.flow-run.{made['flow_run']}", names["word"])],
        )
        await events.settle(self._api.services.db)

    async def limits(self) -> None:
        """A limit by name and one by tag, and a lease that holds both."""
        names, made = self.names, self.ids
        limit = {"name": names["limit"], "limit": 3}
        made["limit"] = (await self._make("POST", "/v2/concurrency_limits/", limit))["id"]
        tagged = {"tag": names["tag"], "concurrency_limit": 3}
        made["tag_limit"] = (await self._make("POST", "/concurrency_limits/", tagged))["id"]
        taking = {"slots": 1, "names": [names["limit"]], "holder": {"type": "task_run", "id": made["task_run"]}}
        made["lease"] = (await self._make("POST", "/v2/concurrency_limits/increment-with-lease", taking))["lease_id"]
        await self._make(
            "POST", "/concurrency_limits/increment", {"names": [names["tag"]], "task_run_id": made["task_run"]}
        )


def told(event_id: str, name: str, resource: str, word: str = "", **more: Any) -> dict[str, Any]:
    """An event of now about the resource."""
    from managedd.wire.base import utc_now

    return {
        "id": event_id, "occurred": utc_now().isoformat(), "event": name, "resource": {"prefect.resource.id": resource, "word": word},
        "related": [], "payload": {"word": word}, **more,
    }  # fmt: skip
