"""config.example.toml is the reference of the settings: every key, its default, a comment, and nothing else."""

from __future__ import annotations

import itertools
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from managedd.config import Section, Settings, load

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config.example.toml"
COMMENTED_OUT = re.compile(r"^# (?=[a-z_]+ = )", re.MULTILINE)
BY_USER = {"store.data_dir"}
"""The default depends on who runs it, so the example can't have it in force."""


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("MANAGEDD_"):
            monkeypatch.delenv(name)


def keys_of(model: type[Section], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found |= keys_of(field.annotation, f"{prefix}{name}.")
        else:
            found.add(prefix + name)
    return found


def flat(table: dict[str, Any], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for name, value in table.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and key not in {"runs.env", "plans"}:
            found |= flat(value, f"{key}.")
        else:
            found.add(key)
    return found


def test_every_key_is_there_and_no_other() -> None:
    everything = tomllib.loads(COMMENTED_OUT.sub("", EXAMPLE.read_text()))
    assert flat(everything) == keys_of(Settings)
    commented_out = flat(everything) - flat(tomllib.loads(EXAMPLE.read_text()))
    assert commented_out == BY_USER


@pytest.mark.usefixtures("environment")
def test_what_it_says_is_the_default() -> None:
    assert load(EXAMPLE, {}) == Settings()


@pytest.mark.usefixtures("environment")
def test_it_loads_with_everything_in_force(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(COMMENTED_OUT.sub("", EXAMPLE.read_text()))
    assert str(load(path, {}).store.data_dir) == "/var/lib/managedd"


def test_every_key_has_one_comment_line_and_its_unit() -> None:
    lines = EXAMPLE.read_text().splitlines()
    wanting = []
    for above, line in itertools.pairwise(lines):
        key = re.match(r"(?:# )?([a-z_]+) = ", line)
        if key is None:
            continue
        unit = next((unit for unit in ("bytes", "seconds", "days") if key[1].endswith(f"_{unit}")), "")
        if not above.startswith("# ") or unit not in above:
            wanting.append(line)
    assert wanting == []
