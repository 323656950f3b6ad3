"""What flows do beyond computing, with the unmodified client inside real containers: seen through the API as users see it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.http import HttpError

if TYPE_CHECKING:
    from tests.contract.place import Place

pytestmark = [pytest.mark.docker, pytest.mark.client, pytest.mark.slow, pytest.mark.timeout(300)]

NAMES = ("everything", "callee", "retried", "raises", "too_slow", "asks", "suspends", "gated")
PREPARE = """
from prefect.blocks.system import Secret
from prefect.variables import Variable

Secret(value="a secret of the features").save("features-secret")
Variable.set("features_greeting", "good morning")
print(Secret.load("features-secret").get())
"""
RESUME = """
import sys, json
from prefect.flow_runs import resume_flow_run
resume_flow_run(sys.argv[1], run_input=json.loads(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def runs(place: Place) -> dict[str, str]:
    """The ids of runs of the flows, all submitted at once: they wait for nobody but this machine's processors."""
    user = place.user
    said = user.python(PREPARE)
    assert "a secret of the features" in said.out
    user.all(
        ("gcl", "create", "features-gate", "--limit", "1"),
        ("gcl", "create", "features-single", "--limit", "1"),
        ("gcl", "create", "features-rate", "--limit", "5", "--slot-decay-per-second", "1"),
    )
    deployments = dict(
        zip(NAMES, place.deployments(*({"entrypoint": f"features.py:{name}"} for name in NAMES)), strict=True)
    )
    submitted = {name: place.submit(deployments[name]) for name in NAMES if name not in {"callee", "gated"}}
    for number in range(2):
        submitted[f"gated {number}"] = place.submit(deployments["gated"], {"number": number})
    return submitted


def _task_runs(place: Place, flow_run_id: str) -> dict[str, list[dict[str, Any]]]:
    by_key: dict[str, list[dict[str, Any]]] = {}
    for one in place.api.post("/task_runs/filter", {"flow_runs": {"id": {"any_": [flow_run_id]}}}):
        by_key.setdefault(one["task_key"].rpartition("-")[0], []).append(one)
    return by_key


def test_everything_at_once(place: Place, runs: dict[str, str]) -> None:
    api = place.api
    run = api.wait(runs["everything"], types={"COMPLETED"}, seconds=200)
    text = api.text(run["id"])
    assert "printed: hi" in text
    assert "secret has 24 characters" in text
    assert "a secret of the features" not in text
    assert "in the gate" in text

    task_runs = _task_runs(place, run["id"])
    assert [one["state_name"] for one in task_runs["add"]] == ["Completed"] * 3
    [unsteady] = task_runs["unsteady"]
    assert (unsteady["state_name"], unsteady["run_count"]) == ("Completed", 2)
    names = [one["name"] for one in api.get(f"/task_run_states/?task_run_id={unsteady['id']}")]
    assert names[0] == "Pending"
    assert {"Running", "AwaitingRetry", "Retrying"} <= set(names)
    assert names[-1] == "Completed"
    assert "not yet" in text
    [heavy] = task_runs["heavy"]
    assert heavy["tags"] == ["heavy"]

    children = {
        api.get(f"/flows/{one['flow_id']}")["name"]: one
        for one in api.post("/flow_runs/filter", {"flow_runs": {"parent_flow_run_id": {"any_": [run["id"]]}}})
    }
    assert {name: one["state_name"] for name, one in children.items()} == {
        "child": "Completed", "broken-child": "Failed", "callee": "Completed",
    }  # fmt: skip
    for one in children.values():
        parent = api.get(f"/task_runs/{one['parent_task_run_id']}")
        assert parent["flow_run_id"] == run["id"]
        assert parent["state_name"] == one["state_name"]
        assert parent["state"]["state_details"]["child_flow_run_id"] == one["id"]
    assert "child has 41" in api.text(children["child"]["id"])
    assert "the child is broken" in api.text(children["broken-child"]["id"])
    assert "callee got called" in api.text(children["callee"]["id"])
    assert len(place.daemon.executions(children["callee"]["id"])) == 1
    assert place.daemon.executions(children["child"]["id"]) == []


def test_everything_left_its_traces(place: Place, runs: dict[str, str]) -> None:
    api = place.api
    run_id = api.wait(runs["everything"], types={"COMPLETED"}, seconds=200)["id"]
    artifacts = api.post(
        "/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run_id]}, "type": {"not_any_": ["result"]}}}
    )
    by_key = {one["key"]: one for one in artifacts}
    assert {key: one["type"] for key, one in by_key.items()} == {
        "report": "markdown", "numbers": "table", "a-link": "markdown", "progress": "progress",
    }  # fmt: skip
    assert by_key["report"]["data"] == "# Report"
    assert json.loads(by_key["numbers"]["data"]) == [{"a": 1, "b": 2}]
    assert by_key["progress"]["data"] == 100.0
    assert api.get("/artifacts/report/latest")["id"] == by_key["report"]["id"]

    assert api.get("/variables/name/features_answer")["value"] == {"was": "good morning"}
    masked = api.get("/block_types/slug/secret/block_documents/name/features-made")
    assert masked["data"]["value"] == "********"
    clear = api.get("/block_types/slug/secret/block_documents/name/features-made?include_secrets=true")
    assert clear["data"]["value"] == "made in the flow"

    assert api.get("/v2/concurrency_limits/features-gate")["active_slots"] == 0
    deadline = time.monotonic() + 10
    while True:
        [*found] = api.post("/events/filter", {"filter": {"event": {"name": ["features.happened"]}}})["events"]
        if found or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    assert [one["payload"] for one in found] == [{"total": 6}]
    related = {one["prefect.resource.id"] for one in found[0]["related"]}
    assert f"prefect.flow-run.{run_id}" in related
    states = api.post(
        "/events/filter",
        {
            "filter": {
                "any_resource": {"id": [f"prefect.flow-run.{run_id}"]},
                "event": {"prefix": ["prefect.flow-run."]},
            },
            "limit": 50,
        },
    )
    names = [
        one["event"].removeprefix("prefect.flow-run.")
        for one in states["events"]
        if one["resource"]["prefect.resource.id"].endswith(run_id)
    ]
    assert {"Scheduled", "Pending", "Running", "Completed"} <= set(names)


def test_flow_retry_happens_in_the_same_container(place: Place, runs: dict[str, str]) -> None:
    run = place.api.wait(runs["retried"], types={"COMPLETED"}, seconds=200)
    assert run["run_count"] == 2
    assert place.api.states(run["id"]) == ["Scheduled", "Pending", "Running", "AwaitingRetry", "Running", "Completed"]
    text = place.api.text(run["id"])
    assert "attempt 1" in text
    assert "attempt 2" in text
    assert len(place.daemon.executions(run["id"])) == 1


def test_exception_is_failed_with_its_traceback_and_exit_code_0(place: Place, runs: dict[str, str]) -> None:
    run = place.api.wait(runs["raises"], types={"FAILED"}, seconds=200)
    assert "outer trouble" in run["state"]["message"]
    text = place.api.text(run["id"])
    assert "KeyError: 'missing'" in text
    assert "The above exception was the direct cause" in text
    assert "RuntimeError: outer trouble" in text
    [execution] = place.daemon.ended(run["id"])
    assert (execution["exit_code"], execution["end_cause"]) == (0, "completed")


def test_timeout_of_the_flow_itself(place: Place, runs: dict[str, str]) -> None:
    run = place.api.wait(runs["too_slow"], types={"FAILED"}, seconds=200)
    assert run["state_name"] == "TimedOut"


def test_pause_waits_for_input(place: Place, runs: dict[str, str]) -> None:
    api = place.api
    run_id = runs["asks"]
    paused = api.wait(run_id, types={"PAUSED"}, seconds=200)
    assert paused["state_name"] == "Paused"
    assert len(place.daemon.containers(flow_run_id=run_id, all_=False)) == 1, "a paused run keeps its container"
    with pytest.raises(AssertionError) as refused:
        place.user.python(RESUME, run_id, json.dumps({"age": "many"}))
    assert "name" in str(refused.value)
    assert api.run(run_id)["state_type"] == "PAUSED"
    place.user.python(RESUME, run_id, json.dumps({"name": "Ada"}))
    api.wait(run_id, types={"COMPLETED"})
    assert "Ada is 4" in api.text(run_id)
    assert len(place.daemon.executions(run_id)) == 1


def test_suspended_run_gives_up_its_container_and_goes_on_in_another(place: Place, runs: dict[str, str]) -> None:
    api = place.api
    run_id = runs["suspends"]
    suspended = api.wait(run_id, types={"PAUSED"}, seconds=200)
    assert suspended["state_name"] == "Suspended"
    place.daemon.wait_no_containers(flow_run_id=run_id, seconds=30)
    assert api.run(run_id)["state_name"] == "Suspended"
    place.user.python(RESUME, run_id, json.dumps({"name": "Grace"}))
    api.wait(run_id, types={"COMPLETED"})
    assert "after it: Grace" in api.text(run_id)
    executions = place.daemon.ended(run_id)
    assert [one["attempt"] for one in executions] == [1, 2]
    assert {one["end_cause"] for one in executions} == {"completed"}
    names = api.states(run_id)
    assert names[:5] == ["Scheduled", "Pending", "Running", "Suspended", "Resuming"]


def test_global_limit_lets_one_in_at_a_time(place: Place, runs: dict[str, str]) -> None:
    spans = []
    for number in range(2):
        run = place.api.wait(runs[f"gated {number}"], types={"COMPLETED"}, seconds=200)
        words = dict(
            line["message"].split()
            for line in place.api.logs(run["id"])
            if line["message"].startswith(("entered", "left"))
        )
        spans.append((float(words["entered"]), float(words["left"])))
    first, second = sorted(spans)
    assert first[1] <= second[0]
    assert place.api.get("/v2/concurrency_limits/features-single")["active_slots"] == 0


def test_answers_for_what_is_not_there(place: Place) -> None:
    with pytest.raises(HttpError) as missing:
        place.api.get("/variables/name/features_missing")
    assert missing.value.status == 404
