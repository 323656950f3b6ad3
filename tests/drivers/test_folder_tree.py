"""Folders that a run has filled: weighed and removed, whatever the run has done to them."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from managedd.drivers import folder_tree
from managedd.drivers.process_files import RunFolder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LEVELS = 1500
"""More than a stack of calls, a path, or a table of open files has room for."""


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "runs", "one")
    (made.path / "work").mkdir(parents=True)
    (made.path / "spec.json").write_text("{}")
    return made


@pytest.fixture
def as_a_user(tmp_path: Path) -> Iterator[None]:
    """Whom rights bind: for root they are none."""
    if os.geteuid() != 0:
        yield
        return
    # However deep the tests' folder lies.
    chain = [path for path in (tmp_path, *tmp_path.parents) if path.stat().st_mode & 0o005 != 0o005]
    before = [(path, stat.S_IMODE(path.stat().st_mode)) for path in chain]
    for path in chain:
        path.chmod(0o755)
    for place, _, names in os.walk(tmp_path):
        for path in (place, *(os.path.join(place, name) for name in names)):
            os.chown(path, 54_321, 54_321, follow_symlinks=False)
    os.seteuid(54_321)
    yield
    os.seteuid(0)
    for path, mode in before:
        path.chmod(mode)


def nested(path: Path, levels: int, *, size: int) -> None:
    """Folders in folders with a name each of which a path has room for few, and a file at the bottom."""
    here = os.open(path, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("a long name", dir_fd=here)
        below = os.open("a long name", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    with open(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=here), "wb") as file:
        file.write(b"x" * size)
        file.flush()
        os.fsync(here)
    os.close(here)


def test_folders_deeper_than_a_path_are_weighed_and_removed(folder: RunFolder) -> None:
    nested(folder.path / "work", LEVELS, size=1 << 20)
    (folder.path / "work" / "beside").write_bytes(b"x" * (1 << 20))
    opened = len(os.listdir("/proc/self/fd"))
    assert 2 << 20 <= folder.written_bytes() < (2 << 20) + 100_000
    folder.remove()
    assert not folder.path.exists()
    assert len(os.listdir("/proc/self/fd")) == opened


def test_what_vanishes_while_it_is_weighed_costs_itself_alone(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    nested(folder.path / "work", 100, size=1)
    (folder.path / "beside").mkdir()
    (folder.path / "beside" / "file").write_bytes(b"x" * (1 << 20))
    real, seen = folder_tree._content, [0]

    def content(opened: int) -> tuple[int, list[str]]:
        seen[0] += 1
        found = real(opened)
        if seen[0] == 90:
            # We are deep in it now: somebody moves a part of it elsewhere.
            os.rename(folder.path / "work" / "/".join(["a long name"] * 50), folder.path / "elsewhere")
        return found

    monkeypatch.setattr(folder_tree, "_content", content)
    assert folder.written_bytes() >= 1 << 20
    assert seen[0] >= 90


@pytest.mark.usefixtures("as_a_user")
def test_rights_that_a_run_took_from_itself_are_given_back_to_folders_alone(folder: RunFolder, tmp_path: Path) -> None:
    outside, kept = tmp_path / "outside", tmp_path / "kept"
    outside.mkdir(mode=0o500)
    kept.write_text("x")
    kept.chmod(0o400)
    work = folder.path / "work"
    (work / "a" / "b" / "c").mkdir(parents=True)
    (work / "a" / "b" / "c" / "file").write_text("x")
    (work / "a" / "outside").symlink_to(outside)
    (work / "a" / "kept").symlink_to(kept)
    os.link(kept, work / "a" / "linked")
    for place in (work / "a" / "b" / "c", work / "a" / "b", work / "a", work, folder.path):
        place.chmod(0)
    folder.remove()
    assert not folder.path.exists()
    assert stat.S_IMODE(outside.stat().st_mode) == 0o500
    assert stat.S_IMODE(kept.stat().st_mode) == 0o400


def test_a_link_in_the_folders_place_goes_and_what_it_leads_to_stays(folder: RunFolder, tmp_path: Path) -> None:
    folder.path.rename(tmp_path / "outside")
    folder.path.symlink_to(tmp_path / "outside")
    folder.remove()
    assert not folder.path.is_symlink()
    assert (tmp_path / "outside" / "work").is_dir()


def test_a_folder_that_is_not_there_is_removed(tmp_path: Path) -> None:
    RunFolder(tmp_path, "nothing").remove()
    assert folder_tree.weigh(str(tmp_path / "nothing")) == 0
