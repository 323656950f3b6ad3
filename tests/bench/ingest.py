"""`python -m tests.bench.ingest`: how fast what containers print gets into the log store. Reports, and judges nothing.

Runs print as fast as they can, and what a run may print is not bounded. The time is from the first stored line to the last: printing, the engine's
file, following, parsing and committing overlap, and share the processors.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench import facts
from tests.crash.place import Place, build_fast_image
from tests.support.daemon import LiveDaemon
from tests.support.provision import provisioned
from tests.support.steps import CannotProvisionError

if TYPE_CHECKING:
    from collections.abc import Sequence

SECONDS = 900.0
LOOK_SECONDS = 0.2


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every line was stored."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.ingest", description=__doc__)
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--lines", type=int, default=100_000, help="of each run")
    chosen = parser.parse_args(arguments)
    try:
        with provisioned(engine=True, client=False) as there, tempfile.TemporaryDirectory(prefix="ingest-") as name:
            folder = Path(name)
            (folder / "image").mkdir()
            image = build_fast_image(there.docker_host or "", there.image or "", folder / "image")
            figures = measure(LiveDaemon(folder / "daemon", docker_host=there.docker_host, settings={
                "runs": {"log_lines_per_second": "none", "log_bytes_per_second": "none", "log_max_bytes": "none"},
                "docker": {"log_max_size": "100m", "log_max_files": 10},
                "plans.pro": {"concurrent_runs": "none"},
                "log": {"level": "info"},
            }), image, chosen.runs, chosen.lines)  # fmt: skip
    except CannotProvisionError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"when": facts.now(), **facts.commit(), "options": vars(chosen), "figures": figures}, indent=2))
    return 0 if figures["lines stored"] >= chosen.runs * chosen.lines else 1


def measure(daemon: LiveDaemon, image: str, runs: int, lines: int) -> dict[str, Any]:
    """Lines stored in a second, and the processor time of the daemon and of the container engine for a million of them."""
    try:
        daemon.start()
        place = Place(daemon=daemon)
        place.furnish(image, slots=runs)
        engine = int(Path("/var/run/docker.pid").read_text())
        submitted = place.submit(runs, lines=lines, pause=0)
        while not stored(daemon):
            time.sleep(LOOK_SECONDS)
        began, first = time.monotonic(), stored(daemon)
        used = processor_seconds(daemon.pid), processor_seconds(engine)
        while stored(daemon) < runs * lines and time.monotonic() < began + SECONDS and any_open(place):
            time.sleep(LOOK_SECONDS)
        took, last = time.monotonic() - began, stored(daemon)
        spent = processor_seconds(daemon.pid) - used[0], processor_seconds(engine) - used[1]
        place.wait_all(submitted, seconds=SECONDS)
        kept = daemon.query("SELECT count(*) AS n FROM logs WHERE name = 'stdout'", database="logs")[0]["n"]
        in_all = kept / 1_000_000
        return {
            "lines stored": kept,
            "lines a second": round((last - first) / took),
            "daemon, processor seconds for a million lines": round(spent[0] / in_all, 1),
            "container engine, processor seconds for a million lines": round(spent[1] / in_all, 1),
        }
    finally:
        daemon.close()


def stored(daemon: LiveDaemon) -> int:
    """How many lines there are, those of the daemon itself included."""
    return int(daemon.query("SELECT coalesce(max(id), 0) AS n FROM logs", database="logs")[0]["n"])


def any_open(place: Place) -> bool:
    """Whether there will be more: an execution is over when its log is whole."""
    open_ = "SELECT count(*) AS n FROM executions WHERE phase NOT IN ('FINALIZED', 'LOST')"
    return bool(place.daemon.query(open_)[0]["n"])


def processor_seconds(pid: int) -> float:
    """What the process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


if __name__ == "__main__":
    sys.exit(main())
