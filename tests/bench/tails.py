"""`python -m tests.bench.tails`: many who follow one busy run, and a quiet run beside floods. Reports, and judges nothing.

Delays are from the moment of printing in the run to the message in the follower, everything between included. The followers are one
process; where it uses a processor of its own up (`own_processor` near 1), what it measures is itself.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench import facts
from tests.crash.place import Place, build_fast_image
from tests.support.daemon import LiveDaemon
from tests.support.process_daemon import IMAGE, ProcessDaemon, ensure_environments, with_command
from tests.support.provision import provisioned
from tests.support.steps import REPOSITORY, CannotProvisionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PRINTER = Path(__file__).with_name("printer.py")
RESULTS = REPOSITORY / ".cache" / "bench"
SAMPLE_SECONDS = 0.25


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when everything was measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.tails", description=__doc__)
    parser.add_argument("--sockets", type=int, default=1000)
    parser.add_argument("--stuck", type=int, default=10, help="of these, how many read nothing")
    parser.add_argument("--rate", type=float, default=100, help="lines a second that the run prints")
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument(
        "--floods", type=int, default=4, help="runs that print as fast as they can, beside the quiet one"
    )
    parser.add_argument("--driver", choices=("docker", "process"), default="docker")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the figures go as JSON")
    chosen = parser.parse_args(arguments)
    # A request to end must unwind the blocks below, or a daemon would stay behind.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    try:
        with provisioned(engine=chosen.driver == "docker", client=False) as there, _bench(chosen, there) as bench:
            figures = {
                "alone": bench.followed(sockets=1, stuck=0, rate=chosen.rate, seconds=min(10, chosen.seconds)),
                "crowd": bench.followed(
                    sockets=chosen.sockets, stuck=chosen.stuck, rate=chosen.rate, seconds=chosen.seconds
                ),
                # What the processors of the host cost, whatever is printed.
                "beside as many that only compute": bench.beside(chosen.floods, chosen.seconds, rate=-1),
                "beside floods": bench.beside(chosen.floods, chosen.seconds, rate=0),
            }
    except CannotProvisionError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    told = {"when": facts.now(), **facts.commit(), "options": {**vars(chosen), "out": None}, "figures": figures}
    text = json.dumps(told, indent=2)
    print(text)
    if chosen.out is not None:
        chosen.out.write_text(text + "\n")
    return 0


@contextlib.contextmanager
def _bench(chosen: argparse.Namespace, there: Any) -> Iterator[Bench]:
    RESULTS.mkdir(parents=True, exist_ok=True)
    many = 2 * chosen.sockets + 200
    server = {"max_sockets": many, "max_connections": many, "max_connections_per_address": many}
    settings = {"server": server, "log": {"level": "info"}}
    with tempfile.TemporaryDirectory(dir=RESULTS, prefix="tails-") as name:
        folder = Path(name)
        daemon: LiveDaemon
        if chosen.driver == "docker":
            (folder / "image").mkdir()
            image = build_fast_image(
                there.docker_host, there.image, folder / "image", PRINTER, "managedd-bench-printer"
            )
            daemon = LiveDaemon(folder / "daemon", docker_host=there.docker_host, settings=settings)
        else:
            image = IMAGE
            environments = with_command(ensure_environments(), folder, "prefect", PRINTER)
            daemon = ProcessDaemon(folder / "daemon", environments=environments, settings=settings)
        try:
            daemon.start()
            place = Place(daemon=daemon)
            place.furnish(image, slots=50)
            yield Bench(place)
        finally:
            daemon.close()


class Bench:
    """One daemon, and what is measured of it."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._daemon = place.daemon

    def followed(self, *, sockets: int, stuck: int, rate: float, seconds: float) -> dict[str, Any]:
        """One run at that rate, followed by many: what they got, and the daemon's memory in megabytes."""
        (run,) = self._submit(1, rate=rate, seconds=seconds)
        self._until_running([run])
        before = self._resident()
        command = [sys.executable, "-m", "tests.bench.followers", self._daemon.url, run]
        command += ["--sockets", str(sockets), "--stuck", str(stuck)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as followers:
            assert followers.stdout is not None
            opened = json.loads(followers.stdout.readline())
            idle = self._resident()
            used = self._processor_seconds()
            with self._watching() as samples:
                self._go([run])
                began = time.monotonic()
                found = json.loads(followers.stdout.readline())
                share = (self._processor_seconds() - used) / (time.monotonic() - began)
        time.sleep(3)
        memory = {"before": before, "all open": idle, "printing, highest": max(samples), "after": self._resident()}
        return {
            **found,
            "opened in seconds": opened["seconds"],
            "memory_mb": memory,
            "daemon_processor": round(share, 2),
        }

    def beside(self, others: int, seconds: float, *, rate: float) -> dict[str, Any]:
        """The delays of a quiet run beside others; how many lines of those were printed, kept, and told as dropped.

        What is in none of these the engine's rotation has thrown away before it was read.
        """
        noisy = self._submit(others, rate=rate, seconds=seconds)
        (quiet,) = self._submit(1, rate=20, seconds=seconds)
        self._until_running([*noisy, quiet])
        before, calm = self._resident(), self._answer_times(min(5, seconds))
        command = [sys.executable, "-m", "tests.bench.followers", self._daemon.url, quiet]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as followers:
            assert followers.stdout is not None
            followers.stdout.readline()
            with self._watching() as samples:
                self._go(noisy)
                self._go([quiet])
                answers = self._answer_times(seconds)
                found = json.loads(followers.stdout.readline())
        self._place.wait_all([*noisy, quiet], seconds=seconds + 300)
        return {
            **found,
            "others": others,
            "memory_mb": {"before": before, "highest": max(samples), "after": self._resident()},
            "answers of the API before, ms": calm,
            "answers of the API beside it, ms": answers,
            "of each other": [self._kept(run) for run in noisy],
        }

    def _submit(self, count: int, *, rate: float, seconds: float) -> list[str]:
        body = {"state": {"type": "SCHEDULED"}, "parameters": {"rate": rate, "seconds": seconds}}
        path = f"/deployments/{self._place.deployment_id}/create_flow_run"
        return [str(self._place.api.post(path, body)["id"]) for _ in range(count)]

    def _until_running(self, runs: Sequence[str]) -> None:
        deadline = time.monotonic() + 120
        while any(self._place.api.run(run)["state"]["type"] != "RUNNING" for run in runs):
            assert time.monotonic() < deadline, self._daemon.log_tail()
            time.sleep(0.1)

    def _go(self, runs: Sequence[str]) -> None:
        for run in runs:
            self._place.api.call("PATCH", f"/flow_runs/{run}", {"tags": ["go"]})

    def _answer_times(self, seconds: float) -> dict[str, float]:
        took: list[float] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.monotonic()
            self._place.api.post("/flow_runs/filter", {"limit": 1})
            took.append((time.monotonic() - began) * 1000)
            time.sleep(0.05)
        took.sort()
        return {"p50": round(took[len(took) // 2], 1), "p99": round(took[int(len(took) * 0.99)], 1)}

    def _kept(self, run: str) -> dict[str, Any]:
        """Of one flood: how many lines it printed by its own account, and how many are stored."""
        rows = self._daemon.query(
            "SELECT name, message FROM log_lines WHERE flow_run_id = ? AND (name = 'managedd' OR message LIKE 'printed %')", run, database="logs"
        )  # fmt: skip
        stored = self._daemon.query("SELECT count(*) AS n FROM log_lines WHERE flow_run_id = ?", run, database="logs")[
            0
        ]["n"]
        printed = [int(row["message"].split()[1]) for row in rows if row["name"] != "managedd"]
        dropped = [row["message"] for row in rows if " dropped here" in row["message"]]
        return {
            "printed": printed[0] if printed else None,
            "stored": stored,
            "dropped": sum(int(text.split()[0].replace(",", "")) for text in dropped),
            "told in": len(dropped),
        }

    def _resident(self) -> float:
        return _status(self._daemon.pid, "VmRSS")

    def _processor_seconds(self) -> float:
        fields = Path(f"/proc/{self._daemon.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    @contextlib.contextmanager
    def _watching(self) -> Iterator[list[float]]:
        """The daemon's memory while the block lasts."""
        samples, ended = [self._resident()], threading.Event()

        def watch() -> None:
            while not ended.wait(SAMPLE_SECONDS):
                samples.append(self._resident())

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield samples
        finally:
            ended.set()
            thread.join()


def _status(pid: int, name: str) -> float:
    """Of /proc/PID/status, in megabytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return round(int(line.split()[1]) * 1024 / 1e6, 1)
    raise ValueError(name)


if __name__ == "__main__":
    sys.exit(main())
