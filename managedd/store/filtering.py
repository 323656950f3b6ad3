"""Filter models → SQL, from one table of operators.

Prefect has 104 filter models made of a dozen leaf operators. Each operator is one row of `OPERATORS` below: what it means on a scalar
column, and what on a list of tags. Prefect's quirks are kept, by name: an empty list in `not_any_` or `all_` and an empty `like_` mean
"no filter"; `like_` does not escape `%` and `_`; an empty `any_` matches nothing.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson

from managedd.clock import to_us
from managedd.store.tables import Clause, Column, Kind, Nested, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

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
        return f"{column.expr} = ?", [to_param(value[0])]
    return f"{column.expr} IN {_IN}", [_list_param(value)]


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
    return " OR ".join(f"substr({column.expr}, 1, length(?)) = ?" for _ in value), [p for v in value for p in (v, v)]


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


def _operator(model: BaseModel) -> str:
    operator = to_param(getattr(model, "operator", "and_"))
    return "OR" if operator == "or_" else "AND"


def _leaf(model: BaseModel, column: Column) -> Clause | None:
    clauses = []
    for name in type(model).model_fields:
        value = getattr(model, name)
        if name == "operator" or value is None:
            continue
        clause = OPERATORS[name](column, value)
        if clause is not None:
            clauses.append(clause)
    return _join(clauses, _operator(model))


def _nested(model: BaseModel, nested: Nested) -> Clause | None:
    clauses = []
    for name, column in nested.fields.items():
        value = getattr(model, name, None)
        clause = None if value is None else _leaf(value, column)
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
            clause = _leaf(value, binding)
        elif isinstance(binding, Nested):
            clause = _nested(value, binding)
        else:
            clause = binding(value)
        if clause is not None:
            clauses.append(clause)
    return _join(clauses, _operator(model))


Relations = dict[tuple[str, str], str]
"""(queried table, filtered table) → `FROM … WHERE <the join condition>`."""


def where(
    workspace: str, table: Table, filters: Iterable[tuple[Table, BaseModel | None]], relations: Relations
) -> Clause:
    """The whole WHERE of a query in `workspace`: filters on other tables become EXISTS over `relations`."""
    clauses: list[Clause] = [(f"{table.name}.workspace_id = ?", [workspace])]
    for other, model in filters:
        clause = None if model is None else compile_filter(model, other)
        if clause is None:
            continue
        sql, params = clause
        if other.name == table.name:
            clauses.append(clause)
        else:
            source = relations[(table.name, other.name)]
            clauses.append(
                (f"EXISTS (SELECT 1 {source} AND {other.name}.workspace_id = ? AND ({sql}))", [workspace, *params])
            )
    joined = _join(clauses, "AND")
    assert joined is not None
    return joined
