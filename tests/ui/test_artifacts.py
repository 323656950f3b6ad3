"""What is shown of artifacts: whatever hostile runs put into them, a page of them is made in bounded time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from managedd.ui import artifacts, markdown

if TYPE_CHECKING:
    import pytest


def made(data: str, description: str | None = None) -> dict[str, Any]:
    return {
        "id": "i", "key": "k", "type": "markdown", "data": data, "description": description, "beginning": None, "chars": len(data),
    }  # fmt: skip


def test_a_page_reads_so_much_markdown_and_shows_the_rest_as_it_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def count(text: str) -> Markup:
        read.append(min(len(text), markdown.MAX_CHARS))
        return Markup("read")

    monkeypatch.setattr(markdown, "html", count)
    shown = artifacts.all_shown([made("<b>" + "[" * 20_000, "![" * 5_000) for _ in range(30)])
    assert 0 < sum(read) <= artifacts.MAX_MARKED
    assert shown[0].html == "read"
    assert str(shown[9].html).startswith("<pre>&lt;b&gt;[[")
    assert str(shown[-1].description).startswith("<pre>![![")


def test_one_text_however_long_is_cut_and_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markdown, "MAX_CHARS", 10)
    monkeypatch.setattr(artifacts, "MAX_MARKED", 10)
    (shown,) = artifacts.all_shown([made("# x\n" + "y" * 100)])
    assert "<h4>x</h4>" in str(shown.html) and "…" in str(shown.html)


def test_of_data_that_is_too_long_or_for_which_a_page_has_no_room_left_the_beginning_is_shown() -> None:
    long = {**made("x"), "data": None, "beginning": "<b>" + "y" * 70_000, "chars": 1_000_000}
    (shown,) = artifacts.all_shown([long])
    assert (shown.is_cut, shown.chars, shown.html) == (True, 1_000_000, None)
    assert shown.text.startswith("<b>yy") and len(shown.text) == artifacts.MAX_BEGINNING

    many = artifacts.all_shown([made("z" * 60_000) for _ in range(30)])
    assert [each.is_cut for each in many[:3]] == [False] * 3
    assert many[-1].is_cut
    assert sum(len(each.text) + len(each.html or "") for each in many) < 2 * artifacts.MAX_PAGE_CHARS
