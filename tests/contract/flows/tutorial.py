"""The flow of Prefect's own managed-execution guide, more or less."""

from __future__ import annotations

from prefect import flow, get_run_logger, task


@task
def shout(name: str) -> str:
    return name.upper()


@flow(log_prints=True)
def hello(name: str = "world", times: int = 1) -> str:
    """Says hello."""
    get_run_logger().info("Hello, %s!", name)
    for number in range(times):
        print(f"line {number}")
    return shout(name)


@flow
def other(seconds: float = 0) -> None:
    import time

    get_run_logger().info("other flow")
    time.sleep(seconds)


@flow(log_prints=True)
def with_package() -> None:
    """Needs a package that the image doesn't have."""
    import humanize

    print("humanized:", humanize.intcomma(1234567))


@flow
def fails_first() -> None:
    """Succeeds when somebody retries it."""
    from prefect.context import get_run_context

    if get_run_context().flow_run.run_count < 2:
        raise RuntimeError("the first try fails")
    get_run_logger().info("the second try is fine")


@flow
def counted(number: int) -> None:
    """Leaves one artifact each time that it is executed."""
    from prefect.artifacts import create_markdown_artifact

    create_markdown_artifact(str(number), key="counted")
