"""Runs that print side by side while the engine rotates their logs and its connections are cut, under a daemon that is killed again and again."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.crash.cutter import Cutter
from tests.crash.place import OPEN, Place
from tests.support.daemon import LiveDaemon

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.provision import Provisioned

pytestmark = [pytest.mark.crash, pytest.mark.docker, pytest.mark.slow]

RUNS = int(os.environ.get("MANAGEDD_TEST_LOG_RUNS", "4"))
LINES = int(os.environ.get("MANAGEDD_TEST_LOG_LINES", "6000"))
"""Of each run. By hand with 20 runs of 50,000 lines."""
PAUSE = 0.003
SECONDS = 1200.0
KILLS = 5
MEAN_BYTES = LINES * 20
"""Of what the engine sends on one connection: a run's lines take several."""
ROTATION = {"log_max_size": "128k", "log_max_files": 100}
"""Every 1,200 lines or so, and nothing is thrown away of this many lines."""


@pytest.mark.timeout(1800)
def test_every_line_is_there_once_and_in_order(
    docker_engine: Provisioned, fast_image: str, tmp_path: Path, record_property: Any
) -> None:
    assert docker_engine.docker_host is not None
    settings = {"docker": ROTATION, "plans.pro": {"concurrent_runs": RUNS}, "log": {"level": "info"}}
    daemon = LiveDaemon(tmp_path, docker_host=docker_engine.docker_host, settings=settings)
    with Cutter(tmp_path, docker_engine.docker_host, mean_bytes=MEAN_BYTES, seed=7).serving() as cutter:
        # The test itself asks the engine without detours.
        daemon.settings["docker"]["host"] = cutter.address
        try:
            daemon.start()
            place = Place(daemon=daemon)
            place.furnish(fast_image, slots=RUNS)
            began = time.monotonic()
            runs = place.submit(RUNS, lines=LINES, pause=PAUSE)
            killed = kill_on_the_way(place, runs)
            place.wait_all(runs, seconds=SECONDS)
            record_property("figures", f"{RUNS * LINES} lines in {time.monotonic() - began:.0f} s, {cutter.cut} cut")
            told = {run: daemon.query(
                "SELECT message FROM log_lines WHERE flow_run_id = ? AND name = 'stdout' ORDER BY id", run, database="logs"
            ) for run in runs}  # fmt: skip
            ends = {place.api.run(run)["state"]["type"] for run in runs}
        finally:
            daemon.close()
    assert ends == {"COMPLETED"}
    for run in runs:
        assert [row["message"] for row in told[run]] == [f"line {number}" for number in range(LINES)]
    assert killed > 1
    assert cutter.cut > RUNS


def kill_on_the_way(place: Place, runs: list[str]) -> int:
    """How often the daemon was killed while it took lines in, at even parts of the whole."""
    killed = 0
    for number in range(1, KILLS + 1):
        deadline = time.monotonic() + SECONDS
        while stored(place) < number * RUNS * LINES // (KILLS + 3):
            assert time.monotonic() < deadline, place.daemon.log_tail()
            time.sleep(0.2)
        killed += any(place.api.run(run)["state"]["type"] in OPEN for run in runs)
        place.daemon.restart(kill=True)
    return killed


def stored(place: Place) -> int:
    """How many lines there are of all runs, with those of the daemon itself: keys are given in turn."""
    return int(place.daemon.query("SELECT coalesce(max(id), 0) AS n FROM logs", database="logs")[0]["n"])
