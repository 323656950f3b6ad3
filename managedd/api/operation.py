"""Operation: OpenAPI's own word for method + path + typed function. The signature is the declaration.

A handler is `async def name(ctx, <path parameters>, *, <query or body parameters>)`. For each parameter:

- its name stands in the path → path parameter;
- GET (or marked `QUERY`) → query parameter;
- otherwise body: exactly one → it is the whole body (unless marked `EMBED`); several → one object with a member each, and a model
  `Body_<operation id>` in the document, as FastAPI does it.

Nothing is injected but the context.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model, model_validator

from managedd.api import json_bounds

Handler = Callable[..., Awaitable[Any]]
H = TypeVar("H", bound=Handler)

QUERY = "query"
"""`Annotated[T, QUERY]`: a query parameter of an operation that has a body."""
EMBED = "embed"
"""`Annotated[T, EMBED]`: a member of the body even when it is the only one."""


@dataclass(frozen=True, slots=True)
class SentAs:
    """`Annotated[T, SentAs("page-token")]`: the client's name of a parameter, where it can't be Python's."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyOf:
    """`Annotated[T, BodyOf(...)]`: the whole body is of another type than what the handler is given. For bodies that come very often."""

    type: Any
    """What the document says, and what the validator takes."""
    plain: Callable[[bytes], Any]
    """What the handler is given, read without the validator; None for every body of which it is not certain what the validator says."""
    convert: Callable[[Any], Any]
    """What the handler is given, from what the validator took."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One path or query parameter."""

    name: str
    argument: str
    """The handler's name for it."""
    where: str
    adapter: TypeAdapter[Any]
    required: bool
    default: Any
    many: bool
    """A list: the query may repeat it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What a handler takes, as its validators."""

    parameters: tuple[Parameter, ...] = ()
    body: TypeAdapter[Any] | None = None
    body_type: Any = None
    body_members: tuple[str, ...] | None = None
    """Names of an embedded body's members; None: `body_name` takes the whole."""
    body_name: str = ""
    body_of: BodyOf | None = None
    body_required: bool = False

    def bind(self, path: Mapping[str, str], query: Any, body: bytes) -> dict[str, Any]:
        """The handler's keyword arguments. Raises InvalidRequest with every error at its place."""
        arguments: dict[str, Any] = {}
        errors: list[dict[str, Any]] = []
        for parameter in self.parameters:
            self._take(parameter, path, query, arguments, errors)
        if self.body is not None:
            self._take_body(body, arguments, errors)
        if errors:
            raise InvalidRequest(errors)
        return arguments

    @staticmethod
    def _take(
        parameter: Parameter,
        path: Mapping[str, str],
        query: Any,
        arguments: dict[str, Any],
        errors: list[dict[str, Any]],
    ) -> None:
        source: Any = path if parameter.where == "path" else query
        if parameter.name not in source:
            if parameter.required:
                errors.append({"type": "missing", "loc": [parameter.where, parameter.name], "msg": "Field required"})
            else:
                arguments[parameter.argument] = parameter.default
            return
        raw = source.getall(parameter.name) if parameter.many else source[parameter.name]
        try:
            arguments[parameter.argument] = parameter.adapter.validate_python(raw)
        except ValidationError as error:
            errors.extend(json_bounds.told(error, [parameter.where, parameter.name]))

    def _take_body(self, body: bytes, arguments: dict[str, Any], errors: list[dict[str, Any]]) -> None:
        assert self.body is not None
        if not body.strip():
            if self.body_required:
                errors.append({"type": "missing", "loc": ["body"], "msg": "Field required"})
                return
            body = b"{}" if self.body_members is not None else b"null"
        if json_bounds.holds_too_much(body):
            errors.append({"type": "too_long", "loc": ["body"], "msg": json_bounds.TOO_MANY})
            return
        if self.body_of is not None and (plain := self.body_of.plain(body)) is not None:
            arguments[self.body_name] = plain
            return
        try:
            value = self.body.validate_json(body)
        except ValidationError as error:
            errors.extend(json_bounds.told(error, ["body"]))
            return
        if self.body_of is not None:
            arguments[self.body_name] = self.body_of.convert(value)
        elif self.body_members is None:
            arguments[self.body_name] = value
        else:
            arguments.update({name: getattr(value, name) for name in self.body_members})


@dataclass(frozen=True, kw_only=True)
class Operation:
    """What the router, the validator and the document read."""

    method: str
    path: str
    tag: str
    status: int
    handler: Handler
    returns: Any
    summary: str
    description: str
    public: bool = False
    """Answered without a credential."""
    early: bool = False
    """Answered also before the daemon is ready, and while it stops."""
    scoped: bool = True
    """Whether it is also served below /accounts/…/workspaces/…."""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """FastAPI's operation id: name + path with non-words as `_` + method."""
        return re.sub(r"\W", "_", f"{self.handler.__name__}{self.path}") + f"_{self.method.lower()}"

    @cached_property
    def line(self) -> str:
        """Method and path as they are declared: its name in tables and messages."""
        return f"{self.method} {self.path}"

    @cached_property
    def signature(self) -> Signature:
        """What the handler takes; made when first needed, which is not while the daemon starts. Raises ValueError when it can't be declared so."""
        return _signature(self)

    def bind(self, path: Mapping[str, str], query: Any, body: bytes) -> dict[str, Any]:
        """The handler's keyword arguments. Raises InvalidRequest with every error at its place."""
        return self.signature.bind(path, query, body)


class InvalidRequest(Exception):
    """The request does not fit the operation; `errors` has type, loc and msg of each."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__("Invalid request received.")
        self.errors = errors


def operation(
    method: str,
    path: str,
    *,
    tag: str,
    returns: Any = None,
    status: int = 200,
    public: bool = False,
    early: bool = False,
    scoped: bool = True,
    extra: Mapping[str, Any] | None = None,
) -> Callable[[H], H]:
    """The decorated handler carries its declaration as `__operation__`; `operations(module)` finds it."""

    def declare(handler: H) -> H:
        doc = inspect.getdoc(handler) or ""
        summary, _, description = doc.partition("\n")
        declared = {
            "method": method, "path": path, "tag": tag, "returns": returns, "status": status, "public": public, "early": early, "scoped": scoped,
            "extra": extra or {}, "summary": summary, "description": description.strip(),
        }  # fmt: skip
        handler.__operation__ = declared  # type: ignore[attr-defined]
        return handler

    return declare


def operations(module: Any) -> list[Operation]:
    """Every operation declared in `module`, in source order."""
    declared = [member for member in vars(module).values() if hasattr(member, "__operation__")]
    return [Operation(handler=handler, **handler.__operation__) for handler in declared]


def _markers(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        marked = tuple(mark for mark in marks if _is_ours(mark))
        rest = tuple(mark for mark in marks if not _is_ours(mark))
        for mark in rest:
            inner = Annotated[inner, mark]
        return inner, marked
    return annotation, ()


def _is_ours(mark: Any) -> bool:
    return isinstance(mark, SentAs | BodyOf) or mark in (QUERY, EMBED)


def _signature(operation: Operation) -> Signature:
    handler = operation.handler
    hints = get_type_hints(handler, include_extras=True)
    path_names = set(re.findall(r"{(\w+)}", operation.path))
    parameters: list[Parameter] = []
    members: dict[str, tuple[Any, Any]] = {}
    embed = False
    body_of: BodyOf | None = None
    for name, parameter in list(inspect.signature(handler).parameters.items())[1:]:
        annotation, marks = _markers(hints[name])
        required = parameter.default is inspect.Parameter.empty
        in_query = operation.method == "GET" or QUERY in marks
        if name in path_names or in_query:
            parameters.append(
                Parameter(
                    name=next((mark.name for mark in marks if isinstance(mark, SentAs)), name),
                    argument=name,
                    where="path" if name in path_names else "query",
                    adapter=TypeAdapter(annotation),
                    required=required,
                    default=None if required else parameter.default,
                    many=_is_list(annotation),
                )
            )
        else:
            embed = embed or EMBED in marks
            body_of = next((mark for mark in marks if isinstance(mark, BodyOf)), body_of)
            annotation = annotation if body_of is None else body_of.type
            members[name] = (annotation, ... if required else parameter.default)
    body = _body(operation.id, members, embed=embed)
    if body_of is not None:
        if body.get("body_members") is not None:
            raise ValueError(f"{operation.path}: only a whole body can be of another type")
        body["body_of"] = body_of
    return Signature(parameters=tuple(parameters), **body)


class _Embedded(BaseModel):
    """An embedded body: an explicit null for a member with a default means the default, as FastAPI has it."""

    model_config = ConfigDict(extra="ignore", defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        fields = cls.model_fields
        return {
            name: value
            for name, value in values.items()
            if value is not None or name not in fields or fields[name].is_required()
        }


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) is list or any(get_origin(arg) is list for arg in get_args(annotation))


def _body(operation_id: str, members: dict[str, tuple[Any, Any]], *, embed: bool) -> dict[str, Any]:
    if not members:
        return {}
    if len(members) == 1 and not embed:
        ((only, (annotation, default)),) = members.items()
        return {
            "body": TypeAdapter(annotation),
            "body_type": annotation,
            "body_name": only,
            "body_required": default is ...,
        }
    model: type[BaseModel] = create_model(  # type: ignore[call-overload]
        f"Body_{operation_id}", __base__=_Embedded, **members
    )
    return {
        "body": TypeAdapter(model),
        "body_type": model,
        "body_members": tuple(members),
        "body_required": any(default is ... for _, default in members.values()),
    }
