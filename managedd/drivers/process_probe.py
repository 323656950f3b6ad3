"""What runs as processes need of this host, looked at without making anything."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio

from managedd.drivers.process_cgroup import CONTROLLERS, SUBGROUP
from managedd.drivers.process_env import PYTHON, uv_program, wanted_by
from managedd.errors import ManagedError
from managedd.model.drivers import ImageError

SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What is there; the words say what is wrong with what is not."""

    uv: str | None
    uv_words: str | None
    python: str | None
    """The path of the interpreter that environments would be made from."""
    python_wanted: str
    image_words: str | None
    """Why the image's name does not say what to install."""


async def needs(image: str, python: str | None) -> Needs:
    """What there is of uv, Python and the image's name."""
    image_words, wanted = None, python or PYTHON
    try:
        wanted = wanted_by(image).python or wanted
    except ImageError as error:
        image_words = str(error)
    version = found = words = None
    try:
        program = uv_program()
        version = (await _said(program, "--version")).removeprefix("uv ").strip() or None
        found = (await _said(program, "python", "find", "--system", "--no-python-downloads", wanted)).strip() or None
    except (ManagedError, ImportError, OSError, TimeoutError) as error:
        words = error.message if isinstance(error, ManagedError) else f"uv can't be asked: {error}"
    return Needs(uv=version, uv_words=words, python=found, python_wanted=wanted, image_words=image_words)


async def _said(program: str, *arguments: str) -> str:
    with anyio.fail_after(SECONDS):
        # In a folder where no project has a word in what Python is to be.
        done = await anyio.run_process(
            [program, *arguments], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, cwd="/"
        )
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""


def held_here(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> frozenset[str]:
    """The controllers that a daemon started from here could limit its runs with, as far as permissions tell."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return frozenset()
    paths = {name: path for _, names, path in lines for name in names.split(",")}
    if (root / "cgroup.controllers").exists():
        here = root / paths.get("", "/").strip("/")
        given = here.parent / "cgroup.controllers"
        if here.name != SUBGROUP or not os.access(here.parent / "cgroup.subtree_control", os.W_OK):
            return frozenset()
        return frozenset(given.read_text().split()) & frozenset(CONTROLLERS)
    return frozenset(name for name in CONTROLLERS if name in paths and _writable(root / name, paths[name]))


def _writable(mount: Path, path: str) -> bool:
    above = mount / path.strip("/")
    return os.access(above if above.is_dir() else mount, os.W_OK)
