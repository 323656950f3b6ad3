"""Generic reading and writing of resource rows. The workspace predicate is added here, so no caller can forget it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import BaseModel

from managedd import ids
from managedd.clock import iso
from managedd.errors import ManagedError, not_found
from managedd.store.filtering import to_param, where
from managedd.store.page_bytes import weighed
from managedd.store.resources import RELATIONS
from managedd.store.tables import Clause, Column, Kind, Table, sort_order

if TYPE_CHECKING:
    from managedd.store.database import Row, Tx

Wire = dict[str, Any]
"""A row as it goes over the wire: ISO times, JSON columns as unparsed fragments."""
Filters = Sequence[tuple[Table, BaseModel | None]]

DEFAULT_LIMIT = 200
"""Prefect's page size when the client names none."""


def _fragment(value: Any) -> Any:
    return None if value is None else orjson.Fragment(value)


def _loads(value: Any) -> Any:
    return None if value is None else orjson.loads(value)


_TO_WIRE: Mapping[Kind, Callable[[Any], Any] | None] = {
    Kind.ID: None,
    Kind.TEXT: None,
    Kind.INT: None,
    Kind.REAL: None,
    Kind.BOOL: lambda value: None if value is None else bool(value),
    Kind.TIME: lambda value: None if value is None else iso(value),
    Kind.DURATION: lambda value: None if value is None else value / 1_000_000,
    Kind.JSON: _fragment,
    Kind.TAGS: _fragment,
}
_TO_PYTHON: Mapping[Kind, Callable[[Any], Any] | None] = {
    Kind.BOOL: lambda value: None if value is None else bool(value),
    Kind.JSON: _loads,
    Kind.TAGS: _loads,
}


@lru_cache
def _reading(table: Table) -> tuple[str, tuple[str, ...], tuple[tuple[str, Callable[[Any], Any]], ...]]:
    """What reads the table's rows, the names of what is read, and what of it has to be translated."""
    shown = tuple(column for column in table.columns if not column.internal)
    listed = ", ".join(column.expr for column in shown)
    converters = ((column.name, _TO_WIRE[column.kind]) for column in shown)
    converted = tuple((name, convert) for name, convert in converters if convert is not None)
    return f"SELECT {listed} FROM {table.name} {table.joins}", tuple(column.name for column in shown), converted


@lru_cache
def _large(table: Table) -> tuple[int, ...]:
    """The places of what is read that can be as large as a request."""
    shown = [column for column in table.columns if not column.internal]
    return tuple(place for place, column in enumerate(shown) if column.kind in {Kind.TEXT, Kind.JSON, Kind.TAGS})


def _wires(tx: Tx, table: Table, found: Iterable[Row]) -> list[Wire]:
    _, names, converted = _reading(table)
    page = [dict(zip(names, row, strict=True)) for row in found]
    for wire in page:
        for name, convert in converted:
            wire[name] = convert(wire[name])
    if table.finish is not None and page:
        table.finish(tx, page)
    return page


def _scope(tx: Tx, table: Table, match: Mapping[str, Any]) -> Clause:
    terms = [table.scope]
    params: list[Any] = [tx.workspace]
    for name, value in match.items():
        expr = table.column(name).expr
        if value is None:
            terms.append(f"{expr} IS NULL")
        else:
            terms.append(f"{expr} = ?")
            params.append(to_param(value))
    return " AND ".join(terms), params


def by(tx: Tx, table: Table, **match: Any) -> Wire | None:
    """The first row in this workspace whose columns equal `match`, ready for the wire, or None."""
    sql, params = _scope(tx, table, match)
    row = tx.one(f"{_reading(table)[0]} WHERE {sql}", params)
    return None if row is None else _wires(tx, table, [row])[0]


def get(tx: Tx, table: Table, id_: Any) -> Wire:
    """The row with that id in this workspace. Raises ManagedError(NOT_FOUND)."""
    found = by(tx, table, id=id_)
    if found is None:
        raise not_found(table.label, id_)
    return found


def record(tx: Tx, table: Table, **match: Any) -> dict[str, Any] | None:
    """The first matching row for Python: stored and joined columns, JSON parsed, times as microseconds; or None."""
    sql, params = _scope(tx, table, match)
    listed = ", ".join(column.expr for column in table.columns)
    row = tx.one(f"SELECT {listed} FROM {table.name} {table.joins} WHERE {sql}", params)
    if row is None:
        return None
    made = {}
    for column, value in zip(table.columns, row, strict=True):
        convert = _TO_PYTHON.get(column.kind)
        made[column.name] = value if convert is None else convert(value)
    return made


def need(tx: Tx, table: Table, **match: Any) -> dict[str, Any]:
    """Like `record`. Raises ManagedError(NOT_FOUND)."""
    found = record(tx, table, **match)
    if found is None:
        raise not_found(table.label, next(iter(match.values()), ""))
    return found


def find(
    tx: Tx,
    table: Table,
    filters: Filters,
    sort: str,
    limit: int | None = None,
    offset: int = 0,
    *,
    extra: Clause | None = None,
    is_answer: bool = True,
) -> list[Wire]:
    """A sorted page of the rows that every filter admits; `extra` is one more condition.

    Raises ManagedError(TOO_LARGE) for one that is too large to be an answer.
    """
    sql, params = where(tx.workspace, table, filters, RELATIONS, sort)
    if extra is not None:
        sql, params = f"({sql}) AND ({extra[0]})", [*params, *extra[1]]
    order = sort_order(table, sort)
    query = f"{_reading(table)[0]} WHERE {sql} ORDER BY {order} LIMIT ? OFFSET ?"
    if table.joins and not table.joins_choose:
        # The page is chosen first: what is joined is read for its rows alone and never sorted.
        page = f"SELECT {table.name}.rowid FROM {table.name} WHERE {sql} ORDER BY {order} LIMIT ? OFFSET ?"
        query = f"{_reading(table)[0]} WHERE {table.name}.rowid IN ({page}) ORDER BY {order}"
    found = tx.execute(query, [*params, DEFAULT_LIMIT if limit is None else limit, offset])
    return _wires(tx, table, weighed(found, _large(table)) if is_answer else found)


def count(tx: Tx, table: Table, filters: Filters, *, extra: Clause | None = None) -> int:
    """How many rows every filter admits."""
    sql, params = where(tx.workspace, table, filters, RELATIONS)
    if extra is not None:
        sql, params = f"({sql}) AND ({extra[0]})", [*params, *extra[1]]
    joins = table.joins if table.joins_choose else ""
    total: int = tx.scalar(f"SELECT count(*) FROM {table.name} {joins} WHERE {sql}", params)
    return total


def paginate(tx: Tx, table: Table, filters: Filters, sort: str, limit: int | None, page: int) -> Wire:
    """Page `page` (from 1) of what every filter admits, with how many there are: Prefect's pagination answer."""
    size = DEFAULT_LIMIT if limit is None else limit
    total = count(tx, table, filters)
    return {
        "results": find(tx, table, filters, sort, size, (page - 1) * size),
        "count": total,
        "limit": size,
        "pages": -(-total // size) if size else 0,
        "page": page,
    }


def encode(column: Column, value: Any) -> Any:
    """`value` as `column` stores it: datetimes, durations, models and JSON are translated."""
    if column.kind in {Kind.JSON, Kind.TAGS}:
        if value is None:
            return None if column.nullable else "null"
        return orjson.dumps(value, default=_json_default, option=orjson.OPT_NON_STR_KEYS).decode()
    if column.kind is Kind.DURATION and isinstance(value, float):
        return round(value * 1_000_000)
    return to_param(value)


def _json_default(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"not JSON: {type(value).__name__}")


def _encoded(table: Table, values: Mapping[str, Any]) -> dict[str, Any]:
    stored = table.stored
    return {name: encode(stored[name], value) for name, value in values.items() if name in stored}


def new_row(tx: Tx, table: Table, values: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a row to be, as they are stored; id, created and updated are made when absent, names that are no column left out."""
    return {
        **_encoded(table, {"id": ids.new_id(), "created": tx.now, "updated": tx.now, **values}),
        "workspace_id": tx.workspace,
    }


def put(tx: Tx, table: Table, row: dict[str, Any]) -> str:
    """A row made by `new_row` exists, what is secret of it in an envelope; its id is returned.

    Raises IntegrityFault (CONFLICT) when a unique key is taken.
    """
    secret = None if table.conceal is None else table.conceal(tx, row, None)
    tx.execute(_inserting(table.name, tuple(row)), tuple(row.values()))
    if secret is not None:
        secret.keep(tx, table.name, row["id"])
    return str(row["id"])


@lru_cache(maxsize=256)
def _inserting(table: str, names: tuple[str, ...]) -> str:
    listed = ", ".join(f'"{name}"' for name in names)
    return f"INSERT INTO {table} ({listed}) VALUES ({', '.join('?' for _ in names)})"


def insert(tx: Tx, table: Table, values: Mapping[str, Any]) -> str:
    """The row exists and its id is returned; id, created and updated are made when absent.

    Names that are no stored column are left out. Raises IntegrityFault (CONFLICT) when a unique key is taken.
    """
    return put(tx, table, new_row(tx, table, values))


def patch(tx: Tx, table: Table, id_: Any, changes: Mapping[str, Any]) -> None:
    """The row has `changes` and a new `updated`. Raises ManagedError(NOT_FOUND)."""
    row = _encoded(table, {**changes, "updated": tx.now})
    secret = None if table.conceal is None else table.conceal(tx, row, to_param(id_))
    assigned = ", ".join(f'"{name}" = ?' for name in row)
    done = tx.execute(
        f"UPDATE {table.name} SET {assigned} WHERE id = ? AND workspace_id = ?",
        [*row.values(), to_param(id_), tx.workspace],
    )
    if not done.rowcount:
        raise not_found(table.label, id_)
    if secret is not None:
        secret.keep(tx, table.name, to_param(id_))


def delete(tx: Tx, table: Table, id_: Any) -> None:
    """The row is gone. Raises ManagedError(NOT_FOUND)."""
    done = tx.execute(f"DELETE FROM {table.name} WHERE id = ? AND workspace_id = ?", [to_param(id_), tx.workspace])
    if not done.rowcount:
        raise not_found(table.label, id_)


__all__ = [
    "DEFAULT_LIMIT", "Filters", "ManagedError", "Wire", "by", "count", "delete", "encode", "find", "get", "insert", "need", "new_row", "paginate", "patch",
    "put", "record",
]  # fmt: skip
