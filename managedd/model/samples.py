"""Readings of a running container over time, as many as a chart can show, however long it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Sample = tuple[int, int, int]
"""When, in microseconds; bytes of memory; microseconds of processor time since the container's start."""
MAX_SAMPLES: Final = 120


def thinned(samples: Sequence[Sample], at_most: int = MAX_SAMPLES) -> list[Sample]:
    """The samples, when there are no more than `at_most`; else half as many, spread evenly over their time: of those near each other the
    one with the most memory stays, and of all the last."""
    if len(samples) <= at_most:
        return list(samples)
    *before, last = samples
    width_us = 1_000_000
    # Parts of doubled width hold whole ones: what was thinned often is no coarser than what was thinned once.
    while (last[0] - samples[0][0]) // width_us >= at_most // 2 - 2:
        width_us *= 2
    highest: dict[int, Sample] = {}
    for sample in before:
        part = sample[0] // width_us
        if part not in highest or sample[1] > highest[part][1]:
            highest[part] = sample
    return [highest[part] for part in sorted(highest)] + [last]


class Sampled:
    """The samples of one container that are not stored yet: bounded, also while the store takes nothing."""

    def __init__(self) -> None:
        self._waiting: list[Sample] = []

    @property
    def waiting(self) -> tuple[Sample, ...]:
        """What is to be stored."""
        return tuple(self._waiting)

    def add(self, sample: Sample) -> None:
        """One more; clocks that were set back add nothing until they have caught up."""
        if not self._waiting or sample[0] > self._waiting[-1][0]:
            self._waiting = thinned([*self._waiting, sample])

    def stored(self, samples: Iterable[Sample]) -> None:
        """These are stored."""
        known = set(samples)
        self._waiting = [each for each in self._waiting if each not in known]
