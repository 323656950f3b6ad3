"""The leaves that all filters are made of: one class for each set of operators.

`any_` takes what is in the list and `not_any_` what isn't; `all_` demands every tag; `is_null_` and `exists_` ask whether there is a value;
`like_` finds a part of a text, whatever its case; `before_` and `after_` include the moment itself.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field

from managedd.wire.base import Body, Id, Int, Timestamp, at_most

MAX_VALUES = 10_000
"""The most values that one list of a filter may hold."""
MAX_PATTERN_CHARS = 5_000
"""The longest `like_`: SQLite refuses patterns of more than 50,000 bytes."""

MAX_CONDITIONS = 500
"""The most patterns, prefixes and pairs of one filter, wherever they stand in it: each becomes a condition of one query."""
MAX_ALTERNATIVES = 100
"""The most values that become a condition each: SQLite's expressions nest 1,000 deep."""

Ids = Annotated[list[Id], AfterValidator(at_most(MAX_VALUES, "ids"))]
Texts = Annotated[list[str], AfterValidator(at_most(MAX_VALUES, "values"))]
Prefixes = Annotated[list[str], AfterValidator(at_most(MAX_ALTERNATIVES, "prefixes"))]
Pattern = Annotated[str, AfterValidator(at_most(MAX_PATTERN_CHARS, "characters"))]


class Operator(StrEnum):
    """How the parts of a filter are joined."""

    AND = "and_"
    OR = "or_"


class Filter(Body):
    """A filter whose parts all have to hold."""


class OperatorFilter(Filter):
    """A filter that says itself how its parts are joined."""

    operator: Operator = Operator.AND


class IdAny(Filter):
    """Ids to take."""

    any_: Ids | None = None


class IdAnyNotAny(Filter):
    """Ids to take and to leave out."""

    any_: Ids | None = None
    not_any_: Ids | None = None


class IdAnyOrNull(OperatorFilter):
    """Ids to take, or whether there is none."""

    any_: Ids | None = None
    is_null_: bool | None = None


class IdAnyNull(Filter):
    """Ids to take, or whether there is none; without an operator of its own."""

    any_: Ids | None = None
    is_null_: bool | None = None


class TextAny(Filter):
    """Texts to take."""

    any_: Texts | None = None


class TextAnyNotAny(Filter):
    """Texts to take and to leave out."""

    any_: Texts | None = None
    not_any_: Texts | None = None


class TextAnyOrNull(OperatorFilter):
    """Texts to take, or whether there is none."""

    any_: Texts | None = None
    is_null_: bool | None = None


class TextAnyLike(Filter):
    """Texts to take, or a part of them."""

    any_: Texts | None = None
    like_: Pattern | None = None


class TextLike(Filter):
    """A part of the text."""

    like_: Pattern | None = None


class KeyAnyLikeExists(Filter):
    """Keys to take, a part of them, or whether there is one."""

    any_: Texts | None = None
    like_: Pattern | None = None
    exists_: bool | None = None


class Tagged(OperatorFilter):
    """Tags that are all there, or whether there are none."""

    all_: Texts | None = None
    is_null_: bool | None = None


class TaggedAny(OperatorFilter):
    """Tags of which all, or any, are there, or whether there are none."""

    all_: Texts | None = None
    any_: Texts | None = None
    is_null_: bool | None = None


class TimeRange(Filter):
    """A time before or after."""

    before_: Timestamp | None = None
    after_: Timestamp | None = None


class TimeRangeOrNull(Filter):
    """A time before or after, or whether there is none."""

    before_: Timestamp | None = None
    after_: Timestamp | None = None
    is_null_: bool | None = None


class NumberRange(Filter):
    """A number between two, both included."""

    ge_: Int | None = None
    le_: Int | None = None


class Flag(Filter):
    """Whether it is so."""

    eq_: bool | None = None


class TextSearch(Filter):
    """Words to find, each with `-` or `!` before it to leave out, or `+` to demand."""

    query: Annotated[str, Field(max_length=200)]
