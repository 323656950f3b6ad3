"""Which column is what: the one binding between SQL columns, wire fields, filters and sort orders.

A `Table` is data. `rows.py` reads and writes through it, `filtering.py` compiles filters against it; neither knows a resource.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from managedd.store.concealing import Secret
    from managedd.store.database import Tx

Clause = tuple[str, list[Any]]
"""A piece of SQL and its parameters."""


class Kind(Enum):
    """What a column holds, and so how it crosses the border."""

    ID = "id"
    TEXT = "text"
    INT = "int"
    REAL = "real"
    BOOL = "bool"
    TIME = "time"
    """Integer microseconds ↔ ISO-8601."""
    DURATION = "duration"
    """Integer microseconds ↔ seconds."""
    JSON = "json"
    TAGS = "tags"
    """A JSON list of strings; `any_`, `all_` and `is_null_` look inside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: its name is the wire's name."""

    name: str
    kind: Kind = Kind.TEXT
    expr: str
    """The SQL that reads it."""
    stored: bool = True
    """False: joined or computed; never written."""
    nullable: bool = True
    """False: a JSON null is written as `null`, not as SQL's NULL."""
    internal: bool = False
    """True: written and filtered, never sent."""
    keys: str = ""
    """The table (key, id) that has the integers by which `expr` names ids, where it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nested:
    """A filter field that holds more fields (`state.type`)."""

    fields: Mapping[str, Column]


Custom = Callable[[Any], "Clause | None"]
"""A filter field whose SQL is its own."""
Binding = Column | Nested | Custom


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """A resource: where it lives, what is sent, how it filters and sorts."""

    name: str
    label: str
    """What a person calls one row: goes into "… not found"."""
    columns: tuple[Column, ...]
    joins: str = ""
    joins_choose: bool = False
    """Whether filters or orders look at what `joins` gives, so that they are needed also to choose rows or count them."""
    filters: Mapping[str, Binding] = field(default_factory=dict)
    """Filter fields that are not simply a column of the same name."""
    sorts: Mapping[str, str] = field(default_factory=dict)
    """Sort values that are not simply COLUMN_ASC / COLUMN_DESC."""
    leads: Callable[[Any], bool] | None = None
    """Whether a filter of this table names something that leads to few rows, by an index that does not begin with the workspace.

    SQLite can't know that a workspace has very many rows and a deployment few; then it is kept from the workspace's indexes.
    """
    own_orders: frozenset[str] = frozenset()
    """Sort values whose order such an index gives."""
    windows: frozenset[str] = frozenset()
    """Filter fields that the workspace's indexes answer: they beat `own_orders`."""
    scope: str = ""
    """What is true of the rows of a workspace, whose id is the parameter."""
    finish: Callable[[Tx, list[dict[str, Any]]], None] | None = None
    """Completes a page of rows in place: what needs a second look, one query a page."""

    conceal: Callable[[Tx, dict[str, Any], str | None], Secret | None] | None = None
    """Masks what is secret in columns that are about to be stored, of a row with that id or a new one, and returns what goes into its envelope."""

    stored: Mapping[str, Column] = field(init=False)
    """What may be written, by name."""
    _by_name: Mapping[str, Column] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scope", self.scope or f"{self.name}.workspace_id = ?")
        object.__setattr__(self, "_by_name", {column.name: column for column in self.columns})
        object.__setattr__(self, "stored", {column.name: column for column in self.columns if column.stored})

    def column(self, name: str) -> Column:
        """The column called `name`. Raises KeyError."""
        return self._by_name[name]

    def has(self, name: str) -> bool:
        """Whether there is a column called `name`."""
        return name in self._by_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Related:
    """How the rows of a queried table lead to those of others, and by that filter them.

    Filters on several of `joins` have to be met together, by one row of `base`.
    """

    base: str
    """The table that is reached first."""
    on: str
    """How it hangs on the queried table."""
    joins: Mapping[str, str]
    """Table that may be filtered → the JOIN that leads to it from `base`, which needs none."""
    key: str | None = None
    """The column of the queried table that holds the id of `base`, where there is one."""


def columns(table: str, spec: str) -> tuple[Column, ...]:
    """Columns from a compact text: `name:kind` separated by white space; `!` not null, `-` internal, kind defaults to text."""
    made = []
    for word in spec.split():
        name, _, kind = word.partition(":")
        nullable, internal = "!" not in kind, "-" in kind
        made.append(
            Column(
                name=name,
                kind=Kind(kind.strip("!-") or "text"),
                expr=f'{table}."{name}"',
                nullable=nullable,
                internal=internal,
            )
        )
    return tuple(made)


def joined(name: str, expr: str, kind: Kind = Kind.TEXT) -> Column:
    """A column that another table gives, or that is computed."""
    return Column(name=name, kind=kind, expr=expr, stored=False)


BASE = "id:id created:time updated:time "


def sort_order(table: Table, sort: str) -> str:
    """The ORDER BY terms of a Prefect sort value such as `START_TIME_DESC`; ties are in the order in which the rows were made.

    Every index ends with the rowid, so that an index on the column gives the whole order.
    """
    if sort in table.sorts:
        return table.sorts[sort]
    name, _, direction = sort.rpartition("_")
    if direction not in {"ASC", "DESC"}:
        raise KeyError(sort)
    return f"{table.column(name.lower()).expr} {direction}, {table.name}.rowid {direction}"


def exists(sql: str, params: Sequence[Any] = ()) -> Clause:
    """An EXISTS clause."""
    return f"EXISTS ({sql})", list(params)
