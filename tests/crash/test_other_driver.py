"""A daemon that comes back with another driver: what runs in the earlier one goes on, is heard, and ends as if nothing had been."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.crash.conftest import SETTINGS
from tests.crash.place import Place
from tests.support.daemon import LiveDaemon
from tests.support.process_daemon import IMAGE, ProcessDaemon

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.provision import Provisioned

pytestmark = [pytest.mark.docker, pytest.mark.client, pytest.mark.crash]

LINES = 40


@pytest.mark.parametrize(("first", "second"), [("docker", "process"), ("process", "docker")])
def test_runs_go_on_under_another_driver(
    docker_engine: Provisioned, fast_image: str, fast_environments: Path, tmp_path: Path, first: str, second: str
) -> None:
    processes = ProcessDaemon(tmp_path, environments=fast_environments, settings=SETTINGS)
    daemon = LiveDaemon(tmp_path, docker_host=docker_engine.docker_host, settings=processes.settings)
    seen_by = {"docker": daemon, "process": processes}
    place = Place(daemon=daemon)
    try:
        daemon.settings["runs"]["driver"] = first
        daemon.start()
        place.furnish(fast_image if first == "docker" else IMAGE)
        runs = place.submit(2, lines=LINES, pause=0.1)
        deadline = time.monotonic() + 60
        while len(seen_by[first].live_runs()) < 2 or any(place.api.run(run)["state_type"] != "RUNNING" for run in runs):
            assert time.monotonic() < deadline, daemon.log_tail()
            time.sleep(0.05)
        daemon.kill()
        daemon.settings["runs"]["driver"] = second
        daemon.start()
        assert seen_by[first].live_runs().keys() == set(runs)
        place.wait_all(runs)
        place.check_whole(runs, lines=LINES)
        assert {one["driver"] for run in runs for one in daemon.executions(run)} == {first}
        assert processes.containers() == [] == daemon.containers()
    finally:
        daemon.close()
        processes.remove_leftovers()
