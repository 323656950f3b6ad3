"""Parameters of runs: from what a client wrote to values, and values against the deployment's schema.

A value `{"__prefect_kind": "json" | "jinja" | "workspace_variable" | "none", …}` stands for another one; `hydrate` puts that
in its place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from managedd.errors import ErrorCode, ManagedError, conflict
from managedd.orchestration.schemas import first_error

MAX_DEPTH = 100
MAX_HYDRATED_LENGTH = 1024 * 1024
"""How much text the placeholders of one set of parameters may bring in, in characters."""
_KIND = "__prefect_kind"


@dataclass(frozen=True, slots=True, kw_only=True)
class HydrationContext:
    """What placeholders may refer to."""

    variables: Mapping[str, Any] = field(default_factory=dict)
    """The workspace's variables by name."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """The names that Jinja templates see; empty outside of automations."""


def hydrate(parameters: Mapping[str, Any], context: HydrationContext, *, what: str = "flow run") -> dict[str, Any]:
    """The parameters with every placeholder replaced; the given ones are not changed.

    A placeholder that can't be replaced is a BAD_REQUEST error; `what` is whose parameters they are ("flow run",
    "deployment").
    """
    try:
        result = _Hydration(context).value(dict(parameters), 0)
    except ManagedError as error:
        raise ManagedError(error.code, f"Error hydrating {what} parameters: {error.message}") from None
    return result if isinstance(result, dict) else {}


def check_parameters(
    parameters: Mapping[str, Any],
    schema: Any,
    *,
    ignore_required: bool = False,
    doing: str = "Error creating flow run",
    schema_checked: bool = False,
) -> None:
    """Returns when `parameters` fit the deployment's schema; else a CONFLICT error in the client's words.

    A schema that is none, or that goes in circles, is an INVALID error. `schema_checked` says that `schemas.check_schema`
    took it when it was stored; it saves most of the time.
    """
    if not isinstance(schema, Mapping):
        raise conflict(
            f"{doing}: the deployment enforces its parameter schema, and has none to check parameters against."
        )
    failure = first_error(parameters, schema, ignore_required=ignore_required, schema_checked=schema_checked)
    if failure is not None:
        raise conflict(f"{doing}: {failure}")


class _Absent:
    """Stands for "this key or element is not there"."""


_ABSENT = _Absent()


def _bad(reason: str) -> ManagedError:
    return ManagedError(ErrorCode.BAD_REQUEST, reason)


class _Hydration:
    def __init__(self, context: HydrationContext) -> None:
        self._context = context
        self._left = MAX_HYDRATED_LENGTH

    def value(self, value: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise _bad(f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(value, Mapping):
            if _KIND in value:
                return self._placeholder(value, depth + 1)
            parts = ((key, self.value(part, depth + 1)) for key, part in value.items())
            return {key: part for key, part in parts if part is not _ABSENT}
        if isinstance(value, list):
            items = (self.value(part, depth + 1) for part in value)
            return [item for item in items if item is not _ABSENT]
        return value

    def _placeholder(self, value: Mapping[str, Any], depth: int) -> Any:
        match value[_KIND]:
            case "none":
                return self.value(_need(value, "value"), depth)
            case "json":
                return self._json(value, depth)
            case "jinja":
                template = self._inner(_need(value, "template"), depth)
                return template if template is _ABSENT else self._jinja(template)
            case "workspace_variable":
                # Written by forms that wait for their second half: as if the parameter were not there.
                if "variable_name" not in value:
                    return _ABSENT
                name = self._inner(value["variable_name"], depth)
                return name if name is _ABSENT else self._variable(name)
            case _:
                return value.get("value")

    def _inner(self, value: Any, depth: int) -> Any:
        """A part of a placeholder, which may be one itself."""
        return self.value(value, depth) if isinstance(value, Mapping) else value

    def _json(self, value: Mapping[str, Any], depth: int) -> Any:
        if "value" not in value:
            return _ABSENT
        text = self._inner(value["value"], depth)
        if not isinstance(text, str):
            return text
        try:
            return json.loads(text, parse_constant=_no_constant)
        except ValueError as error:
            raise _bad(f"Invalid JSON: {error}") from None
        except RecursionError:
            raise _bad("Invalid JSON: nested too deeply") from None

    def _jinja(self, template: Any) -> str:
        if not isinstance(template, str):
            raise _bad("Invalid jinja: 'template' must be a text")
        # Here, because few parameters are templates, and each start would load Jinja for them.
        from managedd.orchestration import templates  # noqa: PLC0415

        text = templates.render(template, self._context.values)
        self._spend(len(text))
        return text

    def _variable(self, name: Any) -> Any:
        if not isinstance(name, str) or name not in self._context.variables:
            raise _bad(f"Variable {str(name)[:255]!r} not found in workspace.")
        value = self._context.variables[name]
        self._spend(len(json.dumps(value)))
        return value

    def _spend(self, length: int) -> None:
        self._left -= length
        if self._left < 0:
            raise _bad(f"templates and variables bring in more than {MAX_HYDRATED_LENGTH} characters")


def _need(value: Mapping[str, Any], key: str) -> Any:
    if key not in value:
        raise _bad(f"Missing '{key}' key in __prefect object")
    return value[key]


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")
