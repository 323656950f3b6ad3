"""The package's own source, parsed: what imports what, and the tables in its docstring that say what may."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import managedd

ROOT = Path(managedd.__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One import in one module."""

    module: str
    """Where it stands, dotted, without the package's own name."""
    target: str
    """What is imported, dotted; for `from a import b` it is `a.b`."""
    line: int
    at_run_time: bool
    """Not below `if TYPE_CHECKING`."""


def modules() -> list[tuple[str, ast.Module, str]]:
    """Every module of the package but its own `__init__`: name, tree and text."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if name != "__init__":
            text = path.read_text()
            found.append((name, ast.parse(text, filename=str(path)), text))
    return found


def imports() -> list[Import]:
    """Every import of every module, wherever in it."""
    return [made for name, tree, _ in modules() for made in _of(name, tree.body, at_run_time=True)]


def _of(module: str, body: list[ast.stmt], *, at_run_time: bool) -> list[Import]:
    found = []
    for node in body:
        match node:
            case ast.Import():
                targets = [alias.name for alias in node.names]
            case ast.ImportFrom():
                assert node.level == 0, f"{module}:{node.lineno}: imports are absolute"
                targets = [f"{node.module}.{alias.name}" for alias in node.names]
            case _:
                targets = []
        found += [Import(module=module, target=target, line=node.lineno, at_run_time=at_run_time) for target in targets]
        checking = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for field in ("body", "orelse", "finalbody"):
            inner = at_run_time and not (checking and field == "body")
            found += _of(module, getattr(node, field, []), at_run_time=inner)
        for part in (*getattr(node, "handlers", []), *getattr(node, "cases", [])):
            found += _of(module, part.body, at_run_time=at_run_time)
    return found


def table(heading: str) -> dict[str, list[str]]:
    """The two-column table of the package's docstring whose first column is headed `heading`, in its order."""
    assert managedd.__doc__ is not None
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in managedd.__doc__.splitlines()
        if line.startswith("|") and not re.fullmatch(r"[|\s-]+", line)
    ]
    found: dict[str, list[str]] = {}
    wanted = False
    for first, second in rows:
        if second in {"modules", "only in"}:
            wanted = first == heading
        elif wanted:
            found[first] = [name.strip() for name in second.split(",") if name.strip()]
    return found
