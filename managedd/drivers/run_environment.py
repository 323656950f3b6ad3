"""Python environments on this host: shared ones, and the thin one of each run over them.

Placed inside a run, where it is the installer that the shim calls (`install`), and used by the daemon: standard library alone, Python 3.9
or newer. A shared environment is never changed once it is complete; what a run installs by itself goes to its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

COMPLETE = ".complete"
"""Written last; an environment without it is half made."""
USERS = ".users"
"""Holds a link to the folder of each run that uses the environment: it is in use as long as that folder is there."""
NOT_CLONED = frozenset({COMPLETE, USERS})
COPIED = ("bin", ".dist-info")
"""Folders whose files an installer may write into, rather than replace: a link would change the original."""
SCRIPT_MAX_BYTES = 1_000_000
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
PINNED = re.compile(r"===?\s*[^\s*,;]+\s*(?:;.*)?$")
INDEXES = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_CONFIG_FILE")
DAY_SECONDS = 86_400


def say(line: str) -> None:
    """The line is in the run's log: the shim reads what we print."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@contextlib.contextmanager
def locked(path: str, *, wait: bool = True, said: str | None = None) -> Iterator[int]:
    """The lock of that file is ours for the block; `said` is printed when somebody else has it. Raises BlockingIOError without `wait`."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    raise
                if said is not None:
                    say(said)
                fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.exists(path) and os.fstat(lock).st_ino == os.stat(path).st_ino:
                yield lock
                return
            # It was removed with its environment while we waited.
        finally:
            os.close(lock)


def facts_of(environment: str) -> dict[str, Any] | None:
    """What its maker wrote down of it; None when it is not complete, or its Python is gone from the host."""
    try:
        with open(os.path.join(environment, COMPLETE), encoding="utf-8") as file:
            facts = json.load(file)
    except (OSError, ValueError):
        return None
    return facts if type(facts) is dict and os.path.exists(python_of(environment)) else None


def complete(environment: str, facts: dict[str, Any]) -> None:
    """The environment is complete, and stays so over a power cut."""
    os.makedirs(os.path.join(environment, USERS), exist_ok=True)
    marker = os.path.join(environment, COMPLETE)
    with open(marker + ".new", "w", encoding="utf-8") as file:
        json.dump(facts, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(marker + ".new", marker)


def python_of(environment: str) -> str:
    """Its interpreter."""
    return os.path.join(environment, "bin", "python")


def packages_of(environment: str) -> str:
    """The folder into which its packages are installed."""
    library = os.path.join(environment, "lib")
    version = next(name for name in sorted(os.listdir(library)) if name.startswith("python"))
    return os.path.join(library, version, "site-packages")


def clone(source: str, target: str) -> None:
    """`target` is a new environment with what `source` has: the same files where nobody writes into them."""
    for folder, folders, files in os.walk(source):
        place = os.path.join(target, os.path.relpath(folder, source))
        os.makedirs(place, exist_ok=True)
        is_copied = folder.endswith(COPIED)
        for name in [*files, *(name for name in folders if os.path.islink(os.path.join(folder, name)))]:
            if folder == source and name in NOT_CLONED:
                continue
            one, other = os.path.join(folder, name), os.path.join(place, name)
            if os.path.islink(one):
                os.symlink(os.readlink(one), other)
            elif folder == source or (is_copied and os.path.getsize(one) < SCRIPT_MAX_BYTES):
                shutil.copy2(one, other)
            else:
                link(one, other)
        if folder == source:
            folders[:] = [name for name in folders if name not in NOT_CLONED]


def link(one: str, other: str) -> None:
    """`other` is the same file as `one`, or a copy where two file systems are between them."""
    try:
        os.link(one, other)
    except OSError:
        shutil.copy2(one, other)


def lay_over(own: str, environment: str, run: str) -> None:
    """The run's own environment has all of the shared one's packages and commands, which counts the run among its users."""
    users = os.path.join(environment, USERS, os.path.basename(run))
    with contextlib.suppress(FileExistsError):
        os.symlink(run, users)
    os.utime(os.path.join(environment, COMPLETE))
    packages = packages_of(environment)
    mine = os.path.join(own, os.path.relpath(packages, environment))
    commands = os.path.join(own, "bin")
    os.makedirs(mine, exist_ok=True)
    os.makedirs(commands, exist_ok=True)
    shutil.copyfile(os.path.join(environment, "pyvenv.cfg"), os.path.join(own, "pyvenv.cfg"))
    with open(os.path.join(mine, "_shared.pth"), "w", encoding="utf-8") as file:
        # Added as a site of its own, so that what is installed there by .pth files counts too.
        file.write(f"import site; site.addsitedir({packages!r})\n")
    for name in os.listdir(os.path.join(environment, "bin")):
        one, other = os.path.join(environment, "bin", name), os.path.join(commands, name)
        if os.path.lexists(other):
            if os.path.islink(one):
                continue  # the interpreter, by which we may be running
            os.unlink(other)
        if os.path.islink(one):
            os.symlink(os.readlink(one), other)
        elif os.path.getsize(one) > SCRIPT_MAX_BYTES:
            os.symlink(one, other)
        else:
            # Its first line leads to the interpreter beside it, and the run may overwrite it.
            shutil.copy2(one, other)


def users_of(environment: str) -> list[str]:
    """The folders of the runs that use it now."""
    place = os.path.join(environment, USERS)
    found = []
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(place):
            # One that has just gone, or is no link, says nothing about the others.
            with contextlib.suppress(OSError):
                run = os.readlink(os.path.join(place, name))
                if os.path.isdir(run):
                    found.append(run)
    return found


def set_key(base: str, requirements: list[str], index: dict[str, str], now: float) -> str | None:
    """What names the environment with those packages; None when it may not be shared: what is behind an address can change.

    Without exact versions an environment is as of a day (UTC), so that new releases come without anybody doing anything.
    """
    wanted = sorted({" ".join(requirement.split()) for requirement in requirements})
    if any("://" in requirement or NAME.match(requirement) is None for requirement in wanted):
        return None
    day = None if all(PINNED.search(requirement) for requirement in wanted) else int(now // DAY_SECONDS)
    text = json.dumps([base, wanted, sorted(index.items()), day])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def pins(base: dict[str, Any], requirements: list[str]) -> list[str]:
    """What the resolver must keep: the Prefect of the base, unless the user wants another."""
    names = (NAME.match(requirement) for requirement in requirements)
    own = {re.sub(r"[-_.]+", "-", name[0]).lower() for name in names if name}
    return [] if "prefect" in own else [f"prefect=={base['prefect']}"]


def install(requirements_path: str, run: str) -> int:
    """The run's own environment has the packages of that file; the exit code says whether."""
    with open(requirements_path, encoding="utf-8") as file:
        requirements = file.read().splitlines()
    with open(os.path.join(run, "installing.json"), encoding="utf-8") as file:
        place = json.load(file)
    os.unlink(file.name)
    base, own = place["base"], os.path.join(run, "env")
    facts = facts_of(base)
    if facts is None:
        say(f"the environment {os.path.basename(base)} is gone")
        return 1
    os.environ.pop("UV_NO_CACHE", None)
    for name, value in place["install_env"].items():
        os.environ.setdefault(name, value)
    index = {name: os.environ[name] for name in INDEXES if name in os.environ}
    key = set_key(facts["key"], requirements, index, time.time())
    if key is None:
        made = os.path.join(run, "packages")
        return _make(made, base, facts, requirements, requirements_path, own, run, ())
    made = os.path.join(place["folder"], f"packages-{key}")
    with locked(f"{made}.lock", said="Waiting for another run that installs the same packages") as lock:
        if facts_of(made) is not None:
            say("Cached: these packages were installed for an earlier run")
            lay_over(own, made, run)
            return 0
        return _make(made, base, facts, requirements, requirements_path, own, run, (lock,))


def _make(made: str, base: str, facts: dict[str, Any], requirements: list[str], requirements_path: str, own: str, run: str,
          kept: tuple[int, ...]) -> int:  # fmt: skip
    shutil.rmtree(made, ignore_errors=True)
    clone(base, made)
    constraint = os.path.join(run, "pins.txt")
    with open(constraint, "w", encoding="utf-8") as file:
        file.write("".join(f"{pin}\n" for pin in pins(facts, requirements)))
    command = [
        os.path.join(base, "bin", "uv"), "pip", "install", "--python", python_of(made), "--compile-bytecode",
        "--requirement", requirements_path, "--requirement", constraint,
    ]  # fmt: skip
    # It holds the lock as long as it lives, also when we are killed.
    ended = subprocess.run(command, check=False, pass_fds=kept)  # noqa: S603 (our own installer)
    if ended.returncode != 0:
        shutil.rmtree(made, ignore_errors=True)
        return ended.returncode
    complete(made, {**facts, "key": os.path.basename(made)})
    lay_over(own, made, run)
    return 0


if __name__ == "__main__":
    sys.exit(install(sys.argv[1], os.path.dirname(os.path.abspath(__file__))))
