"""Killed while a deleted workspace is removed: it is nowhere to be seen, and the next start ends it."""

from __future__ import annotations

import json
import signal
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from managedd import failpoints
from managedd.bus import Bus
from managedd.model.logs import LogRecord
from managedd.store import logs, rows, workspaces
from managedd.store.database import Database
from managedd.store.resources import FLOW
from managedd.store.workspace_removal import STEP
from managedd.store.workspaces import ensure_default
from tests.crash.test_secrets import SERVE_SECONDS, Serving, command

if TYPE_CHECKING:
    from pathlib import Path

    from managedd.store.database import Tx

ROWS = 2 * STEP + 100

pytestmark = [pytest.mark.anyio, pytest.mark.crash]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def filled(folder: Path) -> tuple[str, str]:
    """Two workspaces with flows and lines, of a store that is closed again."""
    bus = Bus()
    db = await Database.open(folder / "state.db", bus=bus, migrations="managedd.store.migrations.state")
    lines = await Database.open(folder / "logs.db", bus=bus, migrations="managedd.store.migrations.logs")

    def body(tx: Tx) -> list[str]:
        ensure_default(tx, plan="pro")
        made = [workspaces.make(tx, account="acme", handle=handle, plan="pro").id for handle in ("mine", "others")]
        for workspace in made:
            for number in range(ROWS):
                rows.insert(tx.scoped(workspace), FLOW, {"name": f"flow-{number}"})
        return made

    try:
        mine, others = await db.write(body)
        for workspace in (mine, others):
            records = [LogRecord("l", 20, "text", time.time_ns() // 1000, None)] * ROWS
            await lines.write(lambda tx, records=records: logs.append(tx, records), workspace=workspace)  # type: ignore[misc]
    finally:
        await lines.close()
        await db.close()
    return mine, others


def left(folder: Path, workspace: str) -> tuple[int, int]:
    """How many flows and lines it has."""
    with closing(sqlite3.connect(folder / "state.db")) as db, closing(sqlite3.connect(folder / "logs.db")) as lines:
        flows = db.execute("SELECT count(*) FROM flows WHERE workspace_id = ?", (workspace,)).fetchone()[0]
        of = "SELECT key FROM log_workspaces WHERE id = ?"
        return flows, lines.execute(f"SELECT count(*) FROM logs WHERE workspace = ({of})", (workspace,)).fetchone()[0]


def until_gone(folder: Path, workspace: str) -> None:
    deadline = time.monotonic() + SERVE_SECONDS
    while left(folder, workspace) != (0, 0):
        assert time.monotonic() < deadline, left(folder, workspace)
        time.sleep(0.1)


@pytest.mark.parametrize("failpoint", sorted(failpoints.OF_WORKSPACES))
async def test_what_is_half_removed_is_nowhere_to_be_seen_and_goes_with_the_next_start(
    tmp_path: Path, failpoint: str
) -> None:
    mine, others = await filled(tmp_path)
    assert command(tmp_path, "workspace", "delete", "acme/mine", "--yes").returncode == 0
    with Serving(tmp_path, failpoint=failpoint) as killed:
        killed.process.communicate(timeout=SERVE_SECONDS)
        assert killed.process.returncode == -signal.SIGKILL
    flows, lines = left(tmp_path, mine)
    assert lines == ROWS
    assert flows == (0 if failpoint == "workspace.rows_gone" else ROWS - STEP)
    shown = json.loads(command(tmp_path, "workspace", "list", "--json").stdout)
    assert {each["handle"] for each in shown} == {"default", "others"}
    with Serving(tmp_path) as daemon:
        daemon.until("daemon.ready")
        until_gone(tmp_path, mine)
    assert left(tmp_path, others) == (ROWS, ROWS)
    with closing(sqlite3.connect(tmp_path / "state.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
