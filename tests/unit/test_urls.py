"""What is shown of URLs: in the daemon and, by the same function once more, inside a run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from managedd.drivers import shim
from managedd.model.urls import has_unclear_credentials, mask_urls

CASES = {
    "no address": "no address",
    "https://host/path": "https://host/path",
    "https://host:8443/path#part": "https://host:8443/path#part",
    "https://[::1]:80/path": "https://[::1]:80/path",
    "https://[::1]/path": "https://[::1]/path",
    "https://user:pass@host/path": "https://****@host/path",
    "https://token@host": "https://****@host",
    "https://user:p@ss@h/path": "https://****@h/path",
    "https://user:p@ss@h": "https://****@h",
    "https://tok:en/slash@h": "https://****@h",
    "https://tok/slash@h/path": "https://****@h/path",
    "https://u:p?w@h/path": "https://****@h/path",
    "https://u:p#w@h/path": "https://****@h/path",
    "git+https://github.com/org/repo.git@main": "git+https://github.com/org/repo.git@main",
    "git+https://token@github.com/org/repo.git@v1#egg=x": "git+https://****@github.com/org/repo.git@v1#egg=x",
    "git+https://a:b@c@github.com/org/repo.git@v1": "git+https://****@github.com/org/repo.git@v1",
    "git+https://tok:en/slash@h/org/repo.git": "git+https://****@h/org/repo.git",
    "https://host/file.whl?token=abc": "https://host/file.whl?****",
    "https://host/file.whl?token=abc&x=1#sha256=00": "https://host/file.whl?****#sha256=00",
    "https://u:p@host/file?token=a@b": "https://****@b",
    "Really, https://host/what?": "Really, https://host/what?",
    "a 'https://a:b@h/x' and \"http://c:d@i\" here": "a 'https://****@h/x' and \"http://****@i\" here",
    "https://a:b@h,https://c:d@i": "https://****@h,https://****@i",
    "someone@somewhere://odd": "someone@somewhere://odd",
    "://a@b": "://****@b",
    "x @ https://****@h/y": "x @ https://****@h/y",
}


@pytest.mark.parametrize("text", CASES)
def test_credentials_and_queries_are_hidden(text: str) -> None:
    assert mask_urls(text) == CASES[text]
    assert shim.mask_urls(text) == CASES[text]


@given(st.text("ahtps+gi:/@?#'\" .1&=", max_size=60))
def test_both_copies_hide_the_same_and_nothing_more_the_second_time(text: str) -> None:
    assert shim.mask_urls(text) == mask_urls(text)
    assert mask_urls(mask_urls(text)) == mask_urls(text)


@given(st.text("ab@/?#:%", min_size=1), st.text("ab@/?#%", min_size=1))
def test_no_password_is_shown_however_it_is_written(name: str, password: str) -> None:
    shown = mask_urls(f"https://{name}:{password}SECRET@host/path")
    assert "SECRET" not in shown


def test_a_long_line_takes_no_longer_than_it_must() -> None:
    line = "a://" * 250_000 + "https" * 100_000
    assert mask_urls(line) == line


@pytest.mark.parametrize(
    ("url", "unclear"),
    [
        ("https://host/path@ref", False),
        ("https://host:80/path@ref", False),
        ("https://user:pass@host/path@ref", False),
        ("https://user:p%40ss@host/path", False),
        ("ssh://git@host:org/repo", False),
        ("https://user:p@ss@host/path", True),
        ("https://user:p/ss@host/path", True),
        ("https://user:p?ss@host/path", True),
    ],
)
def test_unclear_credentials(url: str, unclear: bool) -> None:
    assert has_unclear_credentials(url) is unclear
