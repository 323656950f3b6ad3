"""Killed while everything is encrypted with another key, or for the first time: every row can be read, and the next start ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from managedd import failpoints, ids
from managedd.bus import Bus
from managedd.store import rows, sealed, sealing, secret_keys, unlocking
from managedd.store.database import Database
from managedd.store.key_files import OWN_NAME
from managedd.store.resources import BLOCK_DOCUMENT, BLOCK_SCHEMA, BLOCK_TYPE
from managedd.store.workspaces import ensure_default

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DOCUMENTS = 2 * sealing.WINDOW_ROWS + 7
HUSH = b"hush-"
SERVE_SECONDS = 60

pytestmark = [pytest.mark.anyio, pytest.mark.crash]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def environment(folder: Path, failpoint: str | None) -> dict[str, str]:
    """A daemon of this folder that needs nothing else of this host."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MANAGEDD_", failpoints.VARIABLE))}
    settings = {
        "MANAGEDD_STORE__DATA_DIR": str(folder),
        "MANAGEDD_SERVER__PORT": "0",
        "MANAGEDD_RUNS__LISTEN_PORT": "0",
        "MANAGEDD_RUNS__DRIVER": "process",
        "MANAGEDD_PROCESS__TRUSTED": "true",
    }
    return {**own, **settings, **({} if failpoint is None else {failpoints.VARIABLE: failpoint})}


def command(folder: Path, *arguments: str, failpoint: str | None = None) -> subprocess.CompletedProcess[str]:
    """What `managedd ARGUMENTS` did."""
    whole = [sys.executable, "-m", "managedd", *arguments]
    return subprocess.run(
        whole, env=environment(folder, failpoint), capture_output=True, text=True, timeout=SERVE_SECONDS, check=False
    )


class Serving:
    """`managedd serve` of a folder, killed at the end if it still lives."""

    def __init__(self, folder: Path, failpoint: str | None = None) -> None:
        whole = [sys.executable, "-m", "managedd", "serve"]
        self.process = subprocess.Popen(
            whole, env=environment(folder, failpoint), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Serving:
        return self

    def until(self, event: str) -> None:
        """It has logged `event`."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if f'"{event}"' in line:
                return
        raise AssertionError(f"it ended without {event}")

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate(timeout=SERVE_SECONDS)


async def opened(folder: Path, *, unlocked: bool = True) -> Database:
    db = await Database.open(folder / "state.db", bus=Bus(), migrations="managedd.store.migrations.state")
    if unlocked:
        await unlocking.unlock(db, folder, None)
    return db


async def filled(folder: Path, *, in_clear: bool) -> Mapping[str, Any]:
    """The documents, by their ids, of a store that is closed again."""
    db = await opened(folder)

    def body(tx: Any) -> dict[str, Any]:
        ensure_default(tx, plan="pro")
        type_id = rows.insert(tx, BLOCK_TYPE, {"name": "Secret", "slug": "secret"})
        schema_id = rows.insert(tx, BLOCK_SCHEMA, {"block_type_id": type_id, "checksum": "sha256:x", "fields": {}})
        made = {}
        for number in range(DOCUMENTS):
            data = {"value": f"hush-{number}"}
            values = {"name": str(number), "block_type_id": type_id, "block_schema_id": schema_id}
            document_id = rows.insert(tx, BLOCK_DOCUMENT, {**values, "data": data if in_clear else {}})
            if not in_clear:
                sealed.put(tx, BLOCK_DOCUMENT.name, document_id, data)
            made[document_id] = data
        if not in_clear:
            tx.execute("DELETE FROM unsealed")
        return made

    try:
        return await db.write(body, workspace=ids.DEFAULT_WORKSPACE_ID)
    finally:
        await db.close()


def files(folder: Path) -> tuple[list[str], list[str]]:
    """The files with keys, and those in which something secret can be read."""
    whole = [path for path in folder.iterdir() if path.is_file()]
    return (
        [path.name for path in whole if path.name.startswith(OWN_NAME)],
        [path.name for path in whole if HUSH in path.read_bytes()],
    )


async def check(folder: Path, documents: Mapping[str, Any], *, ended: bool) -> None:
    """Every document can be read; when it has ended, by one key, and nothing is left in clear."""
    from managedd.store import block_values

    db = await opened(folder)
    try:
        found = await db.read(
            lambda tx: {document_id: block_values.by_id(tx, document_id) for document_id in documents},
            workspace=ids.DEFAULT_WORKSPACE_ID,
        )
        keys = await db.read(secret_keys.every)
        left = await db.read(sealing.left)
        assert await db.integrity() == []
    finally:
        await db.close()
    assert found == documents
    if ended:
        assert len(keys) == 1 and not left
        assert files(folder) == ([OWN_NAME], [])


@pytest.mark.parametrize("name", ["secrets.begun", "secrets.step:1", "secrets.step:2", "secrets.renewed"])
async def test_a_rotation_on_a_closed_store(tmp_path: Path, name: str) -> None:
    documents = await filled(tmp_path, in_clear=False)
    killed = command(tmp_path, "secrets", "rotate", failpoint=name)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    await check(tmp_path, documents, ended=False)
    with Serving(tmp_path) as daemon:
        daemon.until("secrets.rotated" if name != "secrets.renewed" else "daemon.ready")
        assert '"rotating": false' in command(tmp_path, "secrets", "rotate", "--json").stdout
    await check(tmp_path, documents, ended=True)


@pytest.mark.parametrize("name", ["secrets.begun", "secrets.step:2"])
async def test_a_rotation_while_the_daemon_serves(tmp_path: Path, name: str) -> None:
    documents = await filled(tmp_path, in_clear=False)
    with Serving(tmp_path, name) as daemon:
        daemon.until("daemon.ready")
        asked = command(tmp_path, "secrets", "rotate")
        assert daemon.process.wait(SERVE_SECONDS) == -signal.SIGKILL, asked.stderr
        assert asked.returncode == 3 and "does not answer" in asked.stderr
    await check(tmp_path, documents, ended=False)
    assert command(tmp_path, "secrets", "rotate").returncode == 0
    await check(tmp_path, documents, ended=True)


@pytest.mark.parametrize("name", ["secrets.sealed:1", "secrets.sealed:3"])
async def test_the_first_start_with_rows_in_clear(tmp_path: Path, name: str) -> None:
    documents = await filled(tmp_path, in_clear=True)
    with Serving(tmp_path, name) as daemon:
        assert daemon.process.wait(SERVE_SECONDS) == -signal.SIGKILL
    await check(tmp_path, documents, ended=False)
    with Serving(tmp_path) as daemon:
        daemon.until("daemon.ready")
    await check(tmp_path, documents, ended=True)


async def test_a_store_whose_key_is_gone_is_not_served(tmp_path: Path) -> None:
    await filled(tmp_path, in_clear=False)
    (tmp_path / OWN_NAME).rename(tmp_path / "away")
    refused = command(tmp_path, "serve")
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert f"{DOCUMENTS} secrets of the store" in refused.stderr and "put it there again" in refused.stderr
    assert not (tmp_path / OWN_NAME).exists()


def test_every_failpoint_of_secrets_is_reached_here() -> None:
    assert {"secrets.begun", "secrets.step", "secrets.renewed", "secrets.sealed"} == failpoints.OF_SECRETS
