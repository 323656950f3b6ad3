"""Prefect's EventFilter → SQL.

Two forms of the same condition: a query over history starts from the resources' index (`IN`), a tail walks the newest events, which are
in no index yet, and asks each whether it involves a resource (`EXISTS`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import orjson

from managedd.clock import to_us
from managedd.model.events import RESOURCE_ID, RESOURCE_ROLE
from managedd.store import text_search
from managedd.wire.filters.events import EventFilter, EventRelatedFilter

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from managedd.store.tables import Clause
    from managedd.wire.filters.events import EventAnyResourceFilter, EventNameFilter, EventResourceFilter

T = TypeVar("T")

_SEARCHED = "(events.event || ' ' || events.resource || ' ' || events.related || ' ' || events.payload)"
_INVOLVED = (
    "SELECT events.resource_id AS resource_id, '' AS role UNION ALL "
    f"SELECT json_extract(thing.value, '$.\"{RESOURCE_ID}\"'), json_extract(thing.value, '$.\"{RESOURCE_ROLE}\"') "
    "FROM json_each(events.related) AS thing"
)
"""What an event involves, from its own row: the newest are in no index yet."""
_OWN = "involved.workspace = (SELECT key FROM event_workspaces WHERE workspace_id = ?)"
_NOTHING: Clause = ("0", [])
GLOBBED_CHARS = 5_000


def compile_event_filter(filter_: EventFilter, workspace: str | None) -> Clause:
    """The condition on table `events` that `filter_` is; its `order` and `distinct` are not conditions.

    With a workspace it is one on that workspace's history, without one it is a tail's.
    """
    clauses: list[Clause] = [
        ("events.occurred BETWEEN ? AND ?", [to_us(filter_.occurred.since), to_us(filter_.occurred.until)])
    ]
    if filter_.event is not None:
        clauses.extend(_names(filter_.event))
    if filter_.resource is not None:
        clauses.extend(_primary(filter_.resource))
    for related in _listed(filter_.related):
        clauses.extend(_involved(related, workspace))
    for anything in _listed(filter_.any_resource):
        clauses.extend(_involved(anything, workspace))
    if filter_.id.id:
        clauses.append(_among("events.id", filter_.id.id))
    if filter_.text is not None and (searched := text_search.clause(_SEARCHED, filter_.text.query)) is not None:
        clauses.append(searched)
    return _all(clauses)


def _listed(value: T | list[T] | None) -> list[T]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _all(clauses: Sequence[Clause]) -> Clause:
    return _joined([sql for sql, _ in clauses], "AND") or "1", [p for _, params in clauses for p in params]


def _any(clauses: Sequence[Clause]) -> Clause:
    return _joined([sql for sql, _ in clauses], "OR") or "0", [p for _, params in clauses for p in params]


def _joined(terms: Sequence[str], word: str) -> str:
    # As a tree: in a row, each term would lie one deeper than the one before, and SQLite's expressions nest 1,000 deep.
    if len(terms) <= 2:
        return f" {word} ".join(f"({term})" for term in terms)
    half = len(terms) // 2
    return f"({_joined(terms[:half], word)}) {word} ({_joined(terms[half:], word)})"


def _among(expr: str, values: Iterable[str]) -> Clause:
    return f"{expr} IN (SELECT value FROM json_each(?))", [orjson.dumps(list(values)).decode()]


def _starts(expr: str, prefixes: Iterable[str]) -> Clause:
    return _any([(f"substr({expr}, 1, length(?)) = ?", [prefix, prefix]) for prefix in prefixes])


def _not(clause: Clause) -> Clause:
    return f"NOT ({clause[0]})", clause[1]


def _names(filter_: EventNameFilter) -> Iterable[Clause]:
    if filter_.prefix:
        yield _starts("events.event", filter_.prefix)
    if filter_.exclude_prefix:
        yield _not(_starts("events.event", filter_.exclude_prefix))
    if filter_.name:
        yield _among("events.event", filter_.name)
    if filter_.exclude_name:
        yield _not(_among("events.event", filter_.exclude_name))


def _primary(filter_: EventResourceFilter) -> Iterable[Clause]:
    if filter_.id:
        yield _among("events.resource_id", filter_.id)
    if filter_.id_prefix:
        yield _starts("events.resource_id", filter_.id_prefix)
    if filter_.labels:
        yield _labels("events.resource", filter_.labels)


def _involved(filter_: EventRelatedFilter | EventAnyResourceFilter, workspace: str | None) -> Iterable[Clause]:
    """One involved resource meets every part of `filter_`."""
    indexed: list[Clause] = []
    if filter_.id:
        indexed.append(_among("involved.resource_id", filter_.id))
    if isinstance(filter_, EventRelatedFilter):
        if filter_.role:
            indexed.append(_among("involved.role", filter_.role))
        if filter_.resources_in_roles:
            pairs = [("involved.resource_id = ? AND involved.role = ?", [*pair]) for pair in filter_.resources_in_roles]
            indexed.append(_any(pairs))
    elif filter_.id_prefix:
        indexed.append(_starts("involved.resource_id", filter_.id_prefix))
    if not indexed and not filter_.labels:
        return
    if indexed:
        if isinstance(filter_, EventRelatedFilter) and not filter_.role:
            indexed.append(("involved.role <> ''", []))
        sql, params = _all(indexed)
        if workspace is None:
            yield f"EXISTS (SELECT 1 FROM ({_INVOLVED}) AS involved WHERE {sql})", params
        else:
            own = f"SELECT involved.position FROM event_related AS involved WHERE {_OWN} AND {sql}"
            yield f"events.position IN ({own})", [workspace, *params]
    if filter_.labels:
        yield _labelled(filter_)


def _labelled(filter_: EventRelatedFilter | EventAnyResourceFilter) -> Clause:
    """One involved resource has the labels, and is also the one that the other parts ask for."""
    assert filter_.labels is not None
    related = [_labels("related.value", filter_.labels)]
    primary = [_labels("events.resource", filter_.labels)]
    if filter_.id:
        related.append(_labels("related.value", {RESOURCE_ID: filter_.id}, exact=True))
        primary.append(_among("events.resource_id", filter_.id))
    if isinstance(filter_, EventRelatedFilter):
        primary = [_NOTHING]
        if filter_.role:
            related.append(_labels("related.value", {RESOURCE_ROLE: filter_.role}, exact=True))
        if filter_.resources_in_roles:
            related.append(
                _any(
                    [
                        _labels("related.value", {RESOURCE_ID: [thing], RESOURCE_ROLE: [role]}, exact=True)
                        for thing, role in filter_.resources_in_roles
                    ]
                )
            )
    elif filter_.id_prefix:
        primary.append(_starts("events.resource_id", filter_.id_prefix))
        starts = _starts("label.value", filter_.id_prefix)
        related.append(_label("related.value", RESOURCE_ID, starts))
    sql, params = _all(related)
    among_related: Clause = (f"EXISTS (SELECT 1 FROM json_each(events.related) AS related WHERE {sql})", params)
    return _any([_all(primary), among_related])


def _labels(resource: str, wanted: dict[str, str | list[str]] | dict[str, list[str]], *, exact: bool = False) -> Clause:
    """The JSON object `resource` has every label of `wanted`, with one of its values or, unless `exact`, patterns."""
    clauses = []
    for name, value in wanted.items():
        values = _listed(value)
        if not values:
            if name != RESOURCE_ID:
                clauses.append(_NOTHING)
            continue
        fits = _among("label.value", values) if exact else _any([_pattern(pattern) for pattern in values])
        clauses.append(_label(resource, name, fits))
    return _all(clauses)


def _label(resource: str, name: str, fits: Clause) -> Clause:
    sql, params = fits
    return f"EXISTS (SELECT 1 FROM json_each({resource}) AS label WHERE label.key = ? AND ({sql}))", [name, *params]


def _pattern(pattern: str) -> Clause:
    """`*` and `?` stand for any text and any character, `!` before it for the opposite."""
    return _not(_fits(pattern[1:])) if pattern.startswith("!") else _fits(pattern)


def _fits(pattern: str) -> Clause:
    wildcards = pattern.count("*") + pattern.count("?")
    if not wildcards:
        return "label.value = ?", [pattern]
    if wildcards == 1 and pattern.endswith("*"):
        return _starts("label.value", [pattern[:-1]])
    # GLOB costs the pattern's length times the value's in one call, which nothing can interrupt: it sees the beginning of a long value only.
    return f"substr(label.value, 1, {GLOBBED_CHARS}) GLOB ?", [pattern.replace("[", "[[]")]
