"""Git inside a run: credentials get to the server, and never into an argument of git."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import resources
from typing import TYPE_CHECKING

import pytest

from managedd.drivers import run_git
from tests.support.git_server import GIT, GitServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKEN = "ghp_tokenOfAPrivateRepository0815"
SPY = """#!{python} -IS
import json, os, sys
with open({seen!r}, "a") as seen:
    seen.write(json.dumps(sys.argv[1:]) + "\\n")
os.execv({git!r}, ["git", *sys.argv[1:]])
"""


class Place:
    """A run's folder with a git server beside it; between ours and the real git stands one that writes down what it is given.

    Our files lie in that folder, or in one of their own that other runs share.
    """

    def __init__(self, folder: Path, server: GitServer, *, is_shared: bool) -> None:
        self.folder = folder
        self.server = server
        self.home = folder / "run"
        self.home.mkdir()
        self.files = folder / "shared" if is_shared else self.home
        self.options = (f"--folder={self.home}",) if is_shared else ()
        (self.files / "python").mkdir(parents=True)
        here = resources.files("managedd.drivers")
        for source, name in (
            ("shim", "shim"),
            ("run_git", "python/managedd_run_git"),
            ("run_log", "python/managedd_run_log"),
        ):
            (self.files / f"{name}.py").write_bytes((here / f"{source}.py").read_bytes())
        self.seen = folder / "seen"
        spy = folder / "spy" / "git"
        spy.parent.mkdir()
        spy.write_text(SPY.format(python=sys.executable, seen=str(self.seen), git=str(shutil.which("git"))))
        spy.chmod(0o755)
        self.env = {
            **GIT,
            "PATH": f"{spy.parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "GIT_TERMINAL_PROMPT": "0",
        }

    def run(self, *command: str, stdin: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-B", str(self.files / "shim.py"), *self.options, "--", *command], env={**self.env, **env}, cwd=self.folder, input=stdin,
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

    def sh(self, script: str, **options: str) -> subprocess.CompletedProcess[str]:
        return self.run("sh", "-ec", script, **options)

    @property
    def arguments(self) -> str:
        """All that the real git was given."""
        return self.seen.read_text()

    def url(self, credentials: str, repository: str = "private") -> str:
        return f"{self.server.url}/{repository}.git".replace("://", f"://{credentials}@")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    with GitServer(tmp_path_factory.mktemp("git"), "127.0.0.1").serving() as serving:
        serving.repository("private", {"a.txt": "private"}, token=TOKEN)
        serving.repository("other", {"b.txt": "other"}, token="another-token-of-this-host")
        yield serving


@pytest.fixture(params=["own files", "shared files"])
def place(request: pytest.FixtureRequest, tmp_path: Path, server: GitServer) -> Iterator[Place]:
    made = Place(tmp_path, server, is_shared=request.param == "shared files")
    yield made
    if made.files != made.home:
        assert {path.name for path in made.files.iterdir()} == {"shim.py", "python"}


@pytest.mark.parametrize("credentials", [TOKEN, f"x-access-token:{TOKEN}", f"oauth2:{TOKEN}", f"{TOKEN}:x-oauth-basic"])
def test_a_private_repository_is_cloned_and_fetched_from_later(place: Place, credentials: str) -> None:
    done = place.sh(
        f"git clone --quiet {place.url(credentials)} w && cd w && git fetch --quiet origin && git remote -v && cat .git/config"
    )
    assert done.returncode == 0, done.stderr
    assert (place.folder / "w" / "a.txt").read_text() == "private"
    assert TOKEN not in done.stdout + done.stderr
    assert '"clone"' in place.arguments
    assert TOKEN not in place.arguments
    assert {path.stat().st_mode & 0o777 for path in (place.home / "git").iterdir()} == {0o600}
    assert (place.home / "git").stat().st_mode & 0o777 == 0o700


def test_encoded_credentials_are_decoded_and_wrong_ones_refused(place: Place, server: GitServer) -> None:
    server.repository("odd", {"c.txt": "odd"}, token="p@ss/word:1")
    assert place.sh(f"git clone -q {place.url('user:p%40ss%2Fword%3A1', 'odd')} w").returncode == 0
    wrong = place.sh(f"git clone -q {place.url('user:wrong', 'private')} x")
    assert wrong.returncode == 128
    assert "Authentication failed" in wrong.stderr


def test_each_repository_gets_its_own(place: Place) -> None:
    done = place.sh(
        f"git clone -q {place.url(TOKEN)} one; git clone -q {place.url('u:another-token-of-this-host', 'other')} two; "
        "git -C one fetch -q; git -C two fetch -q; git -C one ls-remote -q"
    )
    assert done.returncode == 0, done.stderr


def test_submodules_as_the_client_asks_for_them(place: Place, server: GitServer, tmp_path: Path) -> None:
    """It hands the credentials of the host over as a replacement of addresses."""
    server.repository("parent", {"d.txt": "parent"}, token=TOKEN)
    work = tmp_path / "work"
    git = ["git", "-c", "protocol.file.allow=always"]
    env = {**os.environ, **GIT}
    subprocess.run([*git, "clone", "-q", str(server.folder / "parent.git"), str(work)], check=True, env=env)
    subprocess.run(
        [*git, "submodule", "--quiet", "add", str(server.folder / "private.git"), "sub"], cwd=work, check=True, env=env
    )
    subprocess.run(
        [*git, "config", "-f", ".gitmodules", "submodule.sub.url", f"{server.url}/private.git"],
        cwd=work,
        check=True,
        env=env,
    )
    subprocess.run([*git, "commit", "-qam", "Submodule"], cwd=work, check=True, env=env)
    subprocess.run([*git, "push", "-q"], cwd=work, check=True, env=env)
    base = server.url
    with_token = base.replace("://", f"://oauth2:{TOKEN}@")
    done = place.sh(
        f"git -c url.{with_token}.insteadOf={base} clone -q {place.url('oauth2:' + TOKEN, 'parent')} --recurse-submodules --depth 1 w"
    )
    assert done.returncode == 0, done.stderr
    assert (place.folder / "w" / "sub" / "a.txt").read_text() == "private"
    assert TOKEN not in place.arguments


def test_all_else_is_gits(place: Place) -> None:
    assert (
        place.run("git", "hash-object", "--stdin", stdin="hello\n").stdout.strip()
        == "ce013625030ba8dba906f756967f9e9ca394464a"
    )
    assert place.run("git", "no-such-command").returncode == 1
    assert place.run("git", "rev-parse", "--verify", "nothing").returncode == 128
    # Ended by the signal as git itself would be: nobody reads what it writes.
    piped = place.sh("git init -q w; cd w; (git -c alias.many='!yes' many || echo $? >../code) | head -1; cat ../code")
    assert piped.stdout.split() == ["y", "141"]
    message = f"see https://somebody:{TOKEN}@host/path"
    place.sh(f"cd w; git commit -q --allow-empty -m '{message}'")
    assert place.sh("cd w; git log -1 --format=%s").stdout.strip() == message


def test_a_users_own_git_comes_first_and_finds_the_real_one(place: Place) -> None:
    own = place.folder / "own" / "git"
    own.parent.mkdir()
    own.write_text('#!/bin/sh\necho mine\nPATH=${PATH#*:}\nexec git "$@"\n')
    own.chmod(0o755)
    done = place.sh(f"PATH={own.parent}:$PATH; git clone -q {place.url(TOKEN)} w")
    assert (done.returncode, done.stdout) == (0, "mine\n"), done.stderr
    assert TOKEN not in place.arguments


def test_without_git_there_is_none(place: Place) -> None:
    empty = place.folder / "empty"
    empty.mkdir()
    done = place.run(sys.executable, "-c", "import shutil; print(shutil.which('git'))", PATH=str(empty))
    assert done.stdout == "None\n"


def test_where_nothing_can_be_kept_git_works_as_before(place: Place) -> None:
    (place.home / "git").write_text("in the way")
    done = place.sh(f"git clone -q {place.url('oauth2:' + TOKEN)} w")
    assert done.returncode == 0, done.stderr


def test_a_process_of_the_client_starts_git_without_credentials(place: Place) -> None:
    """Not even for the moment in which ours would take them out."""
    code = (
        "import asyncio, subprocess, sys, managedd_run_log\n"
        "from pathlib import Path\n"
        "subprocess.run(['git', 'clone', '-q', sys.argv[1], Path('one')], check=True)\n"
        "async def more():\n"
        "    process = await asyncio.create_subprocess_exec('git', 'clone', '-q', sys.argv[1], 'two')\n"
        "    assert await process.wait() == 0\n"
        "asyncio.run(more())\n"
        "subprocess.run(['git', '-C', 'one', 'fetch', '-q'], check=True)\n"
    )
    # Ours is not in the way here: what is seen is what the process itself starts.
    done = place.run(
        sys.executable,
        "-c",
        f"import os; os.environ['PATH'] = os.environ['PATH'].partition(':')[2]\n{code}",
        place.url(TOKEN),
    )
    assert done.returncode == 0, done.stderr
    started = [json.loads(line) for line in place.arguments.splitlines()]
    assert [arguments[-2:] for arguments in started[:2]] == [
        [f"{place.server.url}/private.git", name] for name in ("one", "two")
    ]
    assert TOKEN not in place.arguments


def test_requirements_are_installed_without_credentials_in_arguments(place: Place, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "uv").write_text('#!/bin/sh\nfor last; do :; done\ncat "$last" >"$HOME/wanted"\n')
    (tools / "uv").chmod(0o755)
    requirements = place.home / "requirements.txt"
    requirements.write_text(f"plain>=1\nnamed @ git+{place.url(TOKEN)}@main\nhttps://u:{TOKEN}@index/one.whl\n")
    done = place.run("git", "ls-remote", f"{place.server.url}/private.git", PATH=f"{tools}:{place.env['PATH']}")
    assert done.returncode == 0, done.stderr
    wanted = (tmp_path / "wanted").read_text()
    assert wanted == f"plain>=1\nnamed @ git+{place.server.url}/private.git@main\nhttps://u:{TOKEN}@index/one.whl\n"
    assert "refs/heads/main" in done.stdout
    assert TOKEN not in done.stdout


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"host": "h", "path": "a/b.git"}, ("one", "")),
        ({"host": "H", "path": "a/b"}, ("one", "")),
        ({"host": "h", "path": "a/c.git"}, ("two", "p@ss")),
        ({"host": "h", "path": "a/d.git"}, ("two", "p@ss")),
        ({"host": "h", "path": "z/z"}, ("three", "x")),
        ({"host": "h", "path": "a/b", "username": "three"}, ("three", "x")),
        ({"host": "h", "path": "a/b", "username": "nobody"}, None),
        ({"host": "h:8443", "path": "a/b"}, None),
        ({"host": "other", "path": "a/b"}, None),
        ({"host": "h", "path": "a/b", "protocol": "http"}, None),
    ],
)
def test_which_credential_is_meant(wanted: dict[str, str], expected: tuple[str, str] | None) -> None:
    urls = ["https://one@h/a/b.git", "https://two:p%40ss@h/a/c", "https://three:x@h/y/z.git@main", "nonsense"]
    assert run_git.credential({"protocol": "https", **wanted}, urls) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ["clone", "git@github.com:org/repo.git"],
        ["clone", "ssh://git@host/repo"],
        ["clone", "https://host/repo@v1"],
        ["commit", "-m", "https://a:b@h/"],
        ["-C", "https://a:b@h", "status"],
        [],
    ],
)
def test_what_holds_no_credentials_stays(tmp_path: Path, arguments: list[str]) -> None:
    assert run_git.prepared(arguments, tmp_path) == arguments
    assert list(tmp_path.iterdir()) == []
