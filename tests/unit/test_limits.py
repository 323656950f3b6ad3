"""Token buckets: what is there is what was not taken, whatever happens in whatever order."""

from __future__ import annotations

from itertools import combinations

from hypothesis import example, given
from hypothesis import strategies as st

from managedd.model.limits import SECOND_US, HostLimits, Needs, TokenBucket, effective_slots, left_over


def start_rate(burst: int, per_minute: float, starts_us: list[int], now_us: int) -> TokenBucket:
    """The bucket of starts, from the moments of those that were made, in order, as if it had been full before the first."""
    bucket = TokenBucket(capacity=burst, refill_per_second=per_minute / 60)
    for moment in starts_us:
        bucket = bucket.take(1, moment)
    return bucket.at(now_us)


def test_without_a_capacity_it_is_never_empty() -> None:
    bucket = TokenBucket(capacity=None, taken=1e9)
    assert bucket.has(1e12, 0)
    assert bucket.ready_us(1e12, 5) == 5


def test_slots_come_back_only_through_the_rows() -> None:
    full = TokenBucket(capacity=2, taken=2)
    assert not full.has(1, 10**15)
    assert full.ready_us(1, 0) is None
    lowered = TokenBucket(capacity=1, taken=3)
    assert lowered.free(0) == -2


def test_fractions_add_up_to_the_whole() -> None:
    bucket = TokenBucket(capacity=8, taken=sum([0.2] * 39))
    assert 8 - bucket.taken < 0.2, "in floating point"
    assert bucket.has(0.2, 0)
    assert not bucket.take(0.2, 0).has(0.001, 0)
    third = HostLimits(cpus=0.3)
    assert effective_slots(10, third, Needs(memory_bytes=0, cpus=0.1)) == (3, "processors")


def test_minutes_come_back_all_at_once() -> None:
    bucket = TokenBucket(capacity=600, taken=640, renewed_at_us=1_000)
    assert not bucket.has(1, 999)
    assert bucket.ready_us(1, 0) == 1_000
    assert bucket.free(1_000) == 600
    assert bucket.at(1_000).take(600, 1_000).ready_us(1, 1_000) is None


def test_starts_come_back_one_by_one_up_to_the_burst() -> None:
    bucket = start_rate(3, 60, [0, 0, 0], 0)
    assert not bucket.has(1, SECOND_US - 1)
    assert bucket.has(1, SECOND_US)
    assert bucket.ready_us(2, 0) == 2 * SECOND_US
    assert bucket.ready_us(4, 0) is None, "more than it holds"
    assert bucket.free(3600 * SECOND_US) == 3


def test_a_clock_that_is_set_back_gives_nothing() -> None:
    bucket = start_rate(2, 60, [10 * SECOND_US, 10 * SECOND_US], 10 * SECOND_US)
    assert bucket.free(0) == 0
    assert bucket.take(1, 0).free(10 * SECOND_US) == -1


MOMENTS = st.lists(st.integers(0, 600 * SECOND_US), max_size=60).map(sorted)


@given(st.integers(1, 8), st.floats(0.5, 600), MOMENTS)
def test_no_window_has_more_starts_than_burst_and_refill(burst: int, per_minute: float, wanted: list[int]) -> None:
    """Whoever asks each time, and starts only when told so, keeps to the rate over every stretch of time."""
    made: list[int] = []
    for moment in wanted:
        if start_rate(burst, per_minute, made, moment).has(1, moment):
            made.append(moment)
    for first in range(len(made)):
        for last in range(first, len(made)):
            seconds = (made[last] - made[first]) / SECOND_US
            assert last - first + 1 <= burst + seconds * per_minute / 60 + 1e-6


@given(st.integers(1, 8), st.floats(0.5, 600), MOMENTS, st.integers(1, 8))
def test_it_is_ready_when_it_says_so_and_not_before(
    burst: int, per_minute: float, made: list[int], tokens: int
) -> None:
    now = 600 * SECOND_US
    bucket = start_rate(burst, per_minute, made, now)
    ready = bucket.ready_us(tokens, now)
    if tokens > burst:
        assert ready is None
    else:
        assert ready is not None
        assert bucket.free(ready) >= tokens - 1e-6
        assert ready == now or not bucket.has(tokens, ready - 2)


SIZES = st.lists(st.one_of(st.integers(1, 6).map(float), st.floats(0.1, 6.0)), max_size=6)


@given(SIZES, st.floats(-3.0, 20.0))
@example([2.0] * 7, 1.0)
def test_what_is_left_over_is_so_whoever_ends(held: list[float], wanted: float) -> None:
    sums = [sum(some) for count in range(len(held) + 1) for some in combinations(held, count)]
    least = min((total - wanted for total in sums if total >= wanted - 1e-9), default=0.0)
    found = left_over(wanted, held, unit=1.0)
    assert -1e-6 <= found <= max(0.0, least) + 1e-6
    if all(size.is_integer() for size in held):
        assert abs(found - max(0.0, least)) < 1e-6
