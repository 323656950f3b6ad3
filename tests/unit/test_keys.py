"""Keys: their form, and what is kept of them."""

from __future__ import annotations

import re

import pytest

from managedd.model import keys
from managedd.model.access import LEVELS, Level, Role


def test_a_key_looks_like_one_and_no_two_are_alike() -> None:
    made = [keys.make() for _ in range(100)]
    assert len(set(made)) == 100
    assert all(re.fullmatch(r"mgk_[0-9A-Za-z]{49}", key) for key in made)
    assert all(keys.is_key(key) for key in made)


@pytest.mark.parametrize("at", [4, 20, -1])
def test_one_wrong_character_makes_it_none(at: int) -> None:
    key = keys.make()
    wrong = list(key)
    wrong[at] = "A" if wrong[at] != "A" else "B"
    assert not keys.is_key("".join(wrong))


@pytest.mark.parametrize("text", ["", "mgk_", "mgr_" + "a" * 49, "x" * 53, "mgk_" + "é" * 49, "mgk_\ud800" + "a" * 48])
def test_what_was_never_made_is_none(text: str) -> None:
    assert not keys.is_key(text)


def test_a_hint_and_a_hash_do_not_give_it_away() -> None:
    key = keys.make()
    assert key.startswith(keys.hint(key))
    assert len(keys.hint(key)) == 10
    assert re.fullmatch("[0-9a-f]{64}", keys.hashed(key))
    assert keys.hashed(key) == keys.hashed(key) != keys.hashed(keys.make())


def test_each_role_reaches_more_than_the_one_before() -> None:
    levels = [LEVELS[role] for role in (Role.VIEWER, Role.RUNNER, Role.DEVELOPER, Role.ADMIN)]
    assert levels == sorted(set(levels))
    assert max(levels) < Level.OVERSEE < Level.OPERATE
