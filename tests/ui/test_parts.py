"""What several pages show in the same way, made without a browser."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

from managedd.ui.rendering import environment


class Attributes(HTMLParser):
    """The attributes of the first element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.first: dict[str, str | None] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.first = self.first or dict(attrs)


def test_a_buttons_body_is_what_it_sends_whatever_is_in_it() -> None:
    parts: Any = environment().get_template("parts.html").module
    body = {"name": 'a" data-confirm="no" onclick="x', "other": "<b>&amp;'"}
    found = Attributes(parts.call("Do", "POST", "/x", body=body)).first
    assert json.loads(found["data-body"] or "") == body
    assert set(found) == {"type", "class", "data-key", "data-call", "data-url", "data-body"}
