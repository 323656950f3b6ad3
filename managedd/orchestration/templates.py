"""Rendering Jinja templates that tenants write, in bounded time and memory.

Jinja's sandbox keeps a template away from Python, not from the processor: `'x' * 10**10`, a doubling `{% set %}`, a nested
loop over long lists. So only a part of the language is taken: expressions, `if`, and `for` with the bounds below; a fixed
list of filters and of methods that do not make their text much longer; no `set`, macros, blocks or includes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sized
from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import ChainableUndefined, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS
from jinja2.sandbox import ImmutableSandboxedEnvironment

from managedd.errors import ErrorCode, ManagedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_TEMPLATE_LENGTH = 20_000
MAX_OUTPUT_LENGTH = 512 * 1024
MAX_VALUE_LENGTH = 32 * 1024
"""What one operator or filter may make out of something shorter."""
MAX_VALUES_READ = 64 * 1024 * 1024
"""How often a template may name its values, times how large they are."""
MAX_LOOPS = 10
MAX_LOOP_DEPTH = 2
MAX_LOOP_ITEMS = 500
MAX_RANGE = 100
_MAX_NUMBER_BITS = 4096
_NODES = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.Getattr,
    nodes.Getitem, nodes.Slice, nodes.Filter, nodes.Test, nodes.CondExpr, nodes.If, nodes.For, nodes.Compare,
    nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos, nodes.Concat, nodes.Add, nodes.Sub, nodes.Mul,
    nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Pow, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair, nodes.Keyword,
    nodes.Call,
)  # fmt: skip
_BUILT_IN_FILTERS = (
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "forceescape", "groupby",
    "int", "items", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "reverse", "select",
    "selectattr", "sort", "string", "striptags", "sum", "title", "trim", "truncate", "unique", "upper", "urlencode",
    "wordcount",
)  # fmt: skip
_METHODS = frozenset({
    "capitalize", "casefold", "count", "date", "endswith", "find", "get", "index", "isalnum", "isalpha", "isdigit",
    "isoformat", "items", "keys", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "rfind", "rpartition",
    "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "timestamp", "title", "total_seconds",
    "upper", "values",
})  # fmt: skip


def render(template: str, values: Mapping[str, Any], *, max_length: int = MAX_OUTPUT_LENGTH) -> str:
    """The text that `template` gives with `values`; names without a value are empty.

    Raises a BAD_REQUEST error that says what is wrong with the template, or which bound it goes over.
    """
    names = _checked(template)
    if names * _size(values) > MAX_VALUES_READ:
        raise _bad("the values are too large for a template that names them so often")
    pieces: list[str] = []
    length = 0
    try:
        for piece in _environment().from_string(template).generate(dict(values)):
            length += len(piece)
            if length > max_length:
                raise _bad(f"the result is longer than {max_length} characters")
            pieces.append(piece)
    except ManagedError:
        raise
    except RecursionError:
        raise _bad("nested too deeply") from None
    except Exception as error:
        # A tenant's template can raise anything that its values' operators raise: all of it is the tenant's.
        raise _bad(str(error) or type(error).__name__) from None
    return "".join(pieces)


def check(template: str) -> None:
    """Returns when `template` is one that `render` takes; else a BAD_REQUEST error says what is not allowed."""
    _checked(template)


def _checked(template: str) -> int:
    """How many names the template reads, when it is one that `render` takes."""
    if len(template) > MAX_TEMPLATE_LENGTH:
        raise _bad(f"the template is longer than {MAX_TEMPLATE_LENGTH} characters")
    try:
        tree = _environment().parse(template)
        return _check(tree)
    except TemplateError as error:
        raise _bad(str(error)) from None
    except (RecursionError, ValueError, OverflowError):
        raise _bad("nested too deeply, or a number too large") from None


def _bad(reason: str) -> ManagedError:
    return ManagedError(ErrorCode.BAD_REQUEST, f"Invalid jinja: {reason[:500]}")


def _size(value: Any) -> int:
    if isinstance(value, Mapping):
        return 8 + sum(len(str(key)) + _size(part) for key, part in value.items())
    if isinstance(value, list | tuple):
        return 8 + sum(_size(part) for part in value)
    return len(value) if isinstance(value, str) else 8


def _check(tree: nodes.Template) -> int:
    loops = names = 0
    waiting: list[tuple[nodes.Node, int]] = [(tree, 0)]
    while waiting:
        node, depth = waiting.pop()
        if not isinstance(node, _NODES):
            raise SecurityError(
                f"'{type(node).__name__.lower()}' in line {node.lineno} is not allowed in these templates"
            )
        names += isinstance(node, nodes.Name)
        if isinstance(node, nodes.For):
            loops, depth = loops + 1, depth + 1
            if loops > MAX_LOOPS or depth > MAX_LOOP_DEPTH or node.recursive:
                raise SecurityError(
                    f"at most {MAX_LOOPS} loops are allowed, {MAX_LOOP_DEPTH} inside each other, none recursive"
                )
        if isinstance(node, nodes.Call):
            called = node.node
            if not (isinstance(called, nodes.Name) and called.name == "range") and not (
                isinstance(called, nodes.Getattr) and called.attr in _METHODS
            ):
                raise SecurityError(
                    f"a call in line {node.lineno} is not allowed; allowed: range and {', '.join(sorted(_METHODS))}"
                )
            if node.dyn_args is not None or node.dyn_kwargs is not None:
                raise SecurityError("arguments by * and ** are not allowed")
        waiting.extend((child, depth) for child in node.iter_child_nodes())
    return names


class _Environment(ImmutableSandboxedEnvironment):
    """The part of Jinja that is allowed, with bounds on what its operators make."""

    intercepted_binops = frozenset({"*", "**", "%", "+"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """The result, when it is of a harmless size."""
        for one, other in ((left, right), (right, left)):
            if operator == "*" and isinstance(one, Sized) and isinstance(other, int):
                _allow(len(one) * other)
        if operator == "+" and isinstance(left, Sized) and isinstance(right, Sized):
            _allow(len(left) + len(right))
        if operator == "%" and isinstance(left, str | bytes):
            raise SecurityError("formatting with % is not allowed; join texts with ~")
        if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * max(right, 0) if operator == "**" else left.bit_length() + right.bit_length()
            if bits > _MAX_NUMBER_BITS:
                raise SecurityError("the number is too large")
        return super().call_binop(context, operator, left, right)

    def _generate(
        self, source: nodes.Template, name: str | None, filename: str | None, defer_init: bool = False
    ) -> str:
        for loop in source.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, "_loop_items", [], [], None, None, lineno=loop.lineno)
        return super()._generate(source, name, filename, defer_init)


def _allow(length: int) -> None:
    if length > MAX_VALUE_LENGTH:
        raise SecurityError(f"a value is longer than {MAX_VALUE_LENGTH}")


def _loop_items(items: Any) -> Any:
    if not isinstance(items, Sized):
        items = list(items)
    if len(items) > MAX_LOOP_ITEMS:
        raise SecurityError(f"a loop goes over more than {MAX_LOOP_ITEMS} items")
    return items


def _range(*arguments: int) -> range:
    numbers = range(*arguments)
    if len(numbers) > MAX_RANGE:
        raise SecurityError(f"a range has more than {MAX_RANGE} numbers")
    return numbers


def _join(items: Iterable[Any], separator: str = "", attribute: str | None = None) -> str:
    if attribute is not None:
        items = [item.get(attribute, "") if isinstance(item, Mapping) else "" for item in items]
    texts = [str(item) for item in items]
    _allow(sum(map(len, texts)) + len(separator) * len(texts))
    return separator.join(texts)


def _replace(text: Any, old: str, new: str, count: int = -1) -> str:
    whole = str(text)
    times = whole.count(old) if count < 0 else min(count, whole.count(old))
    _allow(len(whole) + times * len(new))
    return whole.replace(old, new, count)


def _round(value: Any, precision: int = 0, method: str = "common") -> float:
    if not -15 <= precision <= 15 or method != "common":
        raise SecurityError("round takes a precision of -15 to 15 and nothing else")
    return round(float(value), precision)


def _tojson(value: Any, indent: int | None = None) -> str:
    if indent is not None and not 0 <= indent <= 8:
        raise SecurityError("tojson takes an indent of 0 to 8")
    text = json.dumps(value, indent=indent, sort_keys=True, default=str)
    return text


@cache
def _environment() -> _Environment:
    environment = _Environment(undefined=ChainableUndefined, cache_size=0, autoescape=False)
    bounded: dict[str, Callable[..., Any]] = {
        "_loop_items": _loop_items,
        "join": _join,
        "replace": _replace,
        "round": _round,
        "tojson": _tojson,
    }
    environment.filters = {**{name: FILTERS[name] for name in _BUILT_IN_FILTERS}, **bounded}
    environment.globals = {"range": _range}
    return environment
