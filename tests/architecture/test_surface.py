"""Operations: handlers are thin, every one is served once, and the document of them is valid."""

from __future__ import annotations

import ast
import inspect
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from managedd.api.openapi import document
from managedd.api.surface import MODULES, all_operations
from tests.architecture.source import ROOT

if TYPE_CHECKING:
    from managedd.api.operation import Operation

MAX_STATEMENTS = 10
WAIVED = {
    "download_logs": "it streams: headers, pages, the end",
}
"""Handler → why it may be longer. May only shrink."""


@pytest.fixture(scope="module")
def operations() -> list[Operation]:
    return all_operations()


def statements(handler: object) -> int:
    """How many statements a handler has, those of its transaction's body included, without docstrings."""
    found = [node for node in ast.walk(ast.parse(inspect.getsource(handler))) if isinstance(node, ast.stmt)]  # type: ignore[arg-type]
    shells = (ast.FunctionDef, ast.AsyncFunctionDef)
    return sum(not isinstance(node, shells) and not _is_text(node) for node in found)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def test_handlers_are_thin(operations: list[Operation]) -> None:
    counted = {operation.handler.__name__: statements(operation.handler) for operation in operations}
    too_long = {name: count for name, count in counted.items() if count > MAX_STATEMENTS}
    assert {name: count for name, count in too_long.items() if name not in WAIVED} == {}
    assert set(WAIVED) <= set(too_long), "waived, and thin again: strike it out"


def test_every_route_module_is_served() -> None:
    there = {path.stem for path in (ROOT / "api" / "routes").glob("*.py")} - {"__init__"}
    assert set(MODULES) == there
    assert len(MODULES) == len(set(MODULES))


def test_every_operation_is_one(operations: list[Operation]) -> None:
    assert [name for name, count in Counter(operation.id for operation in operations).items() if count > 1] == []
    ways = Counter((operation.method, operation.path.rstrip("/")) for operation in operations)
    assert [way for way, count in ways.items() if count > 1] == []


def test_every_operation_says_what_it_does(operations: list[Operation]) -> None:
    assert [operation.id for operation in operations if not operation.summary] == []


def test_only_health_and_readiness_are_public(operations: list[Operation]) -> None:
    """Whoever adds a public operation decides it here too."""
    assert {operation.path for operation in operations if operation.public} == {"/health", "/ready"}
    assert {operation.path for operation in operations if operation.early} == {"/health"}


def test_the_document_is_valid(operations: list[Operation]) -> None:
    OpenAPIV31SpecValidator(document(operations)).validate()
