"""Reading the file, the environment and the flags, and saying what is wrong in them."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_origin

from pydantic import (
    BaseModel,
    ValidationError,
)
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsError, TomlConfigSettingsSource

from managedd.config.sections import PlanSection
from managedd.config.settings import Settings
from managedd.config.values import Section, wrong

DEFAULT_FILE = Path("/etc/managedd/config.toml")
"""Read when it exists and neither `--config` nor MANAGEDD_CONFIG names another."""
FILE_VARIABLE = "MANAGEDD_CONFIG"
ENV_PREFIX = "MANAGEDD_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The settings, and where each one that is no default came from: by dotted key, the file, the variable or "flag"."""

    settings: Settings
    file: Path | None
    origins: Mapping[str, str]


def load(path: Path | None, overrides: Mapping[str, Any]) -> Settings:
    """The settings of the file (None: the usual one, if any), the environment, and `overrides` by dotted key (None: not given).

    Raises ManagedError(CONFIG) that names every key or variable that is wrong.
    """
    return load_with_origins(path, overrides).settings


def load_with_origins(path: Path | None, overrides: Mapping[str, Any]) -> Loaded:
    """As `load`, and where each value came from."""
    file = _chosen_file(path)
    _refuse_unknown_variables()
    flags: dict[str, Any] = {}
    for key, value in overrides.items():
        if value is not None:
            _put(flags, key.split("."), value)
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, values in ((str(file), _from_file(file)), ("", _from_environment()), ("flag", flags)):
        merged = _merged(merged, values)
        for path_of in _leaves(values):
            origins[".".join(path_of)] = origin or _variable(path_of)
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        told = [_told(item["type"], item["loc"], item["msg"], origins) for item in error.errors(include_url=False)]
        raise wrong("; ".join(told)) from None
    return Loaded(settings=settings, file=file, origins=origins)


class _Sources(Settings, BaseSettings):  # type: ignore[misc]  # their two model_config types differ
    """`Settings` as pydantic-settings' sources want to see them; never instantiated."""


def _chosen_file(path: Path | None) -> Path | None:
    named = path or (Path(os.environ[FILE_VARIABLE]) if os.environ.get(FILE_VARIABLE) else None)
    if named is not None:
        return named.expanduser()
    # Not `exists()`: a file that is there and can't be looked at must not pass for one that isn't.
    try:
        DEFAULT_FILE.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise wrong(f"the configuration file {DEFAULT_FILE} can't be read: {error.strerror}") from None
    return DEFAULT_FILE


def _from_file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        # pydantic-settings takes a missing file for an empty one.
        file.open("rb").close()
        return dict(TomlConfigSettingsSource(_Sources, toml_file=file)())
    except OSError as error:
        raise wrong(f"the configuration file {file} can't be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise wrong(f"the configuration file {file} is no TOML: {error}") from None


def _from_environment() -> dict[str, Any]:
    try:
        return dict(EnvSettingsSource(_Sources, env_prefix=ENV_PREFIX, env_nested_delimiter="__")())
    except SettingsError:
        # It names the section only, and its cause quotes the value.
        raise wrong(
            "a list or table in the environment must be JSON: "
            + ", ".join(name for name in sorted(_variables(json_only=True)) if name in map(str.upper, os.environ))
        ) from None


def _variables(*, json_only: bool = False) -> list[str]:
    """The name of every variable that is read, but those of single plans."""
    found = []
    for key, annotation in _keys():
        if not json_only or get_origin(annotation) in (list, dict):
            found.append(_variable(key))
    return found


def _keys() -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            for inner, inner_field in field.annotation.model_fields.items():
                yield (name, inner), inner_field.annotation
        else:
            yield (name,), field.annotation


def _variable(key: tuple[str, ...]) -> str:
    return ENV_PREFIX + "__".join(key).upper()


def _refuse_unknown_variables() -> None:
    known = _variables()
    plan_keys = [name.upper() for name in PlanSection.model_fields]
    told = []
    for name in sorted(os.environ):
        upper = name.upper()
        if not upper.startswith(ENV_PREFIX) or upper in known or upper == FILE_VARIABLE:
            continue
        parts = upper.removeprefix(ENV_PREFIX).split("__")
        if len(parts) == 3 and parts[0] == "PLANS" and parts[1] and parts[2] in plan_keys:
            continue
        # Without the prefix, which would make any two names look alike.
        close = difflib.get_close_matches(
            upper.removeprefix(ENV_PREFIX), [other.removeprefix(ENV_PREFIX) for other in (*known, FILE_VARIABLE)], n=1
        )
        hint = f"did you mean {ENV_PREFIX}{close[0]}?" if close else f"settings are {ENV_PREFIX}SECTION__KEY"
        told.append(f"unknown variable {name}: {hint}")
    if told:
        raise wrong("; ".join(told))


def _told(kind: str, where: tuple[int | str, ...], message: str, origins: Mapping[str, str]) -> str:
    """One error in one sentence: the key, where it was set, what is wrong, what is allowed."""
    message = message.removeprefix("Value error, ")
    if not where:
        return message
    key = ".".join(map(str, where))
    candidates = [key, *(known for known in origins if known.startswith(key + "."))]
    prefixes = [".".join(map(str, where[:size])) for size in range(len(where) - 1, 0, -1)]
    origin = next((origins[name] for name in [*candidates, *prefixes] if name in origins), None)
    said = f"{key} ({origin})" if origin else key
    if kind != "extra_forbidden":
        return f"{said}: {message}"
    allowed = _allowed(where[:-1])
    close = difflib.get_close_matches(str(where[-1]), allowed, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{said}: unknown key; {hint}allowed here: {', '.join(allowed)}"


def _allowed(where: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Settings
    for part in where:
        field = model.model_fields.get(str(part))
        annotation = PlanSection if field is None or str(part) == "plans" else field.annotation
        model = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else PlanSection
    return sorted(model.model_fields)


def _merged(under: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(under)
    for name, value in over.items():
        below = made.get(name)
        made[name] = _merged(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return made


def _put(into: dict[str, Any], key: list[str], value: Any) -> None:
    for part in key[:-1]:
        into = into.setdefault(part, {})
    into[key[-1]] = value


def _leaves(values: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*above, name))
        else:
            yield (*above, name)
