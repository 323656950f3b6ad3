"""From a JSON schema and the values that are there to the fields of a form. Pure.

Schemas are draft 2020-12 as Prefect's base job templates and parameter schemas write it. `templates/fields.html` shows the fields, and
`static/forms.js` makes the values of them again: what no simple control could give back just as it was stands in a field for JSON.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any, Final, Literal

from managedd.ui import written
from managedd.ui.controls import Choice, Control, Controls, Kind

MAX_DEPTH: Final = 4
"""Objects that stand in each other; deeper ones are JSON."""
MAX_FIELDS: Final = 300
"""Of one form; an object whose members have no room any more is JSON."""
MAX_HELP: Final = 2_000
MASKED: Final = "**********"
"""How pydantic writes a secret into a schema."""

Empty = Literal["", "null", "text", "list", "object"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One value of a form."""

    kind: Kind
    pointer: str
    """Where the value is in what the form sends: a JSON pointer."""
    name: str
    """What messages call it: `memory_limit`, `config.retries`."""
    label: str
    help: str = ""
    value: str = ""
    """As it stands in the control."""
    hint: str = ""
    """As it would stand there, were it the value that counts when nothing is given."""
    empty: Empty = ""
    """What an empty control means: null, an empty text, list or object, or by default that the value is left out."""
    required: bool = False
    minimum: float | None = None
    maximum: float | None = None
    many_lines: bool = False
    scalars: tuple[str, ...] = ()
    choices: tuple[Choice, ...] = ()
    none: str = ""
    """The label of the choice that is no value; empty: there is no such choice."""
    is_removable: bool = False
    """Whether somebody may say that there shall be no value, where an empty field says that it stays as it is."""
    fields: tuple[Field, ...] = ()
    is_optional: bool = False
    """A group that need not be given: then `empty` counts."""
    is_given: bool = True

    @property
    def id(self) -> str:
        """The control's id in its page: pointers differ, and so do these."""
        return "field" + "".join(
            letter if (letter.isascii() and letter.isalnum()) or letter in "/_-" else f".{ord(letter):x}."
            for letter in self.pointer
        ).replace("/", ":")


class _Absent(Enum):
    """Stands for a value that is not there."""

    ABSENT = auto()


_ABSENT = _Absent.ABSENT


def fields_of(
    schema: Any, values: Mapping[str, Any] | None = None, *, at: str = "", is_override: bool = False
) -> tuple[Field, ...]:
    """A field for each property of an object's schema, with the value that `values` has for it, or else its default.

    `at` is the JSON pointer of the object in what is sent. With `is_override` the defaults stand beside the fields and nothing is
    required: what is left empty is left out, and counts as it did. Values that no property is for come together at the end.
    """
    given = {} if values is None else values
    reader = _Reader(schema, is_override=is_override)
    found = reader.members(schema, given, at, "", 0)
    if found is None:
        shown = _json_field(at or "/", "", "Values", given or _ABSENT)
        return (replace(shown, help="An object, as JSON."),)
    known = _mapping(schema["properties"])
    others = {name: value for name, value in given.items() if name not in known}
    if others:
        label = "Further values" if known else "Values"
        found += (replace(_json_field(at or "/", "", label, others), help="An object, as JSON.", empty="object"),)
    return found


def template_fields(template: Any, *, at: str = "/base_job_template") -> tuple[Field, ...]:
    """A field for the default of each variable of a base job template; one left empty has no default.

    None at all where there are too many.
    """
    schema = _mapping(_mapping(template).get("variables"))
    defaults = {
        name: part["default"]
        for name, part in _mapping(schema.get("properties")).items()
        if isinstance(part, Mapping) and "default" in part
    }
    reader = _Reader(schema, is_override=True, may_group=False, has_hints=False)
    found = reader.members(schema, defaults, f"{at}/variables/properties", "", 0, suffix="/default") or ()
    return found


def without_defaults(template: Mapping[str, Any]) -> dict[str, Any]:
    """The template without what `template_fields` shows: the fields' values are put into this one."""
    variables = _mapping(template.get("variables"))
    properties = {
        name: {key: value for key, value in part.items() if key != "default"} if isinstance(part, Mapping) else part
        for name, part in _mapping(variables.get("properties")).items()
    }
    if not properties or len(properties) > MAX_FIELDS:
        return dict(template)
    return {**template, "variables": {**variables, "properties": properties}}


class _Reader:
    """One look through a schema."""

    def __init__(self, root: Any, *, is_override: bool, may_group: bool = True, has_hints: bool = True) -> None:
        self._controls = Controls(root)
        self._is_override = is_override
        self._may_group = may_group
        self._has_hints = is_override and has_hints
        self._left = MAX_FIELDS

    def members(
        self, schema: Any, given: Mapping[str, Any], at: str, path: str, depth: int, *, suffix: str = ""
    ) -> tuple[Field, ...] | None:
        """A field for each property; None where that is not possible."""
        properties = schema.get("properties") if isinstance(schema, Mapping) else None
        if not isinstance(properties, Mapping) or len(properties) > self._left:
            return None
        self._left -= len(properties)
        required = schema.get("required")
        needed = required if isinstance(required, list) and not self._is_override else []
        parts = [(str(name), self._controls.resolved(part)) for name, part in properties.items()]
        ordered = sorted(enumerate(parts), key=lambda each: _position(each[1][1], each[0]))
        return tuple(
            self._field(
                part,
                given.get(name, _ABSENT),
                pointer=f"{at}/{_escaped(name)}{suffix}",
                path=f"{path}{name}",
                name=name,
                required=name in needed,
                depth=depth,
            )
            for _, (name, part) in ordered
        )

    def _field(
        self, part: Mapping[str, Any], given: Any, *, pointer: str, path: str, name: str, required: bool, depth: int
    ) -> Field:
        nullable, control = self._controls.control_of(part)
        present = part.get("default", _ABSENT) if given is _ABSENT and not self._is_override else given
        if control.kind is Kind.MOMENT and written.local(present) is not None:
            control = replace(control, kind=Kind.LOCAL, help="Without a time zone.")
        if control.kind is Kind.SECRET and present == MASKED and not self._is_override:
            # What stands for a default that nobody may read: the flow knows it, when nothing is sent.
            control, present = replace(control, help="When empty, what the flow has by default."), _ABSENT
        label = part.get("title")
        description = part.get("description")
        field = Field(
            kind=control.kind,
            pointer=pointer,
            name=path,
            label=label if isinstance(label, str) and label.strip() else name,
            help=_help(description, control.help),
            minimum=control.minimum,
            maximum=control.maximum,
            many_lines=control.many_lines,
            scalars=control.scalars,
            choices=control.choices,
        )
        if self._has_hints and control.kind is not Kind.SECRET and part.get("default") is not None:
            text = _written(control, part["default"])
            field = replace(field, hint=written.as_json(part["default"]) if text is None else text)
        if control.kind is Kind.GROUP:
            grouped = self._group(
                field, control, present, nullable=nullable, required=required and not nullable, path=path, depth=depth
            )
            if grouped is not None:
                return grouped
            members = ", ".join(map(str, list(_mapping(_mapping(control.part).get("properties")))[:20]))
            field = replace(field, help=_help(description, f"An object, as JSON: {members}."))
            control = Control(kind=Kind.JSON)
        return self._with_value(field, control, present, nullable=nullable, required=required)

    def _group(
        self, field: Field, control: Control, present: Any, *, nullable: bool, required: bool, path: str, depth: int
    ) -> Field | None:
        """Its members as fields of their own, unless that would make an object of what is none, or lose what it has besides."""
        schema = _mapping(control.part)
        is_given = isinstance(present, Mapping) or (present is _ABSENT and required)
        may_lack = not self._is_override and (present is _ABSENT or (present is None and nullable))
        if not self._may_group or depth >= MAX_DEPTH or not (is_given or may_lack):
            return None
        values = _mapping(present)
        if values.keys() - _mapping(schema.get("properties")).keys():
            return None
        fields = self.members(schema, values, field.pointer, f"{path}.", depth + 1)
        if fields is None:
            return None
        is_optional = not is_given or (nullable and not self._is_override)
        return replace(
            field, fields=fields, is_optional=is_optional, is_given=is_given, empty="null" if nullable else ""
        )

    def _with_value(self, field: Field, control: Control, present: Any, *, nullable: bool, required: bool) -> Field:
        is_nothing = present is _ABSENT or (present is None and nullable)
        text = "" if is_nothing else _written(control, present)
        if text is None or control.kind is Kind.JSON:
            field = replace(field, kind=Kind.JSON, minimum=None, maximum=None, choices=(), scalars=())
            text = "" if is_nothing else written.as_json(present, indent=2)
        kind = field.kind
        if kind is Kind.BOOLEAN and (is_nothing or nullable or self._is_override):
            kind, field = Kind.CHOICE, replace(field, kind=Kind.CHOICE, choices=_YES_NO)
        has_many_lines = field.many_lines or (kind is Kind.TEXT and "\n" in text)
        field = replace(field, value=text, many_lines=has_many_lines)
        field = replace(field, empty=self._empty(kind, present, nullable=nullable, required=required))
        is_needed = required and field.empty == "" and kind is not Kind.BOOLEAN
        field = replace(field, required=is_needed)
        if kind is Kind.CHOICE and (is_nothing or nullable or self._is_override):
            field = replace(field, none="None" if field.empty == "null" else "Choose" if is_needed else "–")
        return field

    def _empty(self, kind: Kind, present: Any, *, nullable: bool, required: bool) -> Empty:
        natural = _EMPTY.get(kind, "")
        if present is None and nullable:
            return "null"
        if present in ("", [], {}) and kind in _EMPTY:
            return natural
        if self._is_override:
            return ""
        if present is _ABSENT:
            if not required:
                return ""
            return "null" if nullable else natural if kind in {Kind.LINES, Kind.PAIRS} else ""
        return "null" if nullable else natural


_YES_NO: Final = (Choice(value="true", label="Yes"), Choice(value="false", label="No"))
_EMPTY: Final[Mapping[Kind, Empty]] = {
    Kind.TEXT: "text",
    Kind.SECRET: "text",
    Kind.SCALAR: "text",
    Kind.LINES: "list",
    Kind.PAIRS: "object",
}


def _position(part: Mapping[str, Any], index: int) -> tuple[float, int]:
    """Parameters stand as in the flow's own line."""
    found = written.number(part.get("position"))
    return (math.inf if found is None else found, index)


def _help(description: Any, more: str) -> str:
    said = description.strip() if isinstance(description, str) else ""
    said = said if len(said) <= MAX_HELP else said[: MAX_HELP - 1] + "…"
    return "\n".join(filter(None, (said, more)))


def _written(control: Control, value: Any) -> str | None:
    """The value as it stands in the control; None where the control would not give it back just so."""
    if control.kind is Kind.CHOICE:
        text = written.as_json(value)
        return text if any(choice.value == text for choice in control.choices) else None
    if control.kind is Kind.SCALAR:
        return written.scalar(value, control.scalars)
    write = _WRITERS.get(control.kind)
    return None if write is None else write(value)


_WRITERS: Final[Mapping[Kind, Callable[[Any], str | None]]] = {
    Kind.TEXT: written.text,
    Kind.SECRET: written.secret,
    Kind.INTEGER: written.integer,
    Kind.NUMBER: written.decimal,
    Kind.BOOLEAN: written.boolean,
    Kind.LINES: written.lines,
    Kind.PAIRS: written.pairs,
    Kind.DAY: written.day,
    Kind.MOMENT: written.moment,
    Kind.LOCAL: written.local,
}


def _json_field(pointer: str, name: str, label: str, value: Any) -> Field:
    text = "" if value is _ABSENT else written.as_json(value, indent=2)
    return Field(kind=Kind.JSON, pointer=pointer, name=name, label=label, value=text)


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
