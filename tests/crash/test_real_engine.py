"""The same with Prefect's own engine inside: it outlives the daemon's death, and its run goes through once."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.crash.place import Place
from tests.support import process_daemon
from tests.support.daemon import LiveDaemon
from tests.support.process_daemon import ProcessDaemon, ensure_environments

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.provision import Provisioned

pytestmark = [pytest.mark.crash, pytest.mark.slow]

IMAGE = "managedd-test-crash-real:latest"
FLOW = Path(__file__).with_name("flows") / "counting.py"
LINES = 12


@pytest.fixture(
    scope="module",
    params=[pytest.param("docker", marks=pytest.mark.docker), pytest.param("process", marks=pytest.mark.client)],
)
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A live daemon whose runs are real ones; their code is where they find it, as containers and as processes."""
    folder = tmp_path_factory.mktemp("real")
    daemon: LiveDaemon
    if request.param == "docker":
        daemon = LiveDaemon(folder, docker_host=with_flow(request.getfixturevalue("docker_engine"), folder / "image"))
        image, code = IMAGE, "/opt/flows"
    else:
        daemon = ProcessDaemon(folder, environments=ensure_environments())
        image, code = process_daemon.IMAGE, str(FLOW.parent)
    try:
        daemon.start()
        made = Place(daemon=daemon)
        made.furnish(
            image,
            entrypoint=f"{FLOW.name}:numbers",
            pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": code}}],
        )
        yield made
    finally:
        daemon.close()


def with_flow(there: Provisioned, folder: Path) -> str:
    """The engine at the returned address has the image with the flow in it."""
    folder.mkdir()
    (folder / FLOW.name).write_bytes(FLOW.read_bytes())
    (folder / "Dockerfile").write_text(f"FROM {there.image}\nCOPY {FLOW.name} /opt/flows/{FLOW.name}\n")
    assert there.docker_host is not None
    subprocess.run(
        ["docker", "-H", there.docker_host, "build", "--quiet", "--force-rm", "--tag", IMAGE, str(folder)],
        env={**os.environ, "DOCKER_BUILDKIT": "0"}, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return there.docker_host


def test_killed_while_real_flows_run(real: Place) -> None:
    runs = real.submit(2, lines=LINES, pause=0.5)
    deadline = time.monotonic() + 100
    while any((state := real.api.run(run_id)["state_type"]) != "RUNNING" for run_id in runs):
        assert state in {"SCHEDULED", "PENDING"} and time.monotonic() < deadline, real.daemon.log_tail()
        time.sleep(0.2)
    real.daemon.kill()
    real.check_torn()
    assert real.live_containers() == dict.fromkeys(runs, 1)
    time.sleep(2)
    real.daemon.start()
    real.wait_all(runs, seconds=120)
    real.check_whole(runs, lines=LINES)
    for run_id in runs:
        told = [line["message"] for line in real.api.logs(run_id) if line["message"].startswith("number ")]
        assert told == [f"number {number}" for number in range(LINES)]
        assert real.api.run(run_id)["run_count"] == 1
