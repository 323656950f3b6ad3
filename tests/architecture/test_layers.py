"""The tables in the package's docstring hold: imports go downwards, and each library that could spread stays at home."""

from __future__ import annotations

import ast
import re

from tests.architecture.source import ROOT, imports, modules, table

SQL = re.compile(
    r"\b(SELECT\s.+\sFROM|INSERT\s+(OR\s+\w+\s+)?INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM|CREATE\s+(TABLE|INDEX)|PRAGMA\s+\w)\b",
    re.DOTALL,
)
MAX_LINES = 800


def test_the_table_names_every_module_and_no_other() -> None:
    listed = [name for names in table("layer").values() for name in names]
    there = {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert sorted(listed) == sorted(there - {"__init__"})


def test_imports_go_downwards_only() -> None:
    depth = {name: row for row, names in enumerate(table("layer").values()) for name in names}
    upwards = []
    for found in imports():
        package, _, rest = found.target.partition(".")
        if package != "managedd":
            continue
        here, there = found.module.split(".")[0], rest.split(".")[0]
        if there in depth and here != there and depth[there] <= depth[here]:
            upwards.append(f"{found.module}:{found.line} imports {found.target}")
    assert upwards == []


def test_each_library_stays_at_home() -> None:
    homes = table("library")
    assert "aiodocker" in homes
    astray = []
    for found in imports():
        for library, home in homes.items():
            used = found.target == library or found.target.startswith(f"{library}.")
            if used and found.at_run_time and found.module.split(".")[0] not in home:
                astray.append(f"{found.module}:{found.line} imports {found.target}")
    assert astray == []


def test_the_homes_are_used() -> None:
    """A row whose library nobody imports guards nothing."""
    used = {found.target for found in imports()}
    for library, home in table("library").items():
        assert not home or any(f"{name}.".startswith(f"{library}.") for name in used), library


def test_sql_is_written_in_the_store_only() -> None:
    written = []
    for name, tree, _ in modules():
        if name.split(".")[0] == "store":
            continue
        written += [
            f"{name}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.search(node.value)
        ]
    assert written == []
    assert SQL.search("SELECT a, b\nFROM c WHERE d")


def test_no_file_is_longer_than_anyone_reads() -> None:
    too_long = [
        f"{path}: {lines} lines"
        for folder in (ROOT, ROOT.parent / "tests")
        for path in folder.rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > MAX_LINES
    ]
    assert too_long == []


def test_every_module_says_what_it_is() -> None:
    assert [name for name, tree, _ in modules() if not ast.get_docstring(tree)] == []


def test_no_name_says_nothing() -> None:
    empty = {"utils", "util", "common", "manager", "helper", "helpers", "misc"}
    assert [name for name, _, _ in modules() if empty & set(name.split("."))] == []


def test_tasks_have_an_owner() -> None:
    """A task that no group owns can be lost, with its error."""
    loose = [
        f"{name}:{number}"
        for name, _, text in modules()
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(r"asyncio\.(create_task|ensure_future|gather)\(", line)
    ]
    assert loose == []
