"""From a pool's template and the variables of pool, deployment and run to a job configuration.

In order: `merge` the layers, `validate_job_variables`, `render` the template, `find_references`, load what they name, and
`substitute` it. What the configuration then means for a managed run is `managed_job.py`'s business.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from managedd.errors import ManagedError, invalid, not_found
from managedd.ids import canonical, is_uuid
from managedd.model.secret_schemas import concrete, default_paths, secret_paths
from managedd.model.secrets import hidden, values_at
from managedd.orchestration.schemas import check_schema, first_error

MAX_DEPTH = 64
MAX_TEXT_LENGTH = 1024 * 1024
"""What a single text may become by substitution, in characters."""
_PLACEHOLDER = re.compile(r"{{\s*([\w.\-\[\]$]+)\s*}}")
_BLOCKS = "prefect.blocks."
_VARIABLES = "prefect.variables."


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockByName:
    """`{{ prefect.blocks.<slug>.<name> }}`: resolves to the block document's data."""

    slug: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockById:
    """`{"$ref": {"block_document_id": …}}`: resolves to the block document's data."""

    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VariableByName:
    """`{{ prefect.variables.<name> }}`: resolves to the variable's value."""

    name: str


Reference = BlockByName | BlockById | VariableByName


class _Unset(Enum):
    """Stands for "no value, and so no key"; an enum because copies of it are itself."""

    UNSET = auto()


_UNSET = _Unset.UNSET


# Layers


def defaults_from_schema(template: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of the template's variables; a default of null is none."""
    return {
        name: copy.deepcopy(part["default"])
        for name, part in _properties(template).items()
        if isinstance(part, Mapping) and part.get("default") is not None
    }


def merge(
    pool_template: Mapping[str, Any],
    deployment_vars: Mapping[str, Any] | None = None,
    run_vars: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The values of a run's job variables: the pool's defaults, under the deployment's, under the run's.

    `env` is merged key by key at each layer, everything else replaced. A dotted key such as `env.FOO` sets one key inside;
    within one layer the nested spelling of the same key wins.
    """
    values = defaults_from_schema(pool_template)
    for layer in (deployment_vars, run_vars):
        _apply(values, layer or {})
    return values


def _apply(values: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for name, value in layer.items():
        if "." in name:
            continue
        if name == "env" and isinstance(value, Mapping) and isinstance(values.get("env"), Mapping):
            values["env"] = {**values["env"], **copy.deepcopy(dict(value))}
        else:
            values[name] = copy.deepcopy(value)
    for name, value in layer.items():
        path = name.split(".")
        if len(path) > 1 and _get(layer, path) is _UNSET:
            _set(values, name, path, copy.deepcopy(value))


def _set(values: dict[str, Any], name: str, path: list[str], value: Any) -> None:
    if len(path) > MAX_DEPTH or "" in path:
        raise invalid(f"job_variables.{name[:100]}: not a dotted path such as 'env.NAME'")
    for step in path[:-1]:
        inner = values.setdefault(step, {})
        if not isinstance(inner, dict):
            raise invalid(f"job_variables.{name[:100]}: {step!r} is not an object, so nothing can be set inside it")
        values = inner
    values[path[-1]] = value


def _get(values: Any, path: list[str]) -> Any:
    for step in path:
        if isinstance(values, Mapping) and step in values:
            values = values[step]
        elif (
            isinstance(values, list) and step.isascii() and step.isdigit() and len(step) < 7 and int(step) < len(values)
        ):
            values = values[int(step)]
        else:
            return _UNSET
    return values


def _path(text: str) -> list[str]:
    """`a.b[0].c` as steps."""
    return text.replace("[", ".").replace("]", "").split(".")


def secret_values(template: Mapping[str, Any], *layers: Mapping[str, Any] | None) -> list[Any]:
    """What the layers and the template's defaults have at the places that the template calls secret, for messages to leave out."""
    paths = secret_paths(template)
    if not paths:
        return []
    given = (defaults_from_schema(template), *(layer for layer in layers if layer))
    of_layers = [part for layer in given for part in values_at(layer, concrete(paths, layer))]
    return [*values_at(template, default_paths(template)), *of_layers]


# Checking


def check_template(template: Any) -> None:
    """Returns when `template` can be a pool's base job template; else an INVALID error says why it can't.

    An empty one can. Otherwise it needs a job configuration, a schema of variables, every placeholder declared there, and
    defaults that fit.
    """
    if template == {}:
        return
    if not isinstance(template, Mapping):
        raise invalid("base_job_template: must be an object")
    configuration, variables = template.get("job_configuration"), template.get("variables")
    if not (isinstance(configuration, Mapping) and configuration and isinstance(variables, Mapping) and variables):
        raise invalid("base_job_template: must have both 'job_configuration' and 'variables', and neither empty")
    check_schema(variables)
    declared = set(_properties(template))
    names = {name for name in _placeholders(configuration, 0) if not name.startswith((_BLOCKS, _VARIABLES, "$"))}
    undeclared = sorted(name for name in names if name not in declared and _path(name)[0] not in declared)
    if undeclared:
        raise invalid(
            "base_job_template: the job configuration uses variables that are not among the properties of 'variables': "
            + ", ".join(undeclared)[:500],
        )
    values, schema = _without_block_references(defaults_from_schema(template), variables)
    failure = first_error(values, schema, ignore_required=True, allow_none_with_default=True, schema_checked=True)
    if failure is not None:
        told = hidden(str(failure), secret_values(template))
        raise invalid(f"Validation failed for work pool's job variable defaults: {told}")


def validate_job_variables(
    template: Mapping[str, Any],
    deployment_vars: Mapping[str, Any] | None = None,
    run_vars: Mapping[str, Any] | None = None,
    *,
    ignore_required: bool = False,
    doing: str = "Error creating flow run",
    template_checked: bool = False,
) -> None:
    """Returns when the variables fit the template's schema; else an INVALID error names the field.

    For a deployment, whose runs may bring what is missing, pass `ignore_required` and what is being done ("Error creating
    deployment"). Defaults that do not fit are the pool's fault: they count as not given, and then nothing is required.
    `template_checked` says that `check_template` took this template, which saves most of the time.
    """
    variables = template.get("variables")
    if not isinstance(variables, Mapping) or not variables:
        return
    if not template_checked:
        check_schema(variables)
    merged = defaults_from_schema(template)
    faulty = _faulty_defaults(merged, variables)
    for name in faulty:
        del merged[name]
    try:
        for layer in (deployment_vars, run_vars):
            _apply(merged, layer or {})
    except ManagedError as error:
        raise invalid(f"{doing}: {error.message}") from None
    values, schema = _without_block_references(merged, variables)
    failure = first_error(
        values,
        schema,
        ignore_required=ignore_required or bool(faulty),
        allow_none_with_default=True,
        schema_checked=True,
    )
    if failure is not None:
        raise invalid(f"{doing}: {failure}")


def _faulty_defaults(defaults: Mapping[str, Any], variables: Mapping[str, Any]) -> list[str]:
    def fits(some: Mapping[str, Any]) -> bool:
        values, schema = _without_block_references(some, variables)
        return first_error(values, schema, ignore_required=True, preprocess=False, schema_checked=True) is None

    return [] if fits(defaults) else [name for name, value in defaults.items() if not fits({name: value})]


def _without_block_references(
    values: Mapping[str, Any], schema: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both without the variables that are references to blocks: what stands in a block is known only when the run starts."""
    references = {name for name, value in values.items() if _block_id(value) is not None}
    changed = dict(schema)
    if isinstance(changed.get("required"), list):
        changed["required"] = [name for name in changed["required"] if name not in references]
    return {name: value for name, value in values.items() if name not in references}, changed


def _properties(template: Mapping[str, Any]) -> Mapping[str, Any]:
    variables = template.get("variables")
    properties = variables.get("properties") if isinstance(variables, Mapping) else None
    return properties if isinstance(properties, Mapping) else {}


# Rendering


def render(job_configuration: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The job configuration with `{{ name }}` replaced.

    A placeholder that is the whole text becomes the value with its type, or takes its key or list element away when there is no
    value; inside a longer text it becomes text, or nothing. References to blocks and variables stay for `substitute`;
    `{{ $NAME }}`, the worker's environment, is nothing here. An `env` that the configuration spells out is the lowest layer
    of the run's.
    """
    rendered = _render(job_configuration, values, 0)
    given = values.get("env")
    if isinstance(job_configuration.get("env"), Mapping) and isinstance(given, Mapping):
        rendered["env"] = {**rendered.get("env", {}), **copy.deepcopy(dict(given))}
    return rendered  # type: ignore[no-any-return]


def _render(template: Any, values: Mapping[str, Any], depth: int) -> Any:
    _check_depth(depth)
    if isinstance(template, Mapping):
        parts = ((key, _render(value, values, depth + 1)) for key, value in template.items())
        return {key: value for key, value in parts if value is not _UNSET}
    if isinstance(template, list):
        items = (_render(value, values, depth + 1) for value in template)
        return [item for item in items if item is not _UNSET]
    if not isinstance(template, str):
        return template
    whole = _PLACEHOLDER.fullmatch(template)
    if whole is not None and not whole[1].startswith((_BLOCKS, _VARIABLES, "$")):
        return copy.deepcopy(_get(values, _path(whole[1])))

    def value_of(found: re.Match[str]) -> str:
        name = found[1]
        if name.startswith((_BLOCKS, _VARIABLES)):
            return found[0]
        value = _UNSET if name.startswith("$") else _get(values, _path(name))
        return "" if value is _UNSET else str(value)

    return _bounded_sub(value_of, template)


def _bounded_sub(value_of: Any, text: str) -> str:
    length = len(text)

    def counted(found: re.Match[str]) -> str:
        nonlocal length
        value: str = value_of(found)
        length += len(value)
        if length > MAX_TEXT_LENGTH:
            raise invalid(f"job_variables: a text becomes longer than {MAX_TEXT_LENGTH} characters")
        return value

    return _PLACEHOLDER.sub(counted, text)


def _check_depth(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise invalid(f"job_variables: nested deeper than {MAX_DEPTH} levels")


# References


def find_references(rendered: Any) -> frozenset[Reference]:
    """What has to be loaded before `substitute`. A reference that is not of the right form is an INVALID error."""
    found: set[Reference] = set()
    _find(rendered, found, 0)
    return frozenset(found)


def _find(value: Any, found: set[Reference], depth: int) -> None:
    _check_depth(depth)
    if isinstance(value, Mapping):
        by_id = _block_id(value)
        if by_id is not None:
            found.add(by_id)
            return
        for part in value.values():
            _find(part, found, depth + 1)
    elif isinstance(value, list):
        for part in value:
            _find(part, found, depth + 1)
    elif isinstance(value, str):
        for name in _PLACEHOLDER.findall(value):
            if name.startswith(_BLOCKS):
                found.add(_block_by_name(name)[0])
            elif name.startswith(_VARIABLES):
                found.add(VariableByName(name=name.removeprefix(_VARIABLES)))


def substitute(rendered: Any, resolved: Mapping[Reference, Any]) -> Any:
    """The same with every reference replaced by what it resolved to.

    `resolved` maps blocks to their data and variables to their value. A block that is not in it is a NOT_FOUND error; a
    variable that is not becomes an empty text, as in Prefect. What is put in is not looked through again.
    """
    return _substitute(rendered, resolved, 0)


def _substitute(value: Any, resolved: Mapping[Reference, Any], depth: int) -> Any:
    _check_depth(depth)
    if isinstance(value, Mapping):
        by_id = _block_id(value)
        if by_id is not None:
            if by_id not in resolved:
                raise not_found("Block document", by_id.id)
            return copy.deepcopy(resolved[by_id])
        return {key: _substitute(part, resolved, depth + 1) for key, part in value.items()}
    if isinstance(value, list):
        return [_substitute(part, resolved, depth + 1) for part in value]
    if not isinstance(value, str):
        return value
    whole = _PLACEHOLDER.fullmatch(value)
    if whole is not None and whole[1].startswith((_BLOCKS, _VARIABLES)):
        return copy.deepcopy(_resolve(whole[1], resolved))

    def value_of(found: re.Match[str]) -> str:
        if not found[1].startswith((_BLOCKS, _VARIABLES)):
            return found[0]
        inside = _resolve(found[1], resolved)
        if found[1].startswith(_BLOCKS) and isinstance(inside, dict | list):
            raise invalid(
                f"job_variables: {found[0][:200]} is an object or a list and can't stand inside a longer text; "
                "name one value in it, for example by adding '.value'",
            )
        return str(inside)

    return _bounded_sub(value_of, value)


def _resolve(name: str, resolved: Mapping[Reference, Any]) -> Any:
    if name.startswith(_VARIABLES):
        return resolved.get(VariableByName(name=name.removeprefix(_VARIABLES)), "")
    reference, path = _block_by_name(name)
    if reference not in resolved:
        raise not_found(f"Block document of type {reference.slug!r} with the name", reference.name)
    data = resolved[reference]
    # Blocks with a single field called `value`, such as secrets, stand for that value.
    if isinstance(data, Mapping) and set(data) == {"value"} and path[:1] != ["value"]:
        data = data["value"]
    value = _get(data, path)
    if value is _UNSET:
        raise invalid(f"job_variables: {{{{ {name[:200]} }}}}: the block has nothing at {'.'.join(path)!r}")
    return value


def _block_by_name(name: str) -> tuple[BlockByName, list[str]]:
    slug, _, rest = name.removeprefix(_BLOCKS).partition(".")
    document, _, path = rest.partition(".")
    if not slug or not document:
        raise invalid(
            f"job_variables: {{{{ {name[:200]} }}}}: allowed: {{{{ prefect.blocks.<block type slug>.<block name> }}}}, and "
            "a path into the block after it",
        )
    return BlockByName(slug=slug, name=document), _path(path) if path else []


def _block_id(value: Any) -> BlockById | None:
    if not isinstance(value, Mapping):
        return None
    target = value.get("$ref")
    if not isinstance(target, Mapping) or not target.get("block_document_id"):
        return None
    text = str(target["block_document_id"])
    if not is_uuid(text):
        raise invalid(f"job_variables: $ref.block_document_id: {text[:80]!r} is not a UUID")
    return BlockById(id=canonical(text))


def _placeholders(value: Any, depth: int) -> set[str]:
    _check_depth(depth)
    if isinstance(value, Mapping):
        return set().union(*(_placeholders(part, depth + 1) for part in value.values()))
    if isinstance(value, list):
        return set().union(*(_placeholders(part, depth + 1) for part in value))
    return set(_PLACEHOLDER.findall(value)) if isinstance(value, str) else set()
