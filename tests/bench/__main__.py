"""`python -m tests.bench`, which is `make bench`: everything measured, a table printed, a file written."""

from __future__ import annotations

import argparse
import compileall
import contextlib
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench import facts, measures
from tests.bench.figures import Figure, Report
from tests.bench.generator import Generator
from tests.bench.runs import RunPlace, daemon_for_runs, runs
from tests.bench.systems import ManagedDaemon, Peer
from tests.bench.table import change_table, report_table
from tests.support.prefect_client import REQUIREMENTS, ensure_prefect_venv
from tests.support.provision import provisioned
from tests.support.steps import REPOSITORY, STATE, CannotProvisionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.support.provision import Provisioned

PEER_VENV = STATE / "bench-peer-venv"
PEER_REQUIREMENTS = (*REQUIREMENTS, "prefect-docker==0.7.4")
RESULTS = REPOSITORY / ".cache" / "bench"
PARTS = ("start", "load", "runs")


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when everything that was chosen was measured."""
    chosen = _parsed(arguments)
    if chosen.show is not None:
        _print(Report.read(chosen.show), chosen.compare)
        return 0
    # A request to end must unwind the blocks below, or a server would stay behind.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    began = time.monotonic()
    try:
        report = _measure(chosen)
    except CannotProvisionError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    target = chosen.out or RESULTS / f"{report.facts['when'].replace(':', '')[:17]}.json"
    report.write(target)
    _print(report, chosen.compare)
    print(f"\n{target} after {time.monotonic() - began:.0f} s")
    return 1 if report.facts["failed"] else 0


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description="managedd and Prefect's own server, side by side.")
    parser.add_argument("--quick", action="store_true", help="a minute and a half: fewer and shorter rounds")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part alone; may be repeated")
    parser.add_argument("--driver", choices=("docker", "process"), default="docker", help="what runs run in, in both")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the figures go (default: below .cache/bench)")
    parser.add_argument("--compare", type=Path, metavar="OLD", help="also print what changed since that file")
    parser.add_argument("--show", type=Path, metavar="FILE", help="print the table of a file, measure nothing")
    return parser.parse_args(arguments)


def _print(report: Report, before: Path | None) -> None:
    told = report.facts
    print(f"\n{told['when']}  commit {told['commit'][:12]}{' (changed)' if told['changed'] else ''}")
    print(f"{told['machine']['processors']} × {told['machine']['processor']}, {told['machine']['system']}\n")
    print(report_table(report))
    if before is not None:
        print(f"\nSince {before}:\n\n{change_table(Report.read(before), report)}")


def _measure(chosen: argparse.Namespace) -> Report:
    pace = measures.QUICK if chosen.quick else measures.FULL
    parts = chosen.only or list(PARTS)
    with provisioned(engine=chosen.driver == "docker", client=False) as found:
        python = ensure_prefect_venv(PEER_VENV, PEER_REQUIREMENTS) / "bin" / "python"
        there = replace(found, prefect_python=str(python), prefect_cli=str(python.with_name("prefect")))
        # As an installation does; the first start would pay for all later ones.
        compileall.compile_dir(REPOSITORY / "managedd", quiet=1)
        notes = [f"runs are not measured: {reason}" for reason in found.reasons]
        is_incomplete = bool(found.reasons) and "runs" in parts
        if found.reasons:
            parts = [part for part in parts if part != "runs"]
        with _folder() as folder:
            told: dict[str, Any] = {
                "when": facts.now(),
                **facts.commit(),
                "machine": facts.machine(there.docker_host),
                "versions": facts.versions(Peer(folder, there.prefect_cli or "", docker_host=None).versions()),
                "options": {"driver": chosen.driver, "parts": parts, "pace": asdict(pace)},
                "failed": is_incomplete,
            }
            with _Bench(folder, there, chosen.driver, pace) as bench:
                for part in parts:
                    print(f"[bench] {part} …", file=sys.stderr, flush=True)
                    try:
                        getattr(bench, part)()
                    except Exception as error:
                        told["failed"] = True
                        notes.append(f"{part} could not be measured: {error}")
            return Report(
                facts={**told, "generator": bench.generator}, figures=bench.figures, notes=[*notes, *bench.notes]
            )


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    # Where the project is, not in a memory file system that some hosts have for /tmp: both systems write to a disk.
    RESULTS.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=RESULTS, prefix="run-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Bench(contextlib.ExitStack):
    """The parts, and what they found. What they start is gone when the block ends."""

    def __init__(self, folder: Path, there: Provisioned, driver: str, pace: measures.Pace) -> None:
        super().__init__()
        self._folder = folder
        self._there = there
        self._driver = driver
        self._pace = pace
        self._pair: tuple[ManagedDaemon, Peer] | None = None
        self.figures: list[Figure] = []
        self.notes: list[str] = []
        self.generator: dict[str, Any] = {}

    def start(self) -> None:
        """Both were started several times, in turn; the last ones run on."""
        ours, theirs = [], []
        for number in range(self._pace.starts):
            self.close()
            managedd, peer = self._two(f"start-{number}")
            ours.append(managedd.started(engine=self._there.docker_host is not None))
            theirs.append(peer.started())
            self._pair = managedd, peer
        self.figures.append(measures.started(ours, theirs))
        if self._pair is not None:
            self.figures += measures.idle(*self._pair, self._pace.settle_seconds)

    def load(self) -> None:
        """Both were under load."""
        if self._pair is None:
            managedd, peer = self._two("load")
            managedd.started(engine=self._there.docker_host is not None)
            peer.started()
        else:
            managedd, peer = self._pair
        with Generator() as generator:
            found, self.generator, notes = measures.load(generator, (managedd, peer), self._pace)
        self.figures += [*found, measures.after_load(managedd, peer, self._pace.settle_seconds)]
        self.notes += notes

    def runs(self) -> None:
        """Both have run flows."""
        # Fresh ones: what the load has left behind is no part of a run's time.
        self.close()
        folder = self._folder / "runs"
        managedd = daemon_for_runs(folder / "managedd", self._there, self._driver)
        self.callback(managedd.close)
        peer = Peer(folder / "peer", self._there.prefect_cli or "", docker_host=self._there.docker_host)
        self.callback(peer.close)
        managedd.started(engine=True)
        peer.started()
        place = RunPlace(managedd=managedd, peer=peer, there=self._there, kind=self._driver, folder=folder)
        self.figures += runs(place, self._pace)

    def _two(self, name: str) -> tuple[ManagedDaemon, Peer]:
        settings: dict[str, dict[str, Any]] = {
            "runs": {"driver": self._driver, "listen_port": 0},
            "process": {"trusted": True},
        }
        managedd = ManagedDaemon(
            self._folder / name / "managedd", docker_host=self._there.docker_host, settings=settings
        )
        self.callback(managedd.close)
        peer = Peer(self._folder / name / "peer", self._there.prefect_cli or "", docker_host=self._there.docker_host)
        self.callback(peer.close)
        return managedd, peer


if __name__ == "__main__":
    sys.exit(main())
