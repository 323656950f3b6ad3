"""Readings of a container over time, thinned."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from managedd.model.samples import MAX_SAMPLES, Sample, Sampled, thinned


def readings(*memory: int, every_us: int = 5_000_000) -> list[Sample]:
    return [(each * every_us, amount, each) for each, amount in enumerate(memory)]


def test_few_samples_all_stay() -> None:
    few = readings(1, 2, 3)
    assert thinned(few) == few


@given(st.lists(st.integers(min_value=0, max_value=2**40), min_size=1, max_size=600))
def test_of_many_the_highest_and_the_last_stay_in_order(memory: list[int]) -> None:
    samples = readings(*memory)
    kept: list[Sample] = []
    for sample in samples:
        kept = thinned([*kept, sample])
        assert len(kept) <= MAX_SAMPLES
    assert max(each[1] for each in kept) == max(memory)
    assert kept[-1] == samples[-1]
    assert all(before[0] < after[0] for before, after in pairwise(kept))
    assert set(kept) <= set(samples)


def test_a_long_run_s_beginning_is_as_fine_as_its_end() -> None:
    kept: list[Sample] = []
    for sample in readings(*range(5_000)):
        kept = thinned([*kept, sample])
    half = kept[-1][0] // 2
    assert sum(each[0] < half for each in kept) >= MAX_SAMPLES // 5


def test_what_is_stored_waits_no_longer_and_what_came_meanwhile_does() -> None:
    sampled = Sampled()
    first, second, early = readings(1, 2)[0], readings(1, 2)[1], (-1, 9, 9)
    sampled.add(first)
    taken = sampled.waiting
    sampled.add(second)
    sampled.add(early)
    sampled.stored(taken)
    assert sampled.waiting == (second,)
