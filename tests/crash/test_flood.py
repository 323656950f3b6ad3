"""A run that prints more than its log takes, under a daemon that is killed again and again: what is there and what is told as dropped is all."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest

from tests.crash.place import OPEN, Place
from tests.support.daemon import LiveDaemon

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.provision import Provisioned

LINES = 20_000
KILLS = 4
SETTINGS = {"runs": {"log_lines_per_second": 200.0, "log_burst_seconds": 5.0}}
TOLD = re.compile(r"([\d,]+) lines? \(.*\) dropped here: .*\(runs\.log_")
"""Which limit it was the daemon after a kill does not know."""


@pytest.mark.docker
def test_kept_lines_and_told_gaps_are_all_that_was_printed(
    docker_engine: Provisioned, fast_image: str, tmp_path: Path
) -> None:
    daemon = LiveDaemon(tmp_path, docker_host=docker_engine.docker_host, settings=SETTINGS)
    try:
        daemon.start()
        place = Place(daemon=daemon)
        place.furnish(fast_image)
        (run,) = place.submit(1, lines=LINES, pause=0.0005)
        killed_while_open = 0
        for _ in range(KILLS):
            before = stored(daemon, run)
            deadline = time.monotonic() + 60
            while stored(daemon, run) <= before and place.api.run(run)["state"]["type"] in OPEN:
                assert time.monotonic() < deadline, daemon.log_tail()
                time.sleep(0.1)
            killed_while_open += place.api.run(run)["state"]["type"] in OPEN
            daemon.restart(kill=True)
        place.wait_all([run], seconds=180)
        rows = daemon.query(
            "SELECT name, message FROM log_lines WHERE flow_run_id = ? ORDER BY id", run, database="logs"
        )
    finally:
        daemon.close()
    assert killed_while_open > 0
    number = kept = 0
    for row in rows:
        if row["name"] == "stdout":
            assert row["message"] == f"line {number}"
            number += 1
            kept += 1
        elif told := TOLD.match(row["message"]):
            number += int(told[1].replace(",", ""))
    assert number == LINES
    assert 0 < kept < LINES


def stored(daemon: LiveDaemon, run: str) -> int:
    """How many lines of the run there are."""
    found = daemon.query("SELECT count(*) AS n FROM log_lines WHERE flow_run_id = ?", run, database="logs")
    return int(found[0]["n"])
