"""`make demo` on a machine that lacks something: what is missing is said, with the package to install."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(checkout: Path, *without: str, python: str = sys.executable) -> str:
    """What `make demo` says where these commands are missing; it must fail."""
    there = checkout / "bin"
    there.mkdir()
    for name in {"make", "bash", "git", "mkdir", "find", "flock", "touch", "rm", "mv"} - set(without):
        found = shutil.which(name)
        if found is not None:
            (there / name).symlink_to(found)
    command = [str(there / "make"), "demo", f"PYTHON={python}", f"SHELL={there / 'bash'}"]
    done = subprocess.run(
        command, cwd=checkout, env={"PATH": str(there)}, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert not (checkout / ".cache" / "demo" / "venv").exists()
    return done.stderr


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_git_that_is_missing_is_named(checkout: Path) -> None:
    assert "[demo] git is missing; on Debian: apt-get install git\n" in make(checkout, "git")


def test_a_python_that_makes_no_environments_needs_the_package_of_its_version(checkout: Path) -> None:
    # As Debian has it without that package.
    python = script(checkout / "python", f'case "$2" in *ensurepip*) exit 1;; esac\nexec {sys.executable} "$@"')
    said = make(checkout, python=python)
    assert f"can't make virtual environments; on Debian and Ubuntu: apt-get install python{VERSION}-venv\n" in said


@pytest.mark.parametrize("is_there", [True, False])
def test_a_python_that_is_too_old_or_missing_is_named(checkout: Path, is_there: bool) -> None:
    python = script(checkout / "python", "exit 1") if is_there else str(checkout / "nothing")
    assert f"[venv] {python} is missing or older than Python 3.11; name another with PYTHON=\n" in make(
        checkout, python=python
    )
