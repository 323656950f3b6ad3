"""Names of runs."""

from __future__ import annotations

import random
import re

from managedd.model.naming import ADJECTIVES, ANIMALS, run_name


def test_the_lists_are_long_plain_and_without_repetition() -> None:
    for words in (ADJECTIVES, ANIMALS):
        assert len(words) >= 150
        assert len(set(words)) == len(words)
        assert all(re.fullmatch(r"[a-z]{3,12}", word) for word in words)


def test_a_name_is_an_adjective_and_an_animal_of_the_given_chance() -> None:
    names = [run_name(random.Random(seed)) for seed in range(500)]
    assert names == [run_name(random.Random(seed)) for seed in range(500)]
    assert len(set(names)) > 450
    for name in names:
        adjective, animal = name.split("-")
        assert adjective in ADJECTIVES
        assert animal in ANIMALS
