"""What every wire model is made of: two base classes and the annotated types that bound what comes in.

The OpenAPI schema of each type is Prefect's; bounds that Prefect doesn't state (64-bit integers, nesting, sizes) are checked by validators
that leave no mark in the schema, so that what a database or an encoder would choke on is answered with 422.
"""

from __future__ import annotations

from collections.abc import Callable, Sized
from datetime import UTC, datetime
from random import Random
from typing import Annotated, Any, TypeVar

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StrictBool,
    StrictFloat,
    StrictInt,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

from managedd.model.naming import run_name

DEFAULT_LIMIT = 200
"""Rows in a page when the client names no limit, and the most it may name."""
MAX_PARAMETERS_BYTES = 512 * 1024
MAX_LABELS_BYTES = 64 * 1024
MAX_TEMPLATE_BYTES = 1024 * 1024
MAX_NAME_CHARS = 1_000
MAX_TAGS = 1_000
MAX_TAG_CHARS = 1_000
MAX_NESTING = 200
"""How deep JSON may nest: orjson writes 254 levels, and a stored value is written inside others."""
NAME_PATTERN = r"^[^/%&><]+$"
"""Names stand in URLs, so Prefect bans these characters."""

_INT64_MAX = 2**63 - 1
_SHELL = 254 - MAX_NESTING

Items = TypeVar("Items", bound=Sized)


class Model(BaseModel):
    """Prefect's shape of a thing: keys that it doesn't know are ignored."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, ser_json_timedelta="float", defer_build=True)


class Body(Model):
    """What a client sends to create or change a thing: keys that it doesn't know are refused, as Prefect refuses them."""

    model_config = ConfigDict(extra="forbid")


class _CanonicalUuid:
    """Validates as pydantic's UUID does and yields the spelling that the store keeps."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            str, core_schema.uuid_schema(), serialization=core_schema.simple_ser_schema("str")
        )


class NullUnsaid:
    """Marks `T | None` where null is taken and the document, as Prefect's own, does not say so."""

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> Any:
        made = handler(schema)
        return next((part for part in made.get("anyOf", ()) if part != {"type": "null"}), made)


def utc_now() -> datetime:
    """The present moment, for fields whose default it is."""
    return datetime.now(UTC)


def _as_utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("the time lies outside the years 1 to 9999") from None


def _in_int64(number: int) -> int:
    if not -_INT64_MAX - 1 <= number <= _INT64_MAX:
        raise ValueError("the number does not fit 64 bits")
    return number


def at_most(count: int, what: str) -> Callable[[Items], Items]:
    """A validator that refuses more than `count` members (of a list) or characters (of a string)."""

    def bounded(items: Items) -> Items:
        if len(items) > count:
            raise ValueError(f"at most {count:,} {what} are allowed, not {len(items):,}")
        return items

    return bounded


def json_size_bytes(value: Any) -> int:
    """The size of `value` as compact JSON; raises ValueError when it can't be written, or nests too deep."""
    shell = value
    for _ in range(_SHELL):
        shell = [shell]
    try:
        return len(orjson.dumps(shell)) - 2 * _SHELL
    except orjson.JSONEncodeError as error:
        raise ValueError(f"the value is no JSON that can be kept: {error}") from None


def _writable(value: Any) -> Any:
    json_size_bytes(value)
    return value


def _within(most_bytes: int, what: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A validator that refuses more JSON than that."""

    def bounded(value: dict[str, Any]) -> dict[str, Any]:
        size_bytes = json_size_bytes(value)
        if size_bytes > most_bytes:
            raise ValueError(f"{what} must be at most {most_bytes:,} bytes of JSON, not {size_bytes:,}")
        return value

    return bounded


def _tags(tags: list[str]) -> list[str]:
    if len(tags) > MAX_TAGS:
        raise ValueError(f"at most {MAX_TAGS:,} tags are allowed, not {len(tags):,}")
    if any(len(tag) > MAX_TAG_CHARS for tag in tags):
        raise ValueError(f"a tag may have at most {MAX_TAG_CHARS:,} characters")
    return tags


def addressable(name: str) -> str:
    """`name`, unless a URL can't hold it in its path."""
    if name in {".", ".."}:
        raise ValueError(
            f"{name!r} can't be a name here: it stands in URLs, where clients take it for a place in the path, so nothing of that name could be reached"
        )
    return name


def _page_limit(limit: int | None) -> int:
    if limit is None:
        return DEFAULT_LIMIT
    if limit < 0:
        raise ValueError("Invalid limit: must be greater than or equal to 0.")
    if limit > DEFAULT_LIMIT:
        raise ValueError(f"Invalid limit: must be less than or equal to {DEFAULT_LIMIT}.")
    return limit


def _page(page: int) -> int:
    if page > _INT64_MAX // DEFAULT_LIMIT:
        raise ValueError("there is no such page: the rows before it do not fit 64 bits")
    return page


def new_run_name() -> str:
    """A name for a run that came without one."""
    return run_name(Random())


def named(name: Any) -> Any:
    """`name`, or one that is made up when there is none."""
    return name or new_run_name()


def _no_labels(labels: Any) -> Any:
    return {} if labels is None else labels


Id = Annotated[str, _CanonicalUuid()]
"""A UUID in any of its spellings, as the lower-case, dashed string."""
Timestamp = Annotated[datetime, AfterValidator(_as_utc)]
"""An aware datetime in UTC; a naive one is taken as UTC."""
Int = Annotated[int, AfterValidator(_in_int64)]
NonNegative = Annotated[int, Field(ge=0), AfterValidator(_in_int64)]
Positive = Annotated[int, Field(gt=0), AfterValidator(_in_int64)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Json = Annotated[Any, AfterValidator(_writable)]
"""Any JSON value that can be written again."""
JsonObject = Annotated[dict[str, Any], AfterValidator(_writable)]
Parameters = Annotated[dict[str, Any], AfterValidator(_within(MAX_PARAMETERS_BYTES, "parameters"))]
"""Parameters of a flow: a JSON object of at most 512 KiB."""
Template = Annotated[dict[str, Any], AfterValidator(_within(MAX_TEMPLATE_BYTES, "a job template"))]
"""The base job template of a work pool: a JSON object of at most 1 MiB."""
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN), AfterValidator(at_most(MAX_NAME_CHARS, "characters"))]
PathName = Annotated[Name, AfterValidator(addressable)]
"""The name of what is reached by its name alone."""
RunName = Annotated[str, BeforeValidator(named), AfterValidator(at_most(MAX_NAME_CHARS, "characters"))]
"""The name of a run; one is made up for null and the empty string."""
Tags = Annotated[list[str], AfterValidator(_tags)]
Labels = Annotated[
    dict[str, StrictBool | StrictInt | StrictFloat | str],
    BeforeValidator(_no_labels),
    AfterValidator(_within(MAX_LABELS_BYTES, "labels")),
]
KeyValueLabels = Labels | None
Limit = Annotated[
    int | None, Field(validate_default=True), AfterValidator(_page_limit), WithJsonSchema({"type": "integer"})
]
"""Rows in a page: null means 200, more than 200 is refused."""
Offset = Annotated[int, Field(ge=0), AfterValidator(_in_int64)]
Page = Annotated[int, Field(ge=1), AfterValidator(_page)]


class Row(Model):
    """A stored thing, as it is answered."""

    id: Id
    created: Timestamp | None
    updated: Timestamp | None


class Paginated(Model):
    """What every page of a paginated answer tells beside its results."""

    count: Int
    limit: Int
    pages: Int
    page: Int


class CreatedBy(Model):
    """Who created a thing."""

    id: Id | None = None
    type: str | None = None
    display_value: str | None = None


class UpdatedBy(Model):
    """Who changed a thing last."""

    id: Id | None = None
    type: str | None = None
    display_value: str | None = None
