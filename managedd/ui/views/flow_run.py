"""Runs: one flow run, one task run, and the form of what a paused run waits for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from anyio import to_thread

from managedd.errors import ErrorCode, ManagedError
from managedd.ui import artifacts, charts, phases, tasks
from managedd.ui.forms import fields_of
from managedd.ui.page import Sent, page
from managedd.ui.views.deployment import described
from managedd.ui.views.runs import names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from managedd.ui.asking import Ask

MAX_TASK_RUNS: Final = 200
MAX_BELOW: Final = 50
MAX_ARTIFACTS: Final = 30
MAX_LINES: Final = 200
"""Of a task run's log."""
MAX_STATES: Final = 200
"""The last ones are shown."""
MAX_JSON_CHARS: Final = 65_536
TERMINAL: Final = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})
CANCELLABLE: Final = frozenset({"SCHEDULED", "PENDING", "RUNNING", "PAUSED"})


@page("/runs/flow-run/{id}", template="flow_run.html", section="runs", every_seconds=20.0)
async def flow_run(ask: Ask, id: str) -> dict[str, Any]:
    """All that is known of one run."""
    run = await ask.get(f"/flow_runs/{id}")
    states = await _states(ask, "/flow_run_states/", run, flow_run_id=run["id"])
    tried = await ask.get(f"/managed/flow_runs/{run['id']}/executions")
    of_run = {"flow_runs": {"id": {"any_": [run["id"]]}}}
    task_runs = await _as_many(ask, "/task_runs/filter", {**of_run, "sort": "EXPECTED_START_TIME_ASC"}, MAX_TASK_RUNS)
    task_runs.sort(key=lambda each: (each["start_time"] or "9", each["name"]))
    below = {"flow_runs": {"parent_flow_run_id": {"any_": [run["id"]]}}}
    return {
        "title": f"{run['name']} ({run['state_name'] or 'no state'})",
        "run": run,
        "flow_names": await names(ask, "flows", (), (run["flow_id"],)),
        "deployment_names": await names(ask, "deployments", (), (run["deployment_id"],)),
        "states": states[-MAX_STATES:],
        "earlier_states": max(0, len(states) - MAX_STATES),
        "tried": tried,
        "attempts": phases.attempts(tried, states),
        "meanings": phases.MEANINGS,
        "used": [_charted(each) for each in await ask.get(f"/managed/flow_runs/{run['id']}/resources")],
        "task_runs": list(zip(task_runs, charts.timeline(task_runs), strict=True)),
        "task_run_count": await ask.post("/task_runs/count", of_run),
        "artifacts": await _published(ask, {"flow_run_id": {"any_": [run["id"]]}}),
        "parent": await _parent(ask, run),
        **await _below(ask, below),
        "parameters": _json(run["parameters"]),
        "job_variables": _json(run["job_variables"]) if run["job_variables"] else "",
        "is_over": run["state_type"] in TERMINAL,
        "can": _offers(ask, run),
    }


async def _states(ask: Ask, path: str, run: Mapping[str, Any], **query: str) -> list[dict[str, Any]]:
    """Every state of a run, in order; the one it is in alone where they are more than an answer has room for."""
    try:
        found: list[dict[str, Any]] = await ask.get(path, **query)
    except ManagedError as error:
        if error.code is not ErrorCode.TOO_LARGE:
            raise
        return [run["state"]] if run["state"] else []
    return sorted(found, key=lambda each: str(each["timestamp"]))


async def _as_many(ask: Ask, path: str, body: Mapping[str, Any], limit: int) -> list[dict[str, Any]]:
    """So many rows, or as many as one answer has room for: what a run has filled with megabytes hides no other part of its page."""
    while True:
        try:
            found: list[dict[str, Any]] = await ask.post(path, {**body, "limit": limit})
        except ManagedError as error:
            if error.code is not ErrorCode.TOO_LARGE or limit == 1:
                raise
            limit = max(1, limit // 6)
        else:
            return found


async def _published(ask: Ask, chosen: Mapping[str, Any]) -> list[artifacts.Shown]:
    """What is shown of these artifacts, the last ones: of all but results, so much as a page has room for."""
    asked = {"artifacts": chosen, "limit": MAX_ARTIFACTS, "most_chars": artifacts.MAX_CHARS}
    made = await ask.post("/managed/artifacts/filter", asked)
    wanted = [each for each in made if each["type"] != "result"]
    if not wanted:
        return []
    return await to_thread.run_sync(artifacts.all_shown, wanted, limiter=ask.services.threads)


def _offers(ask: Ask, run: Mapping[str, Any]) -> dict[str, bool]:
    """What the person who looks may do with the run as it is."""
    state = run["state_type"]
    sets = ask.may("POST /flow_runs/{id}/set_state")
    return {
        "cancel": sets and state in CANCELLABLE,
        "retry": sets and state in TERMINAL and run["deployment_id"] is not None,
        "resume": ask.may("POST /flow_runs/{id}/resume") and state == "PAUSED" and not _keyset(run),
        "answer": ask.may("POST /flow_runs/{id}/resume") and state == "PAUSED" and bool(_keyset(run)),
        "delete": ask.may("DELETE /flow_runs/{id}"),
    }


def _keyset(run: Mapping[str, Any]) -> dict[str, Any]:
    """Under which keys the run has said what it waits for."""
    found = ((run["state"] or {}).get("state_details") or {}).get("run_input_keyset")
    return found if isinstance(found, dict) else {}


async def _parent(ask: Ask, run: Mapping[str, Any]) -> dict[str, Any] | None:
    """The run that has started this one."""
    if run["parent_task_run_id"] is None:
        return None
    try:
        task_run = await ask.get(f"/task_runs/{run['parent_task_run_id']}")
        found: dict[str, Any] | None = (
            await ask.get(f"/flow_runs/{task_run['flow_run_id']}") if task_run["flow_run_id"] else None
        )
    except ManagedError as error:
        if error.code is not ErrorCode.NOT_FOUND:
            raise
        return None
    return found


async def _below(ask: Ask, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The runs that these have started, the last first, and how many there are."""
    found = await ask.post("/flow_runs/filter", {**chosen, "limit": MAX_BELOW, "sort": "START_TIME_DESC"})
    return {"children": found, "child_count": await ask.post("/flow_runs/count", chosen)}


def _charted(used: Mapping[str, Any]) -> dict[str, Any]:
    read = used["samples"]
    span = charts.seconds_between(read[0]["at"], read[-1]["at"]) if read else 0.0
    memory, processors = charts.memory(used), charts.processors(used)
    return {**used, "memory": memory, "processors": processors, "span_seconds": span}


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, indent=2)
    return text if len(text) <= MAX_JSON_CHARS else text[:MAX_JSON_CHARS] + "\n…"


@page("/runs/flow-run/{id}/resume", template="resume.html", section="runs", topics=())
async def resume(ask: Ask, id: str) -> dict[str, Any]:
    """The form of what the run waits for; one that waits for nothing is shown itself."""
    run = await ask.get(f"/flow_runs/{id}")
    keyset = _keyset(run)
    if run["state_type"] != "PAUSED" or not keyset:
        raise Sent(f"runs/flow-run/{run['id']}")
    schema = await _input(ask, run["id"], keyset.get("schema"))
    description = await _input(ask, run["id"], keyset.get("description"))
    return {
        "title": f"Resume {run['name']}",
        "run": run,
        "fields": fields_of(schema, at="/run_input"),
        "description": await described(ask, description if isinstance(description, str) else None),
        "may": ask.may("POST /flow_runs/{id}/resume"),
    }


async def _input(ask: Ask, run_id: str, key: Any) -> Any:
    """What the run has stored under that key; None: nothing, or nothing that can be read."""
    if not isinstance(key, str):
        return None
    found = await ask.post(f"/flow_runs/{run_id}/input/filter", {"prefix": key, "limit": 20})
    value = next((each["value"] for each in found if each["key"] == key), None)
    if value is None:
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


@page("/runs/task-run/{id}", template="task_run.html", section="runs")
async def task_run(ask: Ask, id: str) -> dict[str, Any]:
    """One task run: its states, its log, what it was given, and what it belongs to."""
    found = await ask.get(f"/task_runs/{id}")
    states = await _states(ask, "/task_run_states/", found, task_run_id=found["id"])
    run = await ask.get(f"/flow_runs/{found['flow_run_id']}") if found["flow_run_id"] else None
    below = {"flow_runs": {"parent_task_run_id": {"any_": [found["id"]]}}}
    inputs = tasks.inputs(found["task_inputs"])
    written = {"logs": {"task_run_id": {"any_": [found["id"]]}}, "sort": "TIMESTAMP_DESC"}
    lines = await _as_many(ask, "/logs/filter", written, MAX_LINES)
    return {
        "title": f"{found['name']} ({found['state_name'] or 'no state'})",
        "task": found,
        "states": states[-MAX_STATES:],
        "earlier_states": max(0, len(states) - MAX_STATES),
        "run": run,
        "inputs": inputs,
        "task_names": await names(ask, "task_runs", (), tasks.callers(inputs)),
        "lines": [tasks.log_line(each) for each in reversed(lines)],
        "most_lines": MAX_LINES,
        **await _below(ask, below),
        "artifacts": await _published(ask, {"task_run_id": {"any_": [found["id"]]}}),
        "took": charts.seconds_between(found["start_time"], found["end_time"])
        if found["start_time"] and found["end_time"]
        else None,
    }
