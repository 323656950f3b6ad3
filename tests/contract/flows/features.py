"""What flows do beyond computing: tasks, retries, subflows, artifacts, variables, blocks, other deployments, pauses, limits, events."""

from __future__ import annotations

import time

from prefect import flow, get_run_logger, task
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.blocks.system import Secret
from prefect.concurrency.sync import concurrency, rate_limit
from prefect.context import get_run_context
from prefect.deployments import run_deployment
from prefect.events import emit_event
from prefect.flow_runs import pause_flow_run, suspend_flow_run
from prefect.input import RunInput
from prefect.variables import Variable


@task
def add(a: int, b: int) -> int:
    return a + b


@task(retries=2, retry_delay_seconds=0.2)
def unsteady() -> int:
    count: int = get_run_context().task_run.run_count
    if count < 2:
        raise ValueError("not yet")
    return count


@task(tags=["heavy"])
def heavy() -> None:
    get_run_logger().info("heavy task")


@flow
def child(number: int) -> int:
    """A subflow in the same process."""
    get_run_logger().info("child has %s", number)
    return add(number, 1)


@flow
def broken_child() -> None:
    raise RuntimeError("the child is broken")


@flow(log_prints=True)
def everything(greeting: str = "hi") -> str:
    """Uses it all once."""
    print("printed:", greeting)
    total = sum(future.result() for future in [add.submit(number, 1) for number in range(3)])
    assert unsteady() == 2
    heavy()
    assert child(41) == 42
    broken = broken_child(return_state=True)
    assert broken.is_failed()

    create_markdown_artifact("# Report", key="report", description="a report")
    create_table_artifact([{"a": 1, "b": 2}], key="numbers")
    create_link_artifact("https://example.com", key="a-link")
    progress = create_progress_artifact(0.0, key="progress")
    update_progress_artifact(progress, 100.0)

    assert Variable.get("features_missing", default="none") == "none"
    before = Variable.get("features_greeting")
    Variable.set("features_answer", {"was": before}, overwrite=True)

    secret = Secret.load("features-secret").get()
    print("secret has", len(secret), "characters")
    Secret(value="made in the flow").save("features-made", overwrite=True)

    with concurrency("features-gate", occupy=1, timeout_seconds=30):
        print("in the gate")
    rate_limit("features-rate")
    emit_event("features.happened", resource={"prefect.resource.id": "features.thing"}, payload={"total": total})

    other = run_deployment("callee/callee", parameters={"word": "called"}, timeout=150, poll_interval=1)
    assert other.state.is_completed()
    return f"{total}"


@flow(log_prints=True)
def callee(word: str) -> None:
    print("callee got", word)


@flow(retries=1, retry_delay_seconds=2, log_prints=True)
def retried() -> None:
    count = get_run_context().flow_run.run_count
    print("attempt", count)
    if count < 2:
        raise ValueError("first attempt")


@flow
def raises() -> None:
    try:
        {}["missing"]
    except KeyError as error:
        raise RuntimeError("outer trouble") from error


@flow(timeout_seconds=1)
def too_slow() -> None:
    time.sleep(30)


class Answer(RunInput):
    name: str
    age: int = 3


@flow(log_prints=True)
def asks() -> None:
    answer = pause_flow_run(
        wait_for_input=Answer.with_initial_data(description="Who?", age=4), timeout=100, poll_interval=1
    )
    print(f"{answer.name} is {answer.age}")


@flow(log_prints=True)
def suspends() -> None:
    print("before the suspension")
    answer = suspend_flow_run(wait_for_input=Answer, timeout=200)
    print(f"after it: {answer.name}")


@flow(log_prints=True)
def gated(number: int) -> None:
    with concurrency("features-single", timeout_seconds=100):
        print("entered", time.time())
        time.sleep(2)
        print("left", time.time())
