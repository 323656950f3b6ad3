"""The router: path segments in a tree, literal before parameter. Matching costs the path's length, not the number of operations.

A trailing slash makes no difference: Prefect's client uses one on creates, and a redirect would cost a round trip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterable


class Routed(Protocol):
    """What is found by a method and a path."""

    @property
    def method(self) -> str:
        """GET, POST …"""

    @property
    def path(self) -> str:
        """Segments, those in braces are parameters."""

    @property
    def line(self) -> str:
        """Its name in messages."""


R = TypeVar("R", bound=Routed)


class _Node(Generic[R]):
    __slots__ = ("literals", "operations", "parameter")

    def __init__(self) -> None:
        self.literals: dict[str, _Node[R]] = {}
        self.parameter: _Node[R] | None = None
        self.operations: dict[str, tuple[R, tuple[str, ...]]] = {}


class MethodNotAllowed(Exception):
    """The path exists, not with that method."""

    def __init__(self, allowed: Iterable[str]) -> None:
        super().__init__("Method Not Allowed")
        self.allowed = sorted(allowed)


class Router(Generic[R]):
    """Operations, or whatever else, by method and path."""

    def __init__(self, operations: Iterable[R]) -> None:
        self._root: _Node[R] = _Node()
        for operation in operations:
            self._add(operation)

    def _add(self, operation: R) -> None:
        node, names = self._root, []
        for segment in _segments(operation.path):
            if segment.startswith("{"):
                names.append(segment[1:-1])
                if node.parameter is None:
                    node.parameter = _Node()
                node = node.parameter
            else:
                node = node.literals.setdefault(segment, _Node())
        if operation.method in node.operations:
            raise ValueError(f"{operation.line} is declared twice")
        node.operations[operation.method] = (operation, tuple(names))

    def match(self, method: str, raw_path: str) -> tuple[R, dict[str, str]] | None:
        """The operation and its path parameters, unquoted; None when there is no such path. Raises MethodNotAllowed.

        `raw_path` is still percent-encoded, so that an encoded slash stays inside its segment.
        """
        segments = _segments(raw_path)
        allowed: set[str] = set()
        found = self._walk(self._root, segments, 0, [], method, allowed)
        if found is None:
            if allowed:
                raise MethodNotAllowed(allowed)
            return None
        operation, names, values = found
        return operation, dict(zip(names, values, strict=True))

    def _walk(
        self, node: _Node[R], segments: list[str], at: int, values: list[str], method: str, allowed: set[str]
    ) -> tuple[R, tuple[str, ...], list[str]] | None:
        if at == len(segments):
            entry = node.operations.get(method) or (node.operations.get("GET") if method == "HEAD" else None)
            if entry is None:
                allowed.update(node.operations)
                return None
            return entry[0], entry[1], values
        literal = node.literals.get(segments[at])
        if literal is not None:
            found = self._walk(literal, segments, at + 1, values, method, allowed)
            if found is not None:
                return found
        if node.parameter is not None:
            value = unquote(segments[at])
            return self._walk(node.parameter, segments, at + 1, [*values, value], method, allowed)
        return None


def first_segment(path: str) -> str:
    """The first segment of a path, still percent-encoded; empty for none."""
    return path.lstrip("/").partition("/")[0]


def _segments(path: str) -> list[str]:
    return [segment for segment in path.split("/") if segment]
