"""The secret of runs' keys: the same at each start, and never half of one."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from managedd.errors import ErrorCode, ManagedError
from managedd.store.run_key import SECRET_BYTES, SECRET_NAME, load_or_make

if TYPE_CHECKING:
    from pathlib import Path


def test_it_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    (tmp_path / f"{SECRET_NAME}.new").write_bytes(b"left by a start that was cut short")
    made = load_or_make(tmp_path)
    assert len(made) == SECRET_BYTES
    assert load_or_make(tmp_path) == made
    assert [path.name for path in tmp_path.iterdir()] == [SECRET_NAME]
    assert stat.S_IMODE((tmp_path / SECRET_NAME).stat().st_mode) == 0o600


@pytest.mark.parametrize("size", [0, 1, SECRET_BYTES - 1, SECRET_BYTES + 1])
def test_what_is_not_whole_is_refused_and_left_alone(tmp_path: Path, size: int) -> None:
    path = tmp_path / SECRET_NAME
    path.write_bytes(b"x" * size)
    with pytest.raises(ManagedError, match=f"{SECRET_NAME} holds {size} bytes and not 32: put it back") as caught:
        load_or_make(tmp_path)
    assert caught.value.code is ErrorCode.CONFIG
    assert path.stat().st_size == size


def test_what_can_not_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / SECRET_NAME).mkdir()
    with pytest.raises(ManagedError, match="can't be read or written: Is a directory") as caught:
        load_or_make(tmp_path)
    assert caught.value.code is ErrorCode.CONFIG


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut before the flush leaves no file of that name."""
    import os

    seen: list[list[str]] = []

    def flushed(descriptor: int) -> None:
        seen.append(sorted(path.name for path in tmp_path.iterdir()))

    monkeypatch.setattr(os, "fsync", flushed)
    load_or_make(tmp_path)
    assert seen == [[f"{SECRET_NAME}.new"], [SECRET_NAME]]
