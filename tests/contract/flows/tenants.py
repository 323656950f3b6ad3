"""What two users of one daemon run at the same time, each in a workspace of their own, with a key that is their run's alone."""

from __future__ import annotations

import json
import os
import time

import httpx
from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.context import get_run_context
from prefect.deployments import run_deployment
from prefect.events import emit_event
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.variables import Variable

STATE = {"state": {"type": "CANCELLED"}, "force": True}


class Answer(RunInput):
    number: int


@flow
def inside(word: str) -> str:
    """A flow in a flow."""
    get_run_logger().info("inside %s", word)
    return word


@flow
def below(word: str) -> None:
    """What another flow's run starts."""
    get_run_logger().info("below %s", word)


@flow(log_prints=True)
def slow() -> None:
    """Goes on until somebody cancels it."""
    print("ticking")
    time.sleep(300)


@flow(log_prints=True)
def asks() -> None:
    """Waits for an answer, out of its container."""
    answer = suspend_flow_run(wait_for_input=Answer, timeout=300)
    print("answered", answer.number)


@flow(log_prints=True)
def mine(word: str) -> None:
    """Uses what every flow may use."""
    import humanize

    print("word:", word, "humanized:", humanize.intcomma(1234567))
    print(
        "mode:",
        "cloud" if os.environ.get("PREFECT_API_KEY") and "/workspaces/" in os.environ["PREFECT_API_URL"] else "server",
    )
    Variable.set("shared", word, overwrite=True)
    Secret(value=word).save("shared", overwrite=True)
    assert Secret.load("shared").get() == word
    create_markdown_artifact(word, key="shared")
    emit_event("tenants.said", resource={"prefect.resource.id": f"tenants.{word}"}, payload={"word": word})
    with concurrency("shared", occupy=1, timeout_seconds=30):
        assert inside(word) == word
    begun = run_deployment("below/below", parameters={"word": word}, timeout=120, poll_interval=1)
    assert begun.state.is_completed(), begun.state
    with get_client(sync_client=True) as client:
        own = get_run_context().flow_run
        client.update_flow_run(own.id, tags=["renamed"])
        assert client.read_flow_run(own.id).tags == ["renamed"]


@flow(log_prints=True)
def curious(run_id: str, deployment_id: str, elsewhere: str, elsewhere_run_id: str) -> None:
    """Tries what no flow's key opens, and prints what it is told."""
    with get_client(sync_client=True) as client:
        asked = {
            "another's state": ("POST", f"/flow_runs/{run_id}/set_state", STATE),
            "another's name": ("PATCH", f"/flow_runs/{run_id}", {"name": "mine"}),
            "a deployment's end": ("DELETE", f"/deployments/{deployment_id}", None),
            "a pool": ("POST", "/work_pools/", {"name": "made", "type": "process", "base_job_template": {}}),
            "a key": ("POST", "/managed/keys", {"name": "made", "role": "admin"}),
            "the keys": ("GET", "/managed/keys", None),
            "a run elsewhere": ("GET", f"/flow_runs/{elsewhere_run_id}", None),
            "its state": ("POST", f"/flow_runs/{elsewhere_run_id}/set_state", STATE),
        }
        told = {
            what: client._client.build_request(method, path, json=body) for what, (method, path, body) in asked.items()
        }
        headers = dict(client._client.headers)
        # The daemon's address as runs have it, and the way of the other workspace.
        elsewhere = os.environ["PREFECT_CLOUD_API_URL"] + elsewhere
        with httpx.Client(headers=headers) as plain:
            answers = {what: plain.send(request).status_code for what, request in told.items()}
            answers["the workspace elsewhere"] = plain.post(f"{elsewhere}/flow_runs/filter", json={}).status_code
            answers["a variable elsewhere"] = plain.get(f"{elsewhere}/variables/name/shared").status_code
    print("ANSWERS", json.dumps(answers))
