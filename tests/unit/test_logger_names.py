"""The name under which a line of a run's log stands."""

from __future__ import annotations

import pytest

from managedd.model.logs import NAME_MAX_CHARS, OUR_NAME, RUNS_NAME, claimed_name


@pytest.mark.parametrize(
    "name",
    [
        OUR_NAME,
        "Managedd",
        " managedd ",
        "mana\0gedd",
        "managedd\n",
        "mana\u200bgedd",
        "\uff4danagedd",
        "\ufeffmanagedd",
        "managedd" + "\0" * NAME_MAX_CHARS,
        "managedd" + " " * NAME_MAX_CHARS + "x",
    ],
)
def test_nobody_else_has_the_daemons_name_or_one_that_looks_like_it(name: str) -> None:
    assert claimed_name(name) == RUNS_NAME


@pytest.mark.parametrize("name", ["", "prefect.flow_runs", "managedd.flows", "managed", "gründlich\n", "stdout"])
def test_every_other_name_stays(name: str) -> None:
    assert claimed_name(name) == name


def test_a_long_name_is_cut() -> None:
    assert claimed_name("n" * 5_000) == "n" * NAME_MAX_CHARS
