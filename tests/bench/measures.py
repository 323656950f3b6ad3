"""What is measured without containers: start, memory, and answers under load."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.bench.figures import Figure, Reading, percentile
from tests.bench.load import LINES, ROWS
from tests.bench.systems import cpu_seconds, resident_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.bench.figures import Better
    from tests.bench.generator import Generator
    from tests.bench.systems import ManagedDaemon, Peer

CLIENTS = (1, 16, 64)
MEGABYTE = 1_000_000
SHAPES = {
    "reads": ("GET /flow_runs/{id}", "1/s", 1),
    "filter": (f"POST /flow_runs/filter, {ROWS} rows", "1/s", 1),
    "logs": (f"POST /logs/, batches of {LINES}", "lines/s", LINES),
    "creates": ("POST /flow_runs/", "1/s", 1),
    "set_state": ("POST /flow_runs/{id}/set_state", "1/s", 1),
}
"""Shape → its title, the unit of its rate, and how many of the unit one request brings; first what leaves least undone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long everything takes."""

    starts: int
    """How often each system is started."""
    rounds: int
    round_seconds: float
    settle_seconds: float
    runs: int
    """How many runs managedd gets, one after the other, and the container engine alone as many."""
    peer_runs: int
    runs_seconds: float
    """After so long no further run is begun, in either system: on a busy machine there are fewer."""


FULL = Pace(starts=3, rounds=2, round_seconds=1.6, settle_seconds=6.0, runs=10, peer_runs=4, runs_seconds=100.0)
QUICK = Pace(starts=1, rounds=1, round_seconds=0.7, settle_seconds=2.0, runs=2, peer_runs=1, runs_seconds=30.0)


@dataclass(slots=True, kw_only=True)
class _Rounds:
    """The rounds of one system with one shape and one number of clients."""

    seconds: float = 0.0
    processor_seconds: float = 0.0
    """What the system itself used, all of its processes."""
    latencies_us: list[int] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def add(self, answer: Mapping[str, Any], processor_seconds: float) -> None:
        self.seconds += answer["elapsed_seconds"]
        self.processor_seconds += processor_seconds
        self.latencies_us += answer["latencies_us"]
        self.errors.update(answer["errors"])

    @property
    def requests(self) -> int:
        return len(self.latencies_us) + self.errors.total()


def started(ours: Sequence[float], theirs: Sequence[float]) -> Figure:
    """From the start of the process to the first answer to a query; the median."""
    return Figure(
        key="start.ready", title="start to the first answer", unit="s", better="lower", managedd=_median(ours), peer=_median(theirs)
    )  # fmt: skip


def idle(managedd: ManagedDaemon, peer: Peer, seconds: float) -> list[Figure]:
    """Memory, and processor time, of two servers that nobody asks anything."""
    time.sleep(seconds / 2)
    sessions = (managedd.session, peer.session)
    before = [cpu_seconds(session) for session in sessions]
    time.sleep(seconds)
    used = [(cpu_seconds(session) - was) / seconds * 100 for session, was in zip(sessions, before, strict=True)]
    return [
        _memory("memory.idle", "resident memory, idle", managedd.session, peer.session),
        Figure(
            key="processor.idle", title="processor, idle", unit="% of one", better="lower", managedd=Reading(value=used[0], n=1),
            peer=Reading(value=used[1], n=1),
        ),
    ]  # fmt: skip


def after_load(managedd: ManagedDaemon, peer: Peer, seconds: float) -> Figure:
    """Memory of both servers once the load is over."""
    time.sleep(seconds / 2)
    return _memory("memory.loaded", "resident memory, after the load", managedd.session, peer.session)


def load(
    generator: Generator, systems: Sequence[ManagedDaemon | Peer], pace: Pace
) -> tuple[list[Figure], dict[str, Any], list[str]]:
    """Every shape with every number of clients, the systems in turn; what the generator itself used; what went wrong."""
    for system in systems:
        generator.ask(do="set_up", system=system.name, url=system.address)
    found: dict[tuple[str, int], dict[str, _Rounds]] = {}
    busiest = 0.0
    # Everything with one client first: what many clients leave undone in a system is not in the way of that.
    for clients in CLIENTS:
        for shape in SHAPES:
            rounds = found[shape, clients] = {system.name: _Rounds() for system in systems}
            for number in range(pace.rounds):
                # The other one first in each second round, so that what changes with time hits both.
                for system in systems[:: -1 if number % 2 else 1]:
                    before = cpu_seconds(system.session)
                    answer = generator.ask(
                        do="round", system=system.name, shape=shape, clients=clients, seconds=pace.round_seconds
                    )
                    rounds[system.name].add(answer, cpu_seconds(system.session) - before)
                    busiest = max(busiest, answer["busy"])
                    generator.ask(do="recover", system=system.name, clients=clients)
    figures: list[Figure] = []
    notes: list[str] = []
    for shape in SHAPES:
        for clients in CLIENTS:
            rounds = found[shape, clients]
            figures += _figures(shape, clients, rounds)
            notes += [
                f"{_whose(shape, clients)}, {name}: {_told(one.errors)} of {one.requests}"
                for name, one in rounds.items()
                if one.errors
            ]
    ceiling = generator.ask(do="ceiling", seconds=pace.round_seconds)
    used = {
        "answers_per_second_with_a_server_in_its_own_process": len(ceiling["latencies_us"]) / ceiling["elapsed_seconds"],
        "highest_use_of_its_processor": busiest,
    }  # fmt: skip
    return figures, used, notes


def _figures(shape: str, clients: int, rounds: Mapping[str, _Rounds]) -> list[Figure]:
    _, unit, times = SHAPES[shape]
    whose = _whose(shape, clients)
    rates, errors, p50, p95, processor = {}, {}, {}, {}, {}
    for name, one in rounds.items():
        rates[name] = Reading(value=len(one.latencies_us) * times / one.seconds, n=one.requests)
        errors[name] = Reading(value=one.errors.total() / max(1, one.requests) * 100, n=one.requests)
        if one.latencies_us:
            p50[name] = Reading(value=percentile(one.latencies_us, 50) / 1000, n=len(one.latencies_us))
            p95[name] = Reading(value=percentile(one.latencies_us, 95) / 1000, n=len(one.latencies_us))
            each = one.processor_seconds / len(one.latencies_us) * 1000
            processor[name] = Reading(value=each, n=len(one.latencies_us))
    shown = clients == max(CLIENTS) or any(one.value for one in errors.values())

    def figure(suffix: str, title: str, unit: str, better: Better, found: Mapping[str, Reading], shown: bool) -> Figure:
        return Figure(
            key=f"{shape}.{clients}{suffix}", title=title, unit=unit, better=better, shown=shown, managedd=found.get("managedd"),
            peer=found.get("peer"),
        )  # fmt: skip

    return [
        figure("", whose, unit, "higher", rates, True),
        figure(".errors", "  errors", "%", "lower", errors, shown),
        figure(".p50", f"{whose}, p50", "ms", "lower", p50, False),
        figure(".p95", f"{whose}, p95", "ms", "lower", p95, False),
        # Less noisy than times on a machine that does other things too.
        figure(".processor", f"{whose}, processor time of each", "ms", "lower", processor, False),
    ]


def _whose(shape: str, clients: int) -> str:
    return f"{SHAPES[shape][0]}, {clients} client{'s' if clients > 1 else ''}"


def _memory(key: str, title: str, ours: int, theirs: int) -> Figure:
    return Figure(
        key=key, title=title, unit="MB", better="lower", managedd=Reading(value=resident_bytes(ours) / MEGABYTE, n=1),
        peer=Reading(value=resident_bytes(theirs) / MEGABYTE, n=1),
    )  # fmt: skip


def _median(values: Sequence[float]) -> Reading | None:
    return Reading(value=percentile(values, 50), n=len(values)) if values else None


def _told(errors: Counter[str]) -> str:
    return ", ".join(f"{count} × {what}" for what, count in errors.most_common())
