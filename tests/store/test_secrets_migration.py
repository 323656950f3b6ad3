"""A store of before envelopes becomes one with them: nothing is lost, and nothing of it is left in any byte of its files."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from managedd import ids
from managedd.bus import Bus
from managedd.model.secrets import MASK
from managedd.store import block_values, concealing, migrate, sealed, sealing, unlocking
from managedd.store.database import Database
from managedd.store.key_files import OWN_NAME

if TYPE_CHECKING:
    from pathlib import Path

HERE = ids.DEFAULT_WORKSPACE_ID
STATE = "managedd.store.migrations.state"
HUSH = b"hush-"
SECRET = {"type": "string", "format": "password"}
TEMPLATE = {"job_configuration": {}, "variables": {"properties": {"token": {**SECRET, "default": "hush-default"}}}}
VARIABLES = {"token": "hush-token", "open": "x"}
DOCUMENTS = {f"d{number}": {"value": f"hush-{number}" * (1 + number * 400)} for number in range(30)}
TIMES = {"created": 0, "updated": 0}


def insert(old: sqlite3.Connection, table: str, **values: Any) -> None:
    names = ", ".join(values)
    old.execute(f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' for _ in values)})", tuple(values.values()))


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """The folder of a store that the version of before has written."""
    known = migrate.load(STATE)
    last = next(number for number, migration in enumerate(known) if migration.name == "secrets")
    with closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as old:
        old.execute("PRAGMA auto_vacuum = INCREMENTAL")
        old.execute("PRAGMA journal_mode = WAL")
        migrate.apply(old, known[:last], 0)
        account = ids.DEFAULT_ACCOUNT_ID
        insert(old, "accounts", id=account, handle="default", name="default", created=0)
        insert(old, "workspaces", id=HERE, account_id=account, handle="default", name="d", plan="pro", **TIMES)
        scope = {"workspace_id": HERE, **TIMES}
        insert(old, "block_types", id="t", name="T", slug="t", **scope)
        insert(old, "block_schemas", id="s", block_type_id="t", checksum="c", **scope)
        for name, data in DOCUMENTS.items():
            values = {"id": name, "name": name, "block_type_id": "t", "block_schema_id": "s"}
            insert(old, "block_documents", **values, data=json.dumps(data), **scope)
        insert(old, "flows", id="f", name="f", **scope)
        for pool, template in (("p", TEMPLATE), ("plain", {})):
            insert(old, "work_pools", id=pool, name=pool, type="x", base_job_template=json.dumps(template), **scope)
            insert(old, "work_queues", id=f"q{pool}", name="q", work_pool_id=pool, priority=1, **scope)
        variables = json.dumps(VARIABLES)
        insert(old, "deployments", id="d", name="d", flow_id="f", work_queue_id="qp", job_variables=variables, **scope)
        insert(old, "flow_runs", id="r", name="r", flow_id="f", work_queue_id="qp", job_variables=variables, **scope)
        old.execute("DELETE FROM changes")
    return tmp_path


def with_secrets(folder: Path) -> list[str]:
    return [path.name for path in sorted(folder.iterdir()) if HUSH in path.read_bytes()]


@pytest.mark.anyio
@pytest.mark.parametrize("window", [1, 7, 500])
async def test_what_stood_in_clear_is_sealed_in_small_steps(before: Path, window: int) -> None:
    assert with_secrets(before) == ["state.db"]
    db = await Database.open(before / "state.db", bus=Bus(), migrations=STATE)
    try:
        await unlocking.unlock(db, before, None)

        def read(tx: Any) -> Any:
            tables = ((concealing.DEPLOYMENTS, "d"), (concealing.FLOW_RUNS, "r"))
            texts = [
                (table, row, tx.scalar(f"SELECT job_variables FROM {table} WHERE id = ?", (row,)))
                for table, row in tables
            ]
            clear = [concealing.text_in_clear(tx, table, row, "job_variables", text) for table, row, text in texts]
            return {name: block_values.by_id(tx, name) for name in DOCUMENTS}, clear, [text for *_, text in texts]

        while await db.write(lambda tx: sealing.step(tx, window)) is not None:
            documents, clear, _ = await db.read(read, workspace=HERE)
            assert documents == DOCUMENTS and clear == [VARIABLES, VARIABLES]
        documents, clear, shown = await db.read(read, workspace=HERE)
        assert documents == DOCUMENTS and clear == [VARIABLES, VARIABLES]
        assert all(json.loads(text) == {"token": MASK, "open": "x"} for text in shown)
        assert sum((await db.read(sealed.counts)).values()) == len(DOCUMENTS) + 3
        assert await db.read(lambda tx: tx.scalar("SELECT count(*) FROM changes")) == 0
        await db.checkpoint()
        assert with_secrets(before) == []
        assert await db.integrity() == []
    finally:
        await db.close()
    assert with_secrets(before) == [] and (before / OWN_NAME).exists()
