"""Prefect's search language as SQL: words of which one must be there, `+` to demand, `-` or `!` to leave out, "…" for phrases."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from managedd.store.tables import Clause

_TERM = re.compile(r'(?P<sign>[-!+]?)(?:"(?P<phrase>(?:\\.|[^"\\])*\\?)(?:"|$)|(?P<word>[^\s"]+))', re.DOTALL)
_ESCAPED = re.compile(r'\\(["\\])')


@dataclass(frozen=True, slots=True)
class Search:
    """A parsed query."""

    any_of: tuple[str, ...]
    none_of: tuple[str, ...]
    all_of: tuple[str, ...]


def parse(query: str) -> Search:
    """The terms of `query`; a sign before white space is nothing, an unclosed quote ends with the query."""
    any_of: list[str] = []
    none_of: list[str] = []
    all_of: list[str] = []
    lists = {"": any_of, "+": all_of, "-": none_of, "!": none_of}
    at = 0
    while at < len(query):
        if query[at].isspace() or (query[at] in "-!+" and query[at + 1 : at + 2].strip() == ""):
            at += 1
            continue
        found = _TERM.match(query, at)
        if found is None:
            at += 1
            continue
        phrase, word = found["phrase"], found["word"]
        term = _ESCAPED.sub(r"\1", phrase) if phrase is not None else word
        if term.strip():
            lists[found["sign"]].append(term)
        at = found.end()
    return Search(tuple(any_of), tuple(none_of), tuple(all_of))


def clause(expression: str, query: str) -> Clause | None:
    """The condition that the text of `expression` fits `query`, whatever its case (of ASCII letters); None when it asks for nothing."""
    search = parse(query)
    has = f"{expression} LIKE ? ESCAPE '\\'"
    terms: list[str] = []
    params: list[str] = []
    if search.any_of:
        terms.append("(" + " OR ".join(has for _ in search.any_of) + ")")
        params.extend(map(_pattern, search.any_of))
    for term in search.all_of:
        terms.append(has)
        params.append(_pattern(term))
    for term in search.none_of:
        terms.append(f"NOT ({has})")
        params.append(_pattern(term))
    return (" AND ".join(terms), [*params]) if terms else None


def contains(expression: str, text: str) -> Clause:
    """The condition that the text of `expression` has `text` in it as it is, whatever its case (of ASCII letters)."""
    return f"{expression} LIKE ? ESCAPE '\\'", [_pattern(text)]


def _pattern(term: str) -> str:
    return "%" + term.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
