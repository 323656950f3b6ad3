"""The oracle of the crash tests sees what it is there to see."""

from __future__ import annotations

from typing import Any

import pytest

from tests.crash.oracle import Limits, Minutes, Oracle, Run, Starts, peak


def run(number: int, **more: Any) -> Run:
    """A light run of one queue that was due at 0."""
    levels = {"workspace": "w", "pool": "p", "queue": "q", "deployment": "d", "memory_bytes": 1, "due": 0.0}
    return Run(id=str(number), **{**levels, **more})


def ran(number: int, began: float, ended: float, **more: Any) -> Run:
    return run(number, claimed=began, started=began, died=ended, over=ended, freed=ended, **more)


def limits(**more: Any) -> Limits:
    return Limits(**{"memory_bytes": 100, "slots": {}, "deployments": {}, **more})


def test_a_peak_is_the_most_at_one_moment() -> None:
    assert peak([(0, 5, 1), (5, 9, 1)]) == 1, "handed over"
    assert peak([(0, 5, 2), (4, 9, 3), (8, 10, 1)]) == 5
    assert peak([]) == 0


@pytest.mark.parametrize(
    ("allowed", "words"),
    [
        (limits(slots={"w": 1}), "w: 2 containers"),
        (limits(slots={"q": 1}), "q: 2 containers"),
        (limits(deployments={"d": 1}), "d: 2 runs"),
        (limits(memory_bytes=1), "host: 2 bytes"),
        (limits(minutes={"w": Minutes(limit=1)}), "1 of 1 minutes"),
        (limits(starts={"w": Starts(burst=1, per_second=0.1)}), "2 starts"),
    ],
)
def test_what_is_exceeded_is_named(allowed: Limits, words: str) -> None:
    together = [ran(1, 0.5, 10.0), ran(2, 5.0, 15.0)]
    complaints = list(Oracle(together, allowed).complaints())
    assert [words in complaint for complaint in complaints] == [True]
    assert list(Oracle(together, limits(slots={"w": 2}, deployments={"d": 2})).complaints()) == []


def test_who_was_cancelled_while_there_was_room_is_named() -> None:
    refused = run(2, over=20.0)
    allowed = limits(deployments={"d": 1})
    assert list(Oracle([ran(1, 0.0, 30.0), refused], allowed).complaints()) == []
    assert len(list(Oracle([ran(1, 0.0, 10.0), refused], allowed).complaints())) == 1


def test_a_slot_idles_while_somebody_could_go() -> None:
    two = [ran(1, 0.0, 10.0), ran(2, 15.0, 25.0)]
    one_at_a_time = Oracle(two, limits(slots={"p": 1})).use(0.0, 25.0, [])
    assert one_at_a_time.used == pytest.approx(20, abs=0.3)
    assert one_at_a_time.idle == pytest.approx(5, abs=0.3)
    assert Oracle(two, limits(slots={"p": 1})).use(0.0, 25.0, [(9.9, 15.1)]).utilisation == 1, "nobody could, then"
    assert Oracle(two, limits(slots={"p": 2})).use(0.0, 25.0, []).idle == pytest.approx(15, abs=0.3)


@pytest.mark.parametrize(
    "allowed",
    [
        limits(memory_bytes=1),
        limits(deployments={"d": 1}),
        limits(slots={"w": 1}),
        limits(starts={"w": Starts(burst=1, per_second=1 / 11)}),
        limits(minutes={"w": Minutes(limit=1, until=10.0)}),
    ],
)
def test_who_can_not_go_leaves_nothing_idle(allowed: Limits) -> None:
    assert Oracle([ran(1, 0.0, 10.0), ran(2, 10.0, 20.0)], allowed).use(0.0, 20.0, []).utilisation == pytest.approx(
        1, abs=0.01
    )


def test_who_is_less_urgent_waits_while_the_urgent_could_go() -> None:
    allowed = limits(slots={"urgent": 1})
    waits = ran(1, 5.0, 6.0, queue="urgent")
    assert Oracle([waits, ran(2, 4.0, 6.0)], allowed).passed_over("urgent", "q") == ["2"]
    busy = ran(3, 1.0, 4.9, queue="urgent")
    assert Oracle([waits, busy, ran(2, 4.0, 6.0)], allowed).passed_over("urgent", "q") == []
