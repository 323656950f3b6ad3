"""Runs inside the Prefect client's environment: what Prefect's own server finds. Cases as JSON on stdin, one list of ids each on stdout."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from prefect.server import models
from prefect.server.database import provide_database_interface
from prefect.server.schemas import filters, sorting
from prefect.server.schemas.core import CreatedBy

ORM = {
    "flows": "Flow", "work_pools": "WorkPool", "work_queues": "WorkQueue", "deployments": "Deployment", "flow_runs": "FlowRun",
    "task_runs": "TaskRun", "artifacts": "Artifact", "artifact_collections": "ArtifactCollection", "variables": "Variable",
    "block_types": "BlockType", "block_schemas": "BlockSchema", "block_documents": "BlockDocument", "logs": "Log",
}  # fmt: skip
# Which of Prefect's functions applies which of its filters.
APPLY = {
    "flows": ("flows", "_apply_flow_filters", ("flows", "flow_runs", "task_runs", "deployments", "work_pools")),
    "flow_runs": (
        "flow_runs", "_apply_flow_run_filters", ("flows", "flow_runs", "task_runs", "deployments", "work_pools", "work_queues"),
    ),
    "task_runs": ("task_runs", "_apply_task_run_filters", ("flows", "flow_runs", "task_runs", "deployments")),
    "deployments": (
        "deployments", "_apply_deployment_filters",
        ("flows", "flow_runs", "task_runs", "deployments", "work_pools", "work_queues"),
    ),
    "artifacts": ("artifacts", "_apply_artifact_filters", ("flows", "flow_runs", "task_runs", "deployments", "artifacts")),
    "artifact_collections": (
        "artifacts", "_apply_artifact_collection_filters", ("flows", "flow_runs", "task_runs", "deployments", "artifacts"),
    ),
    "block_documents": (
        "block_documents", "_apply_block_document_filters", ("block_documents", "block_schemas", "block_types"),
    ),
}  # fmt: skip
IDS = ("id", "latest_id", "default_queue_id")
TIMES = ("created", "updated", "timestamp")
EXTRA: dict[str, dict[str, Any]] = {
    "work_queues": {"priority": 1},
    "block_documents": {"data": {}},
    "block_schemas": {"fields": {}},
}


def _value(column: str, value: Any) -> Any:
    if value is None:
        return None
    if column in IDS or (column.endswith("_id") and column != "default_queue_id"):
        return UUID(value)
    if column in TIMES or column.endswith("_time"):
        return datetime.fromisoformat(value)
    return CreatedBy.model_validate(value) if column == "created_by" else value


def _filter(table: str, given: Any) -> Any:
    return getattr(filters, f"{ORM[table]}Filter").model_validate(given)


async def _query(db: Any, case: dict[str, Any]) -> Any:
    table = case["table"]
    orm = getattr(db, ORM[table])
    query = sa.select(orm.id)
    given = {name: _filter(name, value) for name, value in case["filters"].items()}
    if table in APPLY:
        module, function, known = APPLY[table]
        named = {
            f"{'artifact' if name == 'artifact_collections' else name[:-1]}_filter": value
            for name, value in given.items()
        }
        assert set(named) <= {f"{name[:-1]}_filter" for name in known}, named
        applied = getattr(getattr(models, module), function)(db, query, **named)
        query = await applied if asyncio.iscoroutine(applied) else applied
    else:
        if table in given:
            query = query.where(given.pop(table).as_sql_filter())
        if "block_schemas" in given:
            schemas = given.pop("block_schemas").as_sql_filter()
            query = query.where(
                sa.select(db.BlockSchema).where(db.BlockSchema.block_type_id == orm.id, schemas).exists()
            )
        assert not given, given
    enum = getattr(sorting, f"{ORM[table]}Sort", None)
    if enum is None:
        column, _, direction = case["sort"].rpartition("_")
        return query.order_by(getattr(getattr(orm, column.lower()), direction.lower())())
    return query.order_by(*enum(case["sort"]).as_sql_sort())


def _concat(*texts: str | None) -> str:
    return "".join(text or "" for text in texts)


async def main() -> None:
    given = json.load(sys.stdin)
    db = provide_database_interface()
    engine = await db.engine()
    # SQLite has it from 3.44 on.
    sa.event.listen(engine.sync_engine, "connect", lambda raw, _: raw.create_function("concat", -1, _concat))
    for table in db.Base.metadata.tables.values():
        # Two of them have the same name, and nothing here is large.
        table.indexes.clear()
        # Rows may come in any order.
        table.constraints -= table.foreign_key_constraints
    async with engine.begin() as connection:
        await connection.run_sync(db.Base.metadata.create_all)
    answers = []
    async with await db.session() as session:
        for world in given:
            for table in reversed(ORM):
                await session.execute(sa.delete(getattr(db, ORM[table])))
            for table, name in ORM.items():
                columns = {column.name for column in getattr(db, name).__table__.columns}
                for row in world["rows"][table]:
                    values = {key: _value(key, value) for key, value in row.items() if key in columns}
                    await session.execute(sa.insert(getattr(db, name)).values(**values, **EXTRA.get(table, {})))
            for case in world["cases"]:
                found = await session.execute(await _query(db, case))
                answers.append([str(id_) for id_ in found.scalars().all()])
    json.dump(answers, sys.stdout)


asyncio.run(main())
