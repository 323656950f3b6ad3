"""The pictures in `docs/pictures`: there is one of every page, and none of what is no page any more."""

from __future__ import annotations

from tests.ui.pictures import FOLDER, names

MOST_BYTES = 4_000_000
"""Of all of them: whoever clones the project has to take them."""


def test_every_page_has_its_pictures_and_they_are_small() -> None:
    there = {each.name: each.stat().st_size for each in FOLDER.iterdir()}
    assert sorted(names() ^ set(there)) == [], "make them anew: .venv/bin/python -m tests.ui.pictures"
    assert sum(there.values()) < MOST_BYTES
    assert all(each.read_bytes()[8:12] == b"WEBP" for each in FOLDER.iterdir())
