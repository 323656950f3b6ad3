"""The OpenAPI 3.1 document, made from the same declarations that the server runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import orjson
from pydantic import TypeAdapter

from managedd import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from managedd.api.operation import Operation

REF = "#/components/schemas/{model}"


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """The document of `operations`; websockets have no place in OpenAPI and are left out."""
    listed = [operation for operation in operations if operation.method != "WS"]
    inputs = _adapters(listed)
    mapping, definitions = TypeAdapter.json_schemas(
        [(key, mode, adapter) for key, (mode, adapter) in inputs.items()], ref_template=REF
    )
    paths: dict[str, Any] = {}
    for operation in listed:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, mapping)
    schemas: dict[str, Any] = _tidy({**_error_schemas(), **definitions.get("$defs", {})})
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "managedd API",
            "version": __version__,
            "description": "Prefect's REST API, served by managedd.",
        },
        "servers": [{"url": "/api"}],
        "paths": _tidy(paths),
        "components": {"schemas": schemas},
    }


class ServedDocument:
    """The document of what `operations` tells as bytes, made once, by whoever asks first."""

    def __init__(self, operations: Callable[[], Iterable[Operation]], threads: anyio.CapacityLimiter) -> None:
        self._operations = operations
        self._threads = threads
        self._bytes: bytes | None = None

    async def read(self) -> bytes:
        """The document."""
        if self._bytes is None:
            # The better part of a second, which the loop does not have.
            self._bytes = await anyio.to_thread.run_sync(self._make, limiter=self._threads)
        return self._bytes

    def _make(self) -> bytes:
        return orjson.dumps(document(self._operations()))


def _adapters(operations: list[Operation]) -> dict[Any, tuple[Any, TypeAdapter[Any]]]:
    found: dict[Any, tuple[Any, TypeAdapter[Any]]] = {}
    for operation in operations:
        signature = operation.signature
        for parameter in signature.parameters:
            found[operation.id, parameter.name] = ("validation", parameter.adapter)
        if signature.body is not None:
            found[operation.id, "body"] = ("validation", signature.body)
        if operation.returns is not None:
            found[operation.id, "returns"] = ("serialization", TypeAdapter(operation.returns))
    return found


def _operation(operation: Operation, mapping: Any) -> dict[str, Any]:
    signature = operation.signature
    made: dict[str, Any] = {"tags": [operation.tag], "summary": _title(operation.handler.__name__)}
    text = "\n\n".join(part for part in (operation.summary, operation.description) if part)
    if text:
        made["description"] = text
    made["operationId"] = operation.id
    if signature.parameters:
        made["parameters"] = [
            {
                "name": parameter.name,
                "in": parameter.where,
                "required": parameter.required,
                "schema": {
                    **mapping[(operation.id, parameter.name), "validation"],
                    **(
                        {}
                        if parameter.required or parameter.default is None
                        else {"default": _plain(parameter.default)}
                    ),
                },
            }
            for parameter in signature.parameters
        ]
    if signature.body is not None:
        schema = mapping[(operation.id, "body"), "validation"]
        made["requestBody"] = {"content": {"application/json": {"schema": schema}}}
        if signature.body_required:
            made["requestBody"]["required"] = True
    made["responses"] = _responses(operation, mapping)
    made.update(operation.extra)
    return made


def _responses(operation: Operation, mapping: Any) -> dict[str, Any]:
    success: dict[str, Any] = {"description": "Successful Response"}
    if operation.status != 204:
        schema = {} if operation.returns is None else mapping[(operation.id, "returns"), "serialization"]
        success["content"] = {"application/json": {"schema": schema}}
    answers = {str(operation.status): success}
    if operation.signature.parameters or operation.signature.body is not None:
        answers["422"] = {
            "description": "Validation Error",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/HTTPValidationError"}}},
        }
    return answers


def _error_schemas() -> dict[str, Any]:
    return {
        "HTTPValidationError": {
            "title": "HTTPValidationError",
            "type": "object",
            "properties": {
                "exception_message": {"type": "string", "title": "Exception Message"},
                "exception_detail": {"type": "array", "items": {"type": "object"}, "title": "Exception Detail"},
                "request_body": {"title": "Request Body"},
                "detail": {"type": "string", "title": "Detail"},
            },
        }
    }


def _title(name: str) -> str:
    return name.replace("_", " ").title()


def _plain(value: Any) -> Any:
    return getattr(value, "value", value)


def _tidy(schema: Any) -> Any:
    """Without `"default": null`, which says nothing."""
    if isinstance(schema, dict):
        return {key: _tidy(value) for key, value in schema.items() if not (key == "default" and value is None)}
    if isinstance(schema, list):
        return [_tidy(item) for item in schema]
    return schema
