"""Slots of a limit over time."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from managedd.model.slots import MAX_DECAY_WAIT_SECONDS, MAX_WAIT_SECONDS, SlotLimit

LIMIT = SlotLimit(
    id="l",
    name="l",
    limit=10,
    active=True,
    decay_per_second=0.0,
    unleased=0.0,
    denied=0.0,
    as_of_us=0,
    leased=0,
    average_occupancy_seconds=2.0,
)
RATE = replace(LIMIT, decay_per_second=2.0)
SECOND = 1_000_000


def test_leased_and_unleased_slots_add_up_and_stay() -> None:
    full = replace(LIMIT, unleased=4.0, leased=6)
    assert (full.taken(0), full.taken(100 * SECOND), full.shown(0)) == (10, 10, 10)
    assert not full.has_room(1, 100 * SECOND)
    assert replace(full, leased=5).has_room(1, 0)


def test_a_rate_takes_its_slots_back_without_losing_fractions() -> None:
    full = replace(RATE, unleased=10.0, leased=3)
    assert full.taken(0) == 10
    assert not full.has_room(1, SECOND // 2 - 1)
    assert full.has_room(1, SECOND // 2)
    assert full.shown(SECOND // 4) == 10
    assert full.shown(SECOND // 2) == 9
    assert full.taken(100 * SECOND) == 0


def test_how_long_to_wait() -> None:
    assert replace(RATE, unleased=10.0).wait_seconds(1, 0) == pytest.approx(0.5)
    assert replace(RATE, unleased=10.0, denied=2.0).wait_seconds(1, 0) == pytest.approx(1.5)
    assert replace(LIMIT, leased=10).wait_seconds(1, 0) == pytest.approx(0.2)
    assert replace(LIMIT, leased=10, average_occupancy_seconds=3600, denied=50).wait_seconds(5, 0) == MAX_WAIT_SECONDS
    assert replace(LIMIT, denied=50).denied_at(100 * SECOND) == 0


def test_the_average_occupancy_follows_what_is_seen() -> None:
    assert LIMIT.average_after(1, 2.0) == pytest.approx(2.0)
    assert LIMIT.average_after(2, 44.0) == pytest.approx(3.0)
    assert replace(LIMIT, limit=0).average_after(1, 3.0) == pytest.approx(3.0)


@given(
    st.integers(1, 20),
    st.floats(0.1, 50),
    st.lists(st.tuples(st.integers(0, 3_000_000), st.integers(1, 5)), max_size=40),
)
def test_a_rate_is_never_exceeded(limit: int, rate: float, asked: list[tuple[int, int]]) -> None:
    current = replace(RATE, limit=limit, decay_per_second=rate)
    now, granted = 0, 0
    for pause, slots in asked:
        now += pause
        assert 0 <= current.taken(now) <= limit + 1e-6
        if current.has_room(slots, now):
            granted += slots
            current = replace(current, unleased=current.unleased_at(now) + slots, as_of_us=now)
    assert granted <= limit + rate * now / SECOND + 1e-6


def test_a_wait_for_what_hardly_decays_is_a_number_that_a_header_can_say() -> None:
    full = replace(LIMIT, decay_per_second=1e-308, unleased=10.0, denied=5.0)
    assert full.wait_seconds(1, 0) == MAX_DECAY_WAIT_SECONDS
