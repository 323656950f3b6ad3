"""Masks of secrets: nothing shows, and writing back a mask changes nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from managedd.model.secrets import MASK, masked, unmasked


@pytest.mark.parametrize(
    ("data", "paths", "shown"),
    [
        ({"a": "s", "b": 1}, ["a"], {"a": MASK, "b": 1}),
        ({"a": None}, ["a"], {"a": None}),
        ({"a": {"b": "s", "c": 2}}, ["a.b"], {"a": {"b": MASK, "c": 2}}),
        ({"a": {"b": "s", "c": {"d": 2}}}, ["a.*"], {"a": {"b": MASK, "c": {"d": MASK}}}),
        ({"a": {"b": "s"}}, ["a"], {"a": {"b": MASK}}),
        ({"a": ["s", "t"]}, ["a"], {"a": MASK}),
        ({"a": [{"b": "s", "c": 1}, {"c": 2}]}, ["a.b"], {"a": [{"b": MASK, "c": 1}, {"c": 2}]}),
        ({"a": "text"}, ["a.b", "no.such"], {"a": "text"}),
        ({"a": 5, "b": False}, ["a", "b"], {"a": MASK, "b": MASK}),
        ({"a": 1}, [], {"a": 1}),
    ],
)
def test_what_is_secret_is_masked(data: dict[str, Any], paths: list[str], shown: dict[str, Any]) -> None:
    before = json.dumps(data)
    assert masked(data, paths) == shown
    assert json.dumps(data) == before


def test_a_mask_stands_for_the_value_and_anything_else_replaces_it() -> None:
    current = {"a": "s", "h": {"x": "1", "y": "2"}, "l": [{"t": "u"}]}
    paths = ["a", "h.*", "l.t"]
    assert unmasked(masked(current, paths), current, paths) == current
    given = {"a": "new", "h": {"x": MASK, "z": MASK}, "l": [{"t": MASK}, {"t": MASK}], "free": MASK}
    assert unmasked(given, current, paths) == {
        "a": "new",
        "h": {"x": "1", "z": MASK},
        "l": [{"t": "u"}, {"t": MASK}],
        "free": MASK,
    }


KEYS = st.sampled_from(["a", "b", "c"])
LEAF = st.one_of(st.none(), st.booleans(), st.integers(100, 999), st.just("secret"))
VALUES = st.recursive(
    LEAF, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3))
)
PATHS = st.lists(st.lists(st.one_of(KEYS, st.just("*")), min_size=1, max_size=3).map(".".join), max_size=3)


@given(st.dictionaries(KEYS, VALUES, max_size=3), PATHS)
def test_reading_masked_and_writing_it_back_changes_nothing(data: dict[str, Any], paths: list[str]) -> None:
    shown = masked(data, paths)
    assert masked(shown, paths) == shown
    assert unmasked(shown, data, paths) == data


@given(VALUES)
def test_nothing_below_a_secret_path_shows(value: Any) -> None:
    assert "secret" not in json.dumps(masked({"key": value}, ["key"]))
