"""Amounts as people read them."""

from __future__ import annotations

import pytest

from managedd.model.amounts import apart, human_bytes, human_minutes, human_seconds
from managedd.model.limits import Plan

MIB = 1024**2


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "unknown"),
        (5.6, "5.6 s"),
        (60, "1 min"),
        (184, "3 min 4 s"),
        (3600, "1 h"),
        (7_500, "2 h 5 min"),
        (86_400, "24 h"),
    ],
)
def test_a_time_is_told_in_hours_minutes_and_seconds(seconds: float | None, words: str) -> None:
    assert human_seconds(seconds) == words


@pytest.mark.parametrize(
    ("minutes", "words"),
    [(0, "0 min"), (1.2, "1.2 min"), (7, "7 min"), (60, "1 h"), (125, "2 h 5 min"), (15_000, "250 h")],
)
def test_compute_time_is_told_in_hours_and_minutes(minutes: float, words: str) -> None:
    assert human_minutes(minutes) == words


def test_amounts_that_would_read_alike_are_told_apart() -> None:
    assert apart(human_bytes, "bytes", 300 * MIB, 200 * MIB) == ["300.0 MiB", "200.0 MiB"]
    assert apart(human_bytes, "bytes", 2048 * MIB + 1, 2048 * MIB) == [
        "2.0 GiB (2147483649 bytes)",
        "2.0 GiB (2147483648 bytes)",
    ]
    assert apart(human_seconds, "seconds", 60, 60) == ["1 min", "1 min"]


def test_a_fraction_of_an_hour_is_a_plain_number_of_minutes() -> None:
    assert repr(Plan(name="p", compute_hours=0.0333).compute_minutes) == "1.998"
