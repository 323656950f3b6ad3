"""The real Prefect client in a virtual environment of its own, the way a user has it: the daemon itself never imports prefect."""

from __future__ import annotations

import contextlib
import shutil
import sys
from typing import TYPE_CHECKING

from tests.support.steps import STATE, CannotProvisionError, install_packages, locked, run, step

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# `prefect server start` of this release, the peer in contract tests, needs the pins; its client alone would not.
REQUIREMENTS = ("prefect==3.8.8", "fastapi==0.150.0", "starlette==1.0.1", "SQLAlchemy>=2.0,<2.1")
FOLDER = STATE / "prefect-venv"


def ensure_prefect_venv(folder: Path = FOLDER, requirements: Sequence[str] = REQUIREMENTS) -> Path:
    """The returned folder is a complete virtual environment with Prefect; git is there for the flows it clones."""
    install_packages({"git": "git"})
    inputs = "\n".join((sys.version, sys.base_prefix, *requirements))
    with locked(folder.with_name(f"{folder.name}.lock")):
        complete = folder / ".complete"
        with contextlib.suppress(OSError):
            if complete.read_text() == inputs and (folder / "bin" / "python").exists():
                return folder
        # Built in place, since an environment cannot be moved: the mark that makes it count is written last.
        with step(f"making the virtual environment {folder.name}"):
            if folder.exists():
                shutil.rmtree(folder)
            python = folder / "bin" / "python"
            run([sys.executable, "-m", "venv", folder], otherwise="no virtual environment can be made")
            _install(python, requirements)
            complete.write_text(inputs)
    return folder


def _install(python: Path, requirements: Sequence[str]) -> None:
    reason = f"{requirements[0]} cannot be installed"
    try:
        run([python, "-m", "pip", "install", "--quiet", "uv"], otherwise=reason)
        run(
            [python.with_name("uv"), "pip", "install", "--python", python, "--compile-bytecode", *requirements],
            otherwise=reason,
        )
    except CannotProvisionError:
        # pip knows the index settings of this machine that uv does not read; it is slower.
        run([python, "-m", "pip", "install", "--quiet", *requirements], otherwise=reason)
