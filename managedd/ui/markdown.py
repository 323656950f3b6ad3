"""Markdown that runs and people have written, as HTML that is safe to show: what of it would be HTML stays text, and nothing is loaded."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from markdown_it import MarkdownIt
from markupsafe import Markup, escape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markdown_it.token import Token

MAX_CHARS: Final = 50_000
"""What is longer is cut: to read a character that opens something takes 35 µs."""
_SCHEMES: Final = ("http://", "https://", "mailto:")
REL: Final = "noopener noreferrer nofollow"
_LOWEST: Final = 6
_BELOW: Final = 3
"""Headings of an artifact stand under the page's own."""


def is_safe(link: str) -> bool:
    """Whether a link that somebody has written may be followed: http, https and mail."""
    return link.strip().lower().startswith(_SCHEMES) and link.isprintable()


@lru_cache(maxsize=128)
def html(text: str) -> Markup:
    """The text as HTML."""
    cut = text[:MAX_CHARS]
    made: str = _markdown().render(cut)
    # All that it holds was made by the renderer, which escapes; `html` is off.
    shown = Markup(made)  # noqa: S704
    return shown if len(cut) == len(text) else shown + Markup("<p>…</p>")


@lru_cache(maxsize=256)
def plain(text: str, most_chars: int = 300) -> str:
    """What the text says, in one line and without what is only its form; what is longer is cut."""
    parts = []
    for token in _markdown().parse(text[:MAX_CHARS]):
        if token.type == "inline":
            parts += ["".join(each.content or " " for each in token.children or () if each.content or each.type.endswith("break"))]  # fmt: skip
        elif token.type in {"fence", "code_block"}:
            parts.append(token.content)
    said = " ".join(" ".join(parts).split())
    return said if len(said) <= most_chars else said[: most_chars - 1] + "…"


@lru_cache(maxsize=1)
def _markdown() -> MarkdownIt:
    made = MarkdownIt("commonmark", {"html": False, "linkify": False, "maxNesting": 20}).enable(
        ["table", "strikethrough"]
    )
    made.validateLink = is_safe  # type: ignore[method-assign, assignment]
    made.add_render_rule("link_open", _link)
    made.add_render_rule("image", _image)
    made.add_render_rule("heading_open", _heading)
    made.add_render_rule("heading_close", _heading)
    made.add_render_rule("th_open", _column)
    made.add_render_rule("td_open", _cell)
    return made


def _link(self: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    address = escape(str(tokens[index].attrGet("href") or ""))
    return f'<a href="{address}" rel="{REL}" target="_blank">'


def _image(self: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    """As a link: nothing is fetched from elsewhere because somebody looks at a page."""
    token = tokens[index]
    text = escape(token.content or "image")
    address = str(token.attrGet("src") or "")
    return f'<a href="{escape(address)}" rel="{REL}" target="_blank">{text}</a>' if is_safe(address) else str(text)


def _heading(self: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    token = tokens[index]
    level = min(_LOWEST, int(token.tag[1:]) + _BELOW)
    return f"<h{level}>" if token.nesting == 1 else f"</h{level}>\n"


def _column(self: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    # Without the alignment, which would be a style in the page.
    return '<th scope="col">'


def _cell(self: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    return "<td>"
