"""What stands for a position of a shared table outside: one id each, readable by this store alone, the same after every restart."""

from __future__ import annotations

import uuid
from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from managedd.bus import Bus
from managedd.store import positions
from managedd.store.database import Database
from managedd.store.positions import Positions
from tests.support.sync_store import SyncStore

if TYPE_CHECKING:
    from pathlib import Path

FILES = ("managedd.store.migrations.state", "managedd.store.migrations.logs")
LOGS = Positions(bytes(range(32)), "logs")
MOST = 2**48 - 1
SOME = st.integers(0, MOST) | st.integers(0, 10_000)


@given(SOME)
def test_an_id_leads_back_to_its_position_and_is_a_uuid(position: int) -> None:
    id_ = LOGS.id(position)
    assert LOGS.position(id_) == position
    read = uuid.UUID(id_)
    assert (str(read), read.version, read.variant) == (id_, 8, uuid.RFC_4122)


@given(st.sets(SOME, min_size=2))
def test_no_two_positions_have_one_id(some: set[int]) -> None:
    assert len({LOGS.id(position) for position in some}) == len(some)


@given(SOME, st.integers(0, 31), st.integers(1, 15))
def test_an_id_in_which_one_digit_was_changed_is_none(position: int, at: int, by: int) -> None:
    digits = uuid.UUID(LOGS.id(position)).int ^ (by << 4 * at)
    assert LOGS.position(str(uuid.UUID(int=digits))) is None


@given(st.uuids())
def test_an_id_that_was_made_up_is_none(id_: uuid.UUID) -> None:
    assert LOGS.position(str(id_)) is None


@given(SOME)
def test_an_id_of_another_table_or_store_or_of_before_is_none(position: int) -> None:
    id_ = LOGS.id(position)
    assert Positions(bytes(range(32)), "audit").position(id_) is None
    assert Positions(bytes(32), "logs").position(id_) is None
    assert LOGS.position(f"00000000-0000-8000-8000-{position:012x}") is None


def test_neither_how_far_apart_nor_which_was_first_can_be_told() -> None:
    made = [uuid.UUID(LOGS.id(position)).int for position in range(1_000)]
    assert min(abs(a - b) for a, b in pairwise(made)) > 2**64
    # The parts on their own as well: of random numbers, about half are larger than the one before.
    for shift in (0, 48, 80):
        parts = [(number >> shift) & (2**48 - 1) for number in made]
        assert len(set(parts)) == len(parts)
        assert 400 < sum(a < b for a, b in pairwise(parts)) < 600


@pytest.mark.parametrize("migrations", FILES)
def test_each_store_has_ids_of_its_own(migrations: str) -> None:
    with closing(SyncStore(migrations)) as one, closing(SyncStore(migrations)) as other:
        first, second = (store.read(lambda tx: positions.of(tx, "logs").id(7)) for store in (one, other))
    assert first != second


@pytest.mark.anyio
@pytest.mark.parametrize("migrations", FILES)
async def test_a_store_that_is_opened_again_gives_the_same_ids(migrations: str, tmp_path: Path) -> None:
    made = []
    for _ in range(2):
        database = await Database.open(tmp_path / "store.db", bus=Bus(), migrations=migrations)
        made.append(await database.look(lambda tx: positions.of(tx, "logs").id(7)))
        await database.close()
    assert made[0] == made[1]
