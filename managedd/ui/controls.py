"""Which control does for a schema: draft 2020-12, as Prefect's base job templates and parameter schemas write it. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any, Final

from managedd.ui import written

MAX_CHOICES: Final = 300
_MAX_STEPS: Final = 32
_MAX_ALTERNATIVES: Final = 20
_SCALARS: Final = frozenset({"string", "integer", "number", "boolean"})
_MANY_LINES: Final = frozenset({"multiline", "textarea", "markdown", "json-string"})
_ANNOTATIONS: Final = ("title", "description", "default", "position", "writeOnly")


class Kind(StrEnum):
    """The control of a field."""

    TEXT = auto()
    SECRET = auto()
    INTEGER = auto()
    NUMBER = auto()
    BOOLEAN = auto()
    CHOICE = auto()
    LINES = auto()
    """A list of texts, one in each line."""
    PAIRS = auto()
    """An object of texts: `NAME=VALUE` in each line."""
    DAY = auto()
    MOMENT = auto()
    LOCAL = auto()
    """A date and a time of no zone."""
    SCALAR = auto()
    """A text, or what `scalars` names where it reads so; a text that would is in quotation marks."""
    JSON = auto()
    GROUP = auto()
    """An object whose members are `fields`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One of a field's choices; `value` is JSON."""

    value: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """What would do for a schema, before anybody looks at the value."""

    kind: Kind
    minimum: float | None = None
    maximum: float | None = None
    many_lines: bool = False
    scalars: tuple[str, ...] = ()
    choices: tuple[Choice, ...] = ()
    help: str = ""
    part: Mapping[str, Any] | None = None


class Controls:
    """Reads the parts of one schema."""

    def __init__(self, root: Any) -> None:
        self._root = root

    # What a schema asks for

    def control_of(self, part: Mapping[str, Any]) -> tuple[bool, Control]:
        """Whether null is allowed, and what would do for everything else."""
        alternatives = self._alternatives(part)
        if alternatives is None:
            return False, Control(kind=Kind.JSON)
        others = [each for each in alternatives if not _is_null(each)]
        nullable = len(others) < len(alternatives)
        if len(others) == 1:
            own_null, control = self._single(others[0])
            return nullable or own_null, control
        types = [each.get("type") for each in others]
        if others and all(isinstance(each, str) and each in _SCALARS for each in types):
            if not any("enum" in each or "const" in each or _is_secret(each) for each in others):
                return nullable, _of_scalars(tuple(dict.fromkeys(str(each) for each in types)), others)
        names = dict.fromkeys(str(each.get("title") or each.get("type") or "") for each in others[:8])
        said = f"As JSON: {' or '.join(names)}." if all(names) and names else ""
        return nullable, Control(kind=Kind.JSON, help=said)

    def _alternatives(self, part: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
        """What a value may be, one of these; None: too much to say."""
        for word in ("anyOf", "oneOf"):
            listed = part.get(word)
            if not isinstance(listed, list) or not listed:
                continue
            if len(listed) > _MAX_ALTERNATIVES:
                return None
            found: list[Mapping[str, Any]] = []
            for each in listed:
                resolved = self.resolved(each)
                if "anyOf" in resolved or "oneOf" in resolved:
                    return None
                found += _by_type(resolved)
            return [{**each, "writeOnly": True} for each in found] if _is_secret(part) else found
        return _by_type(part)

    def _single(self, part: Mapping[str, Any]) -> tuple[bool, Control]:
        chosen = _choices(part)
        if chosen is not None:
            return chosen
        match part.get("type"):
            case "string":
                return False, _of_text(part)
            case "integer" | "number" as kind:
                low, high = _bounds(part, whole=kind == "integer")
                return False, Control(kind=Kind(kind), minimum=low, maximum=high)
            case "boolean":
                return False, Control(kind=Kind.BOOLEAN)
            case "array":
                return False, self._of_list(part)
            case "object":
                return False, self._of_object(part)
            case None if isinstance(part.get("properties"), Mapping):
                return False, self._of_object(part)
            case _:
                return False, Control(kind=Kind.JSON)

    def _of_list(self, part: Mapping[str, Any]) -> Control:
        items = self.resolved(part.get("items"))
        if items.get("type") != "string" or _is_secret(items) or isinstance(part.get("prefixItems"), list):
            return Control(kind=Kind.JSON, help="A list, as JSON.")
        allowed = items.get("enum")
        listed = ", ".join(map(str, allowed[:30])) if isinstance(allowed, list) else ""
        return Control(kind=Kind.LINES, help=f"One per line: {listed}." if listed else "One per line.")

    def _of_object(self, part: Mapping[str, Any]) -> Control:
        if "block_type_slug" in part:
            return Control(
                kind=Kind.JSON, help='A reference to a block, as JSON: {"$ref": "the block document\'s id"}.'
            )
        if isinstance(part.get("properties"), Mapping) and part["properties"]:
            return Control(kind=Kind.GROUP, part=part)
        inner = part.get("additionalProperties")
        alternatives = self._alternatives(self.resolved(inner)) if isinstance(inner, Mapping) else None
        texts = [each for each in alternatives or () if not _is_null(each)]
        if len(texts) == 1 and texts[0].get("type") == "string" and not _is_secret(texts[0]):
            return Control(kind=Kind.PAIRS, help="One per line: NAME=VALUE.")
        return Control(kind=Kind.JSON, help="An object, as JSON.")

    def resolved(self, part: Any) -> Mapping[str, Any]:
        """The schema with its reference followed; what is said beside the reference counts more."""
        found: dict[str, Any] = dict(_mapping(part))
        for _ in range(_MAX_STEPS):
            listed = found.get("allOf")
            if isinstance(listed, list) and len(listed) == 1 and "$ref" not in found:
                inner, word = _mapping(listed[0]), "allOf"
            elif isinstance(found.get("$ref"), str):
                inner, word = self._referred(found["$ref"]), "$ref"
            else:
                break
            beside = {key: value for key, value in found.items() if key != word}
            found = {**inner, **beside}
        if "allOf" in found or "$ref" in found:
            # Nobody knows what it asks for: any JSON.
            return {name: found[name] for name in _ANNOTATIONS if name in found}
        return found

    def _referred(self, reference: str) -> Mapping[str, Any]:
        target: Any = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            target = target.get(name) if isinstance(target, Mapping) else None
        return _mapping(target)


def _of_text(part: Mapping[str, Any]) -> Control:
    form = part.get("format")
    if _is_secret(part):
        return Control(kind=Kind.SECRET)
    if form == "date-time":
        return Control(kind=Kind.MOMENT, help="In your time zone")
    if form == "date":
        return Control(kind=Kind.DAY)
    if form == "time":
        return Control(kind=Kind.TEXT, help="A time such as 09:30:00.")
    if form == "duration":
        return Control(kind=Kind.TEXT, help="A duration such as PT1H30M.")
    return Control(kind=Kind.TEXT, many_lines=isinstance(form, str) and form in _MANY_LINES)


def _of_scalars(types: tuple[str, ...], parts: list[Mapping[str, Any]]) -> Control:
    if "string" in types:
        return Control(kind=Kind.SCALAR, scalars=tuple(each for each in types if each != "string"))
    if set(types) <= {"integer", "number"} and len(parts) == len(types):
        return Control(kind=Kind.NUMBER)
    return Control(kind=Kind.JSON)


def _choices(part: Mapping[str, Any]) -> tuple[bool, Control] | None:
    listed = part.get("enum", [part["const"]] if "const" in part else None)
    if not isinstance(listed, list) or not listed or len(listed) > MAX_CHOICES:
        return None
    values = [each for each in listed if each is not None]
    texts = dict.fromkeys(written.as_json(each) for each in values)
    labels = {written.as_json(each): each if isinstance(each, str) and each.strip() else None for each in values}
    choices = tuple(Choice(value=text, label=labels[text] or text) for text in texts)
    return len(values) < len(listed), Control(kind=Kind.CHOICE, choices=choices)


def _by_type(part: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """One schema for each type that it allows."""
    listed = part.get("type")
    if not isinstance(listed, list) or len(listed) > _MAX_ALTERNATIVES:
        return [part]
    return [{**part, "type": each} for each in listed if isinstance(each, str)] or [part]


def _bounds(part: Mapping[str, Any], *, whole: bool) -> tuple[float | None, float | None]:
    low, high = written.number(part.get("minimum")), written.number(part.get("maximum"))
    if not whole:
        return low, high
    above, below = written.number(part.get("exclusiveMinimum")), written.number(part.get("exclusiveMaximum"))
    lows = [math.ceil(low)] if low is not None else []
    highs = [math.floor(high)] if high is not None else []
    lows += [math.floor(above) + 1] if above is not None else []
    highs += [math.ceil(below) - 1] if below is not None else []
    return (max(lows) if lows else None), (min(highs) if highs else None)


def _is_null(part: Mapping[str, Any]) -> bool:
    return part.get("type") == "null" or ("const" in part and part["const"] is None) or part.get("enum") == [None]


def _is_secret(part: Mapping[str, Any]) -> bool:
    return part.get("format") == "password" or part.get("writeOnly") is True


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
