"""Filter models → SQL, from one table of operators.

Prefect has 104 filter models made of a dozen leaf operators. Each operator is one row of `OPERATORS` below: what it means on a scalar
column, and what on a list of tags. Prefect's quirks are kept, by name: an empty list in `not_any_` or `all_` and an empty `like_` mean
"no filter"; `like_` and `startswith_` do not escape `%` and `_`; an empty `any_` matches nothing; a part that asks for nothing holds for
every row, so that an `or_` with one admits all; a filter on another resource demands that there is one, also when it asks for nothing.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson

from managedd.clock import to_us
from managedd.store.tables import Clause, Column, Kind, Nested, Related, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pydantic import BaseModel


def to_param(value: Any) -> Any:
    """A Python value as SQLite keeps it."""
    if value is None or (isinstance(value, str) and not isinstance(value, Enum)):
        return value
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, datetime):
        return to_us(value)
    if isinstance(value, timedelta):
        return value // timedelta(microseconds=1)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    return value


def _list_param(values: Iterable[Any]) -> str:
    return orjson.dumps([to_param(value) for value in values]).decode()


_IN = "(SELECT value FROM json_each(?))"


def _any(column: Column, value: Any) -> Clause | None:
    if column.kind is Kind.TAGS:
        return f"EXISTS (SELECT 1 FROM json_each({column.expr}) WHERE value IN {_IN})", [_list_param(value)]
    if len(value) == 1:
        # An equality lets an index give the order too; IN would sort every row that it finds.
        one = f"(SELECT key FROM {column.keys} WHERE id = ?)" if column.keys else "?"
        return f"{column.expr} = {one}", [to_param(value[0])]
    several = f"(SELECT key FROM {column.keys} WHERE id IN {_IN})" if column.keys else _IN
    return f"{column.expr} IN {several}", [_list_param(value)]


def _not_any(column: Column, value: Any) -> Clause | None:
    if not value:
        return None
    if column.kind is Kind.TAGS:
        return f"NOT EXISTS (SELECT 1 FROM json_each({column.expr}) WHERE value IN {_IN})", [_list_param(value)]
    return f"{column.expr} NOT IN {_IN}", [_list_param(value)]


def _all(column: Column, value: Any) -> Clause | None:
    if not value:
        return None
    inner = f"SELECT value FROM json_each({column.expr})"
    return f"NOT EXISTS (SELECT 1 FROM json_each(?) WHERE value NOT IN ({inner}))", [_list_param(value)]


def _is_null(column: Column, value: Any) -> Clause | None:
    if column.kind is Kind.TAGS:
        return f"{column.expr} {'=' if value else '<>'} '[]'", []
    return f"{column.expr} IS {'' if value else 'NOT '}NULL", []


def _exists(column: Column, value: Any) -> Clause | None:
    return _is_null(column, not value)


def _like(column: Column, value: Any) -> Clause | None:
    return (f"{column.expr} LIKE ?", [f"%{value}%"]) if value else None


def _startswith(column: Column, value: Any) -> Clause | None:
    if not value:
        return None
    return " OR ".join(f"{column.expr} LIKE ?" for _ in value), [f"{prefix}%" for prefix in value]


def _compare(operator: str) -> Callable[[Column, Any], Clause | None]:
    def compare(column: Column, value: Any) -> Clause | None:
        return f"{column.expr} {operator} ?", [to_param(value)]

    return compare


OPERATORS: dict[str, Callable[[Column, Any], Clause | None]] = {
    "any_": _any,
    "not_any_": _not_any,
    "all_": _all,
    "is_null_": _is_null,
    "exists_": _exists,
    "like_": _like,
    "startswith_": _startswith,
    "before_": _compare("<="),
    "after_": _compare(">="),
    "eq_": _compare("="),
    "ne_": _compare("<>"),
    "gt_": _compare(">"),
    "ge_": _compare(">="),
    "lt_": _compare("<"),
    "le_": _compare("<="),
}
"""Operator suffix → its SQL."""


def _join(clauses: Sequence[Clause], operator: str) -> Clause | None:
    if not clauses:
        return None
    if len(clauses) == 1:
        return clauses[0]
    return f" {operator} ".join(f"({sql})" for sql, _ in clauses), [p for _, params in clauses for p in params]


def combine(clauses: Sequence[Clause | None], model: BaseModel) -> Clause | None:
    """What `clauses` say together by the operator of `model`; None among them holds for every row, and as a result."""
    given = [clause for clause in clauses if clause is not None]
    operator = _operator(model)
    if operator == "OR" and len(given) < len(clauses):
        return None
    return _join(given, operator)


def _operator(model: BaseModel) -> str:
    return "OR" if getattr(model, "operator", "and_") == "or_" else "AND"


def compile_leaf(model: BaseModel, column: Column) -> Clause | None:
    """What the operators of `model` say of `column`, or None when they say nothing."""
    clauses = []
    for name in type(model).model_fields:
        value = getattr(model, name)
        if name == "operator" or value is None:
            continue
        clause = OPERATORS[name](column, value)
        if clause is not None:
            clauses.append(clause)
    return _join(clauses, _operator(model))


def compile_nested(model: BaseModel, nested: Nested) -> Clause | None:
    """What the parts of `model` say together; those that ask for nothing are left out, also under `or_`."""
    clauses = []
    for name, column in nested.fields.items():
        value = getattr(model, name, None)
        clause = None if value is None else compile_leaf(value, column)
        if clause is not None:
            clauses.append(clause)
    return _join(clauses, _operator(model))


def compile_filter(model: BaseModel, table: Table) -> Clause | None:
    """The WHERE clause of `model` against `table`, or None when it filters nothing. Raises KeyError for an unknown field."""
    clauses = []
    for name in type(model).model_fields:
        value = getattr(model, name)
        if name == "operator" or value is None:
            continue
        binding = table.filters.get(name) or table.column(name)
        if isinstance(binding, Column):
            clauses.append(compile_leaf(value, binding))
        elif isinstance(binding, Nested):
            clauses.append(compile_nested(value, binding))
        else:
            clauses.append(binding(value))
    return combine(clauses, model)


def where(
    workspace: str,
    table: Table,
    filters: Iterable[tuple[Table, BaseModel | None]],
    relations: Mapping[str, Sequence[Related]],
    sort: str | None = None,
) -> Clause:
    """The whole WHERE of a query in `workspace`: filters on other tables become EXISTS over `relations`."""
    given = {other.name: (other, model) for other, model in filters if model is not None}
    clauses: list[Clause | None] = []
    own = given.pop(table.name)[1] if table.name in given else None
    if own is not None:
        clauses.append(compile_filter(own, table))
    led = _is_led(table, own, sort)
    for related in relations.get(table.name, ()):
        chosen = [given.pop(name) for name in related.joins if name in given]
        if chosen:
            by_key = _by_key(related, chosen)
            led = led or by_key is not None
            clauses += [by_key, _exists_related(workspace, related, chosen)]
    if given:
        raise KeyError(f"{table.name} can't be filtered by {', '.join(given)}")
    # The plus keeps SQLite from the indexes that begin with the workspace.
    scope = f"{'+' if led else ''}{table.scope}", [workspace]
    joined = _join([scope, *(clause for clause in clauses if clause is not None)], "AND")
    assert joined is not None
    return joined


def _is_led(table: Table, own: BaseModel | None, sort: str | None) -> bool:
    if own is not None and table.leads is not None and table.leads(own):
        return True
    return sort in table.own_orders and not any(getattr(own, name, None) is not None for name in table.windows)


def names_any(model: BaseModel, *fields: str) -> bool:
    """Whether every row that the filter admits has one of the values that it lists for one of `fields`."""
    parts = [getattr(model, name) for name in fields] if _operator(model) == "AND" else []
    return any(part is not None and part.any_ is not None and _operator(part) == "AND" for part in parts)


def _exists_related(workspace: str, related: Related, chosen: Sequence[tuple[Table, BaseModel]]) -> Clause:
    joins: list[str] = []
    terms = [related.on]
    params: list[Any] = []
    for other, model in chosen:
        joins.append(related.joins[other.name])
        terms.append(f"+{other.name}.workspace_id = ?")
        params.append(workspace)
        clause = compile_filter(model, other)
        if clause is not None:
            terms.append(f"({clause[0]})")
            params += clause[1]
    return f"EXISTS (SELECT 1 FROM {related.base} {' '.join(joins)} WHERE {' AND '.join(terms)})", params


def _by_key(related: Related, chosen: Sequence[tuple[Table, BaseModel]]) -> Clause | None:
    """What EXISTS implies anyway, said so that an index of the queried table can be used: its key is one of the wanted ids."""
    if related.key is None:
        return None
    for other, model in chosen:
        wanted = getattr(getattr(model, "id", None), "any_", None)
        if other.name == related.base and wanted is not None and _operator(model) == "AND":
            return _any(Column(name="key", kind=Kind.ID, expr=related.key), wanted)
    return None
