"""The documents name what exists: files, commands, settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from managedd.cli.app import application
from tests.architecture.source import table
from tests.architecture.test_config_example import keys_of

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")], key=str)
SECTIONS = ("server", "store", "log", "docker", "process", "runs", "scheduler", "retention")


@pytest.fixture(params=DOCUMENTS, ids=lambda path: path.name)
def text(request: pytest.FixtureRequest) -> tuple[Path, str]:
    path: Path = request.param
    return path, path.read_text()


def test_links_lead_somewhere(text: tuple[Path, str]) -> None:
    path, words = text
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", words) if "://" not in target]
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_settings_that_are_named_exist(text: tuple[Path, str]) -> None:
    from managedd.config import Settings

    known = keys_of(Settings)
    named = re.findall(rf"`((?:{'|'.join(SECTIONS)})\.[a-z_]+)(?: =[^`]*)?`", text[1])
    files = {"state.db", "logs.db", "store.py"}
    assert [key for key in named if key not in known and key not in files] == []


def test_commands_that_are_shown_exist(text: tuple[Path, str]) -> None:
    there = set(application()) - {"--help", "-h", "--version"}
    shown = set(re.findall(r"(?:[$#] |`)managedd ([a-z-]+)", text[1]))
    assert shown <= there, shown - there


def test_the_readme_shows_every_command_and_layer() -> None:
    words = (ROOT / "README.md").read_text()
    assert [name for name in application() if name.isalpha() and f"managedd {name}" not in words] == []
    architecture = words[words.index("## Architecture") : words.index("## Operations")]
    modules = [name for names in table("layer").values() for name in names if name != "__main__"]
    assert [name for name in modules if f"`{name}`" not in architecture] == []


def test_the_readme_argues_for_every_dependency() -> None:
    import tomllib

    words = (ROOT / "README.md").read_text()
    argued = words[words.index("## Dependencies") : words.index("## Glossary")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    names = [re.match(r"[A-Za-z0-9-]+", line)[0] for line in declared]  # type: ignore[index]
    rows = {
        name.strip() for line in argued.splitlines() if line.startswith("| ") for name in line.split("|")[1].split(",")
    }
    assert sorted(rows - {"package"}) == sorted(names)


def test_no_document_names_a_machine(text: tuple[Path, str]) -> None:
    assert re.findall(r"(?:/home|/root|/work|/Users)/\S*|\b10\.\d+\.\d+\.\d+\b|\b192\.168\.\d+\.\d+\b", text[1]) == []
