"""What is shown of artifacts: whatever hostile runs put into them, a page of them is made in bounded time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from managedd.ui import artifacts, markdown

if TYPE_CHECKING:
    import pytest


def made(data: str, description: str | None = None) -> dict[str, Any]:
    return {"id": "i", "key": "k", "type": "markdown", "data": data, "description": description}


def test_a_page_reads_so_much_markdown_and_shows_the_rest_as_it_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def count(text: str) -> Markup:
        read.append(min(len(text), markdown.MAX_CHARS))
        return Markup("read")

    monkeypatch.setattr(markdown, "html", count)
    shown = artifacts.all_shown([made("<b>" + "[" * 20_000, "![" * 5_000) for _ in range(30)])
    assert 0 < sum(read) <= artifacts.MAX_MARKED
    assert shown[0].html == "read"
    assert str(shown[-1].html).startswith("<pre>&lt;b&gt;[[")
    assert str(shown[-1].description).startswith("<pre>![![")


def test_one_text_however_long_is_cut_and_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markdown, "MAX_CHARS", 10)
    monkeypatch.setattr(artifacts, "MAX_MARKED", 10)
    (shown,) = artifacts.all_shown([made("# x\n" + "y" * 100)])
    assert "<h4>x</h4>" in str(shown.html) and "…" in str(shown.html)
