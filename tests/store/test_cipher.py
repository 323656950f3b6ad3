"""Envelopes: what goes in comes out, in its own row only, and never from one that was touched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from managedd.errors import ErrorCode, ManagedError
from managedd.store.cipher import KEY_BYTES, CannotOpen, Key, KeyRing, Place, Vault

RING = KeyRing(Key(bytes(range(32))))
HERE = Place(table="t", workspace_id="w", row_id="r")
NAMES = st.text(max_size=20)
PLACES = st.builds(lambda table, workspace, row: Place(table=table, workspace_id=workspace, row_id=row), NAMES, NAMES, NAMES)  # fmt: skip


@given(PLACES, st.binary(max_size=500))
def test_what_goes_in_comes_out(place: Place, text: bytes) -> None:
    assert RING.open(place, RING.seal(place, text)) == text


@given(PLACES, PLACES, st.binary(max_size=50))
def test_an_envelope_opens_in_its_own_row_only(one: Place, other: Place, text: bytes) -> None:
    envelope = RING.seal(one, text)
    if one == other:
        assert RING.open(other, envelope) == text
    else:
        with pytest.raises(CannotOpen, match="changed, or moved"):
            RING.open(other, envelope)


@given(st.binary(min_size=1, max_size=50), st.data())
def test_an_envelope_with_any_bit_changed_does_not_open(text: bytes, data: st.DataObject) -> None:
    envelope = bytearray(RING.seal(HERE, text))
    at = data.draw(st.integers(0, len(envelope) - 1))
    envelope[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(CannotOpen):
        RING.open(HERE, bytes(envelope))


@given(st.binary(max_size=80))
def test_what_is_no_envelope_does_not_open(junk: bytes) -> None:
    with pytest.raises(CannotOpen):
        RING.open(HERE, junk)


def test_the_same_text_is_another_envelope_each_time() -> None:
    envelopes = {RING.seal(HERE, b"text") for _ in range(100)}
    assert len(envelopes) == 100
    assert not any(b"text" in envelope for envelope in envelopes)


def test_another_key_does_not_open_and_is_named() -> None:
    other = Key.new()
    envelope = KeyRing(other).seal(HERE, b"text")
    with pytest.raises(CannotOpen, match=f"encrypted with key {other.id}, which is not here") as caught:
        RING.open(HERE, envelope)
    assert caught.value.code is ErrorCode.INTERNAL and "row r of t" in caught.value.message
    assert KeyRing(RING.current, [other]).open(HERE, envelope) == b"text"


def test_a_key_shows_nothing_of_itself() -> None:
    key = Key(b"k" * KEY_BYTES)
    assert repr(key) == f"Key({key.id})"
    assert len(key.id) == 16 and key.id not in key.check_value
    assert key.id == Key(b"k" * KEY_BYTES).id != Key.new().id
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        Key(b"k" * 31)


def test_a_store_without_a_key_says_so() -> None:
    with pytest.raises(ManagedError, match="opened without the key"):
        _ = Vault().ring
