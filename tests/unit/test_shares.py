"""Room that is short, shared out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from managedd.model.shares import fair_share

AMOUNTS = st.lists(st.integers(0, 1_000), max_size=12)


@pytest.mark.parametrize(
    ("amounts", "room", "share"),
    [([], 0, None), ([5], 5, None), ([6], 5, 5), ([2, 9, 9], 12, 5), ([1, 1, 90], 10, 8), ([3, 3], 0, 0)],
)
def test_who_has_most_gives_way(amounts: list[int], room: int, share: int | None) -> None:
    assert fair_share(amounts, room) == share


@given(AMOUNTS, st.integers(0, 5_000))
def test_all_have_room_and_none_is_left_that_somebody_could_have(amounts: list[int], room: int) -> None:
    share = fair_share(amounts, room)
    if share is None:
        assert sum(amounts) <= room
        return
    assert sum(min(amount, share) for amount in amounts) <= room
    assert sum(min(amount, share + 1) for amount in amounts) > room
    # Whatever the others have, an equal part is everybody's.
    assert share >= room // len(amounts)
