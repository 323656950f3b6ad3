"""A flow that counts, slowly enough to be met by a crash."""

from __future__ import annotations

import time
import uuid

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact


@task
def say(number):
    get_run_logger().info("number %s", number)


@flow
def numbers(lines: int = 10, pause: float = 0.3):
    create_markdown_artifact(markdown=str(uuid.uuid4()), key="start")
    for number in range(lines):
        print(f"line {number}", flush=True)
        say(number)
        time.sleep(pause)
