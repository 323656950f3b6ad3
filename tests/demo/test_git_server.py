"""The demo's git server: a real git clones from it, and can do nothing else."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
from typing import TYPE_CHECKING

import aiohttp
import anyio
import pytest

from managedd.config import ServerSection
from managedd.demo.git_server import MAX_BODY_BYTES, GitServer, git_environment, make_repository

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

FILES = {"sales.py": "print('sold')\n", "README.md": "# Fruit\n"}
UPLOAD = "application/x-git-upload-pack-request"


@pytest.fixture
async def source(anyio_backend: str, tmp_path: Path) -> AsyncIterator[str]:
    await make_repository(tmp_path / "repository", FILES)
    (tmp_path / "secret.git").mkdir()
    server = GitServer(tmp_path / "repository", "demo")
    async with server.serving("127.0.0.1", "127.0.0.1", ServerSection()) as url:
        yield url


async def git(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    with anyio.fail_after(60):
        return await anyio.run_process(
            ["git", *arguments],
            cwd=folder,
            env=git_environment(folder, NO_PROXY="*", **environment),
            stderr=subprocess.STDOUT,
            check=False,
        )


@pytest.mark.parametrize("version", ["0", "1", "2"])
async def test_git_clones_one_commit_deep(source: str, tmp_path: Path, version: str) -> None:
    done = await git(tmp_path, "-c", f"protocol.version={version}", "clone", "--depth", "1", source, "clone")
    assert done.returncode == 0, done.stdout
    assert {name: (tmp_path / "clone" / name).read_text() for name in FILES} == FILES
    branch = await git(tmp_path / "clone", "branch", "--show-current")
    assert branch.stdout.strip() == b"main"


async def test_many_clone_at_once(source: str, tmp_path: Path) -> None:
    async with anyio.create_task_group() as tasks:
        for number in range(12):
            tasks.start_soon(git, tmp_path, "clone", "--depth", "1", source, f"clone-{number}")
    assert all((tmp_path / f"clone-{number}" / "sales.py").exists() for number in range(12))


async def test_a_push_is_refused(source: str, tmp_path: Path) -> None:
    await git(tmp_path, "clone", source, "clone")
    clone = tmp_path / "clone"
    (clone / "sales.py").write_text("changed\n")
    assert (await git(clone, "commit", "--all", "--message", "Changed")).returncode == 0
    pushed = await git(clone, "push", "origin", "HEAD:main")
    assert pushed.returncode != 0
    assert b"403" in pushed.stdout
    there = await git(tmp_path / "repository", "log", "--format=%s")
    assert b"Changed" not in there.stdout


async def test_other_paths_are_not_found(source: str) -> None:
    root = source.removesuffix("/demo.git")
    async with aiohttp.ClientSession() as session:
        for path in (
            "/",
            "/demo.git",
            "/demo.git/HEAD",
            "/demo.git/config",
            "/demo.git/info/refs",
            "/demo.git/objects/info/packs",
            "/demo.git/../secret.git/info/refs?service=git-upload-pack",
            "/secret.git/info/refs?service=git-upload-pack",
            "/demo.git/info/refs/?service=git-upload-pack",
        ):
            async with session.get(root + path) as response:
                assert response.status == 404, path
        async with session.get(f"{source}/info/refs?service=git-receive-pack") as response:
            assert response.status == 403
        async with session.post(f"{source}/git-receive-pack", data=b"0000") as response:
            assert response.status == 404


async def test_a_request_is_bounded(source: str) -> None:
    async with aiohttp.ClientSession(headers={"Content-Type": UPLOAD}) as session:
        url = f"{source}/git-upload-pack"
        async with session.post(url, data=io.BytesIO(bytes(MAX_BODY_BYTES + 1))) as response:
            assert response.status == 413
        packed = gzip.compress(bytes(MAX_BODY_BYTES + 1))
        assert len(packed) < MAX_BODY_BYTES
        async with session.post(url, data=packed, headers={"Content-Encoding": "gzip"}) as response:
            assert response.status == 413
        for encoding, status in (("gzip", 400), ("br", 415)):
            async with session.post(url, data=b"is not packed", headers={"Content-Encoding": encoding}) as response:
                assert response.status == status
        async with session.post(url, data=b"no git at all") as response:
            assert response.status == 400
        async with session.post(url, data=b"0000", headers={"Content-Type": "text/plain"}) as response:
            assert response.status == 415


async def test_the_host_s_git_settings_do_not_matter(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        '[init]\n\tdefaultBranch = other\n[commit]\n\tgpgsign = true\n[user]\n\tname = ""\n'
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(home / ".gitconfig"))
    monkeypatch.setenv("GIT_DIR", os.devnull)
    await make_repository(tmp_path / "second", FILES)
    said = await git(tmp_path / "second", "log", "--format=%an %D")
    assert said.stdout.strip() == b"managedd demo HEAD -> main"
