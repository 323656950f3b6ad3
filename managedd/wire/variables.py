"""Variables."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StrictBool, StrictFloat, StrictInt, StrictStr

from managedd.wire.base import Body, Row, Tags, json_size_bytes

MAX_VALUE_BYTES = 5_000


def _variable_name(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9_-]*", name):
        raise ValueError("Variable name must only contain lowercase letters, numbers, and dashes or underscores.")
    return name


def _variable_value(value: Any) -> Any:
    if json_size_bytes(value) > MAX_VALUE_BYTES:
        raise ValueError(f"Variable value must be at most {MAX_VALUE_BYTES:,} bytes of JSON")
    return value


VariableName = Annotated[str, Field(max_length=255), AfterValidator(_variable_name)]
VariableValue = Annotated[
    StrictStr | StrictInt | StrictBool | StrictFloat | dict[str, Any] | list[Any] | None,
    AfterValidator(_variable_value),
]


class VariableCreate(Body):
    """A variable to create."""

    name: VariableName
    value: VariableValue
    tags: Tags = Field(default_factory=list)


class VariableUpdate(Body):
    """What may change on a variable."""

    name: VariableName | None = None
    value: VariableValue = None
    tags: Tags | None = None


class Variable(Row):
    """A variable."""

    name: Annotated[str, Field(max_length=255)]
    value: VariableValue
    tags: Tags = Field(default_factory=list)
