"""Which job variables a pool's template calls secret. Pure.

In its JSON schema a variable is secret with `"format": "password"` or `"writeOnly": true`, which is what pydantic makes of a SecretStr, at any depth:
in properties, items, alternatives, definitions. A SecretDict leaves no such mark; it is named in the list `secret_fields` (`"config.*"`), as in the
schema of a Prefect block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

Path = tuple[str, ...]

ANYTHING: Final = "*"
MAX_DEPTH: Final = 20
MAX_PATHS: Final = 500
MAX_SCHEMAS: Final = 5_000
"""A schema with more paths or parts is taken as secret as a whole: it hides what it calls secret, from us too."""
_ALTERNATIVES: Final = ("anyOf", "oneOf", "allOf")
_DEFINITIONS: Final = ("definitions", "$defs")


def secret_paths(template: Mapping[str, Any]) -> list[Path]:
    """The paths, among the variables, of what the template's schema calls secret; `*` stands for every name."""
    schema = _variables(template)
    if not _has_mark(schema):
        return []
    try:
        return list(dict.fromkeys(_Search(schema).paths()))
    except _TooMuch:
        return [(name,) for name in _mapping(schema.get("properties"))]


def default_paths(template: Mapping[str, Any]) -> list[Path]:
    """The paths, in the template, of the defaults of what is secret."""
    paths: dict[Path, None] = {}
    for name, *rest in secret_paths(template):
        paths["variables", "properties", name, "default", *rest] = None
    schema = _variables(template)
    for path in _own_defaults(schema, ("variables",), 0):
        paths[path] = None
    return list(paths)


def concrete(paths: Iterable[Sequence[str]], variables: Mapping[str, Any]) -> list[Path]:
    """The same paths, and those by which `variables` spells them with dotted names such as `env.TOKEN`."""
    listed = [tuple(path) for path in paths]
    dotted = [name for name in variables if "." in name]
    return [*listed, *(path for name in dotted for path in _by_dotted(name, listed))]


def _by_dotted(name: str, paths: Iterable[Path]) -> Iterator[Path]:
    steps = name.split(".")
    for path in paths:
        shared = min(len(steps), len(path))
        if all(path[at] in {ANYTHING, steps[at]} for at in range(shared)):
            yield (name, *path[shared:])


def _has_mark(schema: Mapping[str, Any]) -> bool:
    waiting: list[Any] = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            if _is_secret(part) or _listed(part):
                return True
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
    return False


class _TooMuch(Exception):
    """The schema is larger than anybody's."""


class _Search:
    """One look through a schema that has marks somewhere."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._left = MAX_SCHEMAS

    def paths(self) -> list[Path]:
        found: list[Path] = []
        for path in self._secret(self._root, (), ()):
            found.append(path)
            if len(found) > MAX_PATHS:
                raise _TooMuch
        return found

    def _secret(self, schema: Mapping[str, Any], at: Path, followed: tuple[str, ...]) -> Iterator[Path]:
        self._left -= 1
        if self._left < 0 or len(at) > MAX_DEPTH:
            raise _TooMuch
        if at and _is_secret(schema):
            yield at
            return
        reference = str(schema.get("$ref", ""))
        target = _referred(reference, self._root)
        if target is not None:
            if reference in followed:
                # It holds itself: nobody can name everything that is secret in it.
                yield at
                return
            yield from self._secret(target, at, (*followed, reference))
        for path in _listed(schema):
            yield (*at, *path)
        for word in (*_ALTERNATIVES, "items", "prefixItems", "contains"):
            for part in _schemas(schema.get(word)):
                yield from self._secret(part, at, followed)
        for name, part in _mapping(schema.get("properties")).items():
            if isinstance(part, Mapping):
                yield from self._secret(part, (*at, name), followed)
        if at:
            yield from self._of_any_name(schema, (*at, ANYTHING), followed)

    def _of_any_name(self, schema: Mapping[str, Any], at: Path, followed: tuple[str, ...]) -> Iterator[Path]:
        named = _mapping(schema.get("patternProperties")).values()
        for part in (*_schemas(schema.get("additionalProperties")), *_schemas(list(named))):
            if next(self._secret(part, at, followed), None) is not None:
                yield at


def _own_defaults(schema: Any, at: Path, depth: int) -> Iterator[Path]:
    """Where a schema that is secret has a default, wherever it stands."""
    if depth > MAX_DEPTH or not isinstance(schema, Mapping):
        return
    if _is_secret(schema) and "default" in schema:
        yield (*at, "default")
    for word in ("properties", "patternProperties", *_DEFINITIONS):
        for name, part in _mapping(schema.get(word)).items():
            yield from _own_defaults(part, (*at, word, name), depth + 1)
    for word in ("items", "additionalProperties", *_ALTERNATIVES):
        for part in _schemas(schema.get(word)):
            # A list is looked through by whoever follows the path.
            yield from _own_defaults(part, (*at, word), depth + 1)


def _is_secret(schema: Mapping[str, Any]) -> bool:
    return schema.get("format") == "password" or schema.get("writeOnly") is True


def _listed(schema: Mapping[str, Any]) -> list[Path]:
    """What a schema lists as secret, as Prefect's blocks do."""
    listed = schema.get("secret_fields")
    return [tuple(path.split(".")) for path in listed if isinstance(path, str)] if isinstance(listed, list) else []


def _referred(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if not reference.startswith("#/"):
        return None
    target: Any = root
    for step in reference[2:].split("/"):
        target = target.get(step) if isinstance(target, Mapping) else None
    return target if isinstance(target, Mapping) else None


def _variables(template: Mapping[str, Any]) -> Mapping[str, Any]:
    return _mapping(template.get("variables"))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _schemas(value: Any) -> list[Mapping[str, Any]]:
    listed = value if isinstance(value, list) else [value]
    return [part for part in listed if isinstance(part, Mapping)]
