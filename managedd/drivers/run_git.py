"""Git inside a run: credentials in URLs are taken out of its arguments, which every user of the host can read in the process list.

Placed inside the run as the module `managedd_run_git`: standard library alone, Python 3.9 or newer. It is used in three ways: the
client's processes (`guard`) and the shim take the credentials out before git is started at all; `bin/git`, first in PATH, is the net for
everybody else (`main`); and git asks it for them when a server wants them (`main` with `credential`).
"""

from __future__ import annotations

import functools
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

# Not resolved: where this file is shared with other runs, the way to it leads through the run's own folder.
HERE = Path(__file__).absolute()
HOME = HERE.parent.parent
FOLDER = HOME / "git"
"""Holds the credentials (`urls`, one URL in a line, the latest last) and the configuration that leads git to them."""
URL = re.compile(r"(https?)://([^/?#\s]*)@([^/?#@\s\"\\]+)([^\s]*)", re.IGNORECASE)
REPLACEMENT = re.compile(r"(url\.)(https?://\S*@\S*)(\.(?:push)?insteadof=\S*)", re.IGNORECASE)
WITH_URLS = frozenset({"archive", "clone", "fetch", "ls-remote", "pull", "push", "remote", "request-pull", "submodule"})
"""The subcommands whose arguments are taken for URLs: in others, for example the message of a commit, one is just text."""
WITH_VALUE = frozenset({"-C", "-c", "--git-dir", "--work-tree", "--namespace", "--config-env", "--super-prefix", "--attr-source"})  # fmt: skip


def prepared(arguments: list[str], folder: Path = FOLDER) -> list[str]:
    """The arguments (without `git` itself) that do the same, with no credentials in them."""
    try:
        moved = _moved(arguments, folder)
    except OSError:
        # No place to keep them: the work of the run goes first.
        return arguments
    include = ["-c", f"include.path={folder / 'config'}"]
    if not (folder / "config").exists() or moved[:2] == include:
        return moved
    return [*include, *moved]


def _moved(arguments: list[str], folder: Path) -> list[str]:
    moved: list[str] = []
    subcommand: str | None = None
    option: str | None = None
    for argument in arguments:
        if subcommand is not None:
            found = URL.fullmatch(argument) if subcommand in WITH_URLS else None
            moved.append(keep(found, folder) if found else argument)
            continue
        if option is not None:
            rule = REPLACEMENT.fullmatch(argument) if option == "-c" else None
            found = URL.fullmatch(rule[2]) if rule else None
            moved.append(f"{rule[1]}{keep(found, folder)}{rule[3]}" if rule and found else argument)
            option = None
            continue
        if argument in WITH_VALUE:
            option = argument
        elif not argument.startswith("-"):
            subcommand = argument
        moved.append(argument)
    return moved


def keep(url: re.Match[str], folder: Path = FOLDER) -> str:
    """The URL without its credentials, which git will get from us when it needs them."""
    scheme, credentials, host, path = url.groups()
    base = f"{scheme.lower()}://{host}"
    _append(folder / "urls", f"{base[: len(scheme) + 3]}{credentials}@{host}{path}\n")
    section = f'[credential "{base}"]\n'
    config = folder / "config"
    if not config.exists() or section not in config.read_text():
        asked = f"!{shlex.quote(sys.executable)} -IS {shlex.quote(str(HERE))} credential"
        asked = asked.replace("\\", "\\\\").replace('"', '\\"')
        # The empty one stands for: nobody else's. Who wrote a credential into the URL meant that one.
        _append(config, f'{section}\thelper =\n\thelper = "{asked}"\n\tuseHttpPath = true\n')
    return f"{base}{path}"


def _append(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, os.fsencode(text))
    finally:
        os.close(descriptor)


def credential(wanted: dict[str, str], urls: list[str]) -> tuple[str, str] | None:
    """User name and password for what git wants: those given for its repository, else for the nearest one on the same host."""
    path = _parts(wanted.get("path", ""))
    best: tuple[tuple[bool, int, int], tuple[str, str]] | None = None
    for position, line in enumerate(urls):
        found = URL.fullmatch(line)
        if found is None or (found[1], found[3].lower()) != (wanted.get("protocol"), wanted.get("host", "").lower()):
            continue
        name, _, password = found[2].partition(":")
        given = (unquote(name), unquote(password))
        if "\n" in "".join(given) or wanted.get("username", given[0]) != given[0]:
            continue
        own = _parts(found[4])
        rank = (own == path, _shared(own, path), position)
        if best is None or rank > best[0]:
            best = (rank, given)
    return best[1] if best else None


def _parts(path: str) -> list[str]:
    path = re.split("[@?#]", path, maxsplit=1)[0].strip("/")
    return (path[:-4] if path.endswith(".git") else path).split("/")


def _shared(one: list[str], other: list[str]) -> int:
    """How many parts the two begin with alike."""
    shared = 0
    while shared < min(len(one), len(other)) and one[shared] == other[shared]:
        shared += 1
    return shared


def answer(action: str, folder: Path = FOLDER) -> None:
    """Git has its answer: one of its credential helpers speaks."""
    wanted = dict(line.rstrip("\n").split("=", 1) for line in sys.stdin if "=" in line)
    if action != "get":
        return
    try:
        urls = os.fsdecode((folder / "urls").read_bytes()).splitlines()
    except OSError:
        return
    if (found := credential(wanted, urls)) is not None:
        sys.stdout.write(f"username={found[0]}\npassword={found[1]}\n")


def real_git(own: Path, search: str | None) -> str | None:
    """The git that would have been started without ours."""
    for place in os.get_exec_path({"PATH": search} if search is not None else {}):
        candidate = os.path.join(place or ".", "git")
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK) and not os.path.samefile(candidate, own):
            return candidate
    return None


def guard() -> None:
    """Whatever this process starts as `git` gets its credentials from us and not by its arguments."""
    original = subprocess.Popen.__init__

    @functools.wraps(original)
    def start(self: Any, args: Any, *rest: Any, **options: Any) -> None:
        if isinstance(args, (list, tuple)) and args and all(isinstance(one, (str, os.PathLike)) for one in args):
            texts = [os.fspath(one) for one in args]
            if all(isinstance(one, str) for one in texts) and os.path.basename(texts[0]) == "git":
                args = [texts[0], *prepared(texts[1:])]
        original(self, args, *rest, **options)

    subprocess.Popen.__init__ = start  # type: ignore[method-assign]


def main(arguments: list[str]) -> int:
    """The real git runs in this process's place; a code is returned only where there is none."""
    own = HOME / "bin" / "git"
    git = real_git(own, os.environ.get("PATH"))
    if git is None:
        sys.stderr.write("git: command not found\n")
        return 127
    # Python ignores these, and what is ignored stays so in the next program.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    os.execv(git, ["git", *prepared(arguments)])  # noqa: S606 (as whoever called us wanted it)


if __name__ == "__main__":
    if sys.argv[1:2] == ["credential"]:
        answer("".join(sys.argv[2:3]))
    else:
        sys.exit(main(sys.argv[1:]))
