"""A random world inside the store, and the store's answers to queries over it."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from managedd import ids
from managedd.clock import to_us
from managedd.model.logs import LogRecord
from managedd.store import logs as log_store
from managedd.store import positions, resources, rows
from tests.support.filter_world import FILTERS
from tests.support.sync_store import SyncStore, with_workspaces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from managedd.store.tables import Table
    from managedd.store.transaction import Tx
    from tests.support.filter_world import World

TABLES: dict[str, Table] = {
    "flows": resources.FLOW,
    "work_pools": resources.WORK_POOL,
    "work_queues": resources.WORK_QUEUE,
    "deployments": resources.DEPLOYMENT,
    "flow_runs": resources.FLOW_RUN,
    "task_runs": resources.TASK_RUN,
    "artifacts": resources.ARTIFACT,
    "artifact_collections": resources.ARTIFACT_COLLECTION,
    "variables": resources.VARIABLE,
    "block_types": resources.BLOCK_TYPE,
    "block_schemas": resources.BLOCK_SCHEMA,
    "block_documents": resources.BLOCK_DOCUMENT,
    "logs": resources.LOG,
}
_LOG_COLUMNS = ("name", "level", "message", "flow_run_id", "task_run_id")


class FilteredStore:
    """State and logs, in memory, with two workspaces."""

    def __init__(self) -> None:
        self._state = with_workspaces(SyncStore())
        self._logs = SyncStore("managedd.store.migrations.logs")

    def fill(self, world: World, workspace: str = ids.DEFAULT_WORKSPACE_ID) -> None:
        """The workspace has the world's rows."""

        def state(tx: Tx) -> None:
            for name, table in TABLES.items():
                for row in world[name] if name != "logs" else []:
                    rows.insert(tx, table, row)

        def logs(tx: Tx) -> None:
            log_store.append(
                tx,
                [
                    LogRecord(timestamp_us=to_us(row["timestamp"]), **{name: row[name] for name in _LOG_COLUMNS})
                    for row in world["logs"]
                ],
            )

        self._state.write(state, workspace)
        self._logs.write(logs, workspace)

    def empty(self) -> None:
        """No workspace has anything."""

        def state(tx: Tx) -> None:
            for name in reversed([name for name in TABLES if name != "logs"]):
                tx.execute(f"DELETE FROM {name}")

        self._state.write(state)
        for name in ("logs", "log_workspaces", "log_runs", "log_task_runs", "sqlite_sequence"):
            self._logs.write(lambda tx, name=name: tx.execute(f"DELETE FROM {name}").rowcount)  # type: ignore[misc]

    def ask(self, query: dict[str, Any]) -> tuple[list[str], int]:
        """The ids of the page that the query asks for, and how many rows its filters admit."""
        table = TABLES[query["table"]]
        filters = [(TABLES[name], FILTERS[name].model_validate(value)) for name, value in query["filters"].items()]

        def read(tx: Tx) -> tuple[list[str], int]:
            found = [row["id"] for row in rows.find(tx, table, filters, query["sort"], query["limit"], query["offset"])]
            if table is resources.LOG:
                given = positions.of(tx, "logs")
                found = [f"00000000-0000-8000-8000-{given.position(id_) or 0:012x}" for id_ in found]
            return found, rows.count(tx, table, filters)

        return (self._logs if query["table"] == "logs" else self._state).read(read)

    def close(self) -> None:
        self._state.close()
        self._logs.close()


def filtered_store() -> Iterator[FilteredStore]:
    """For a fixture."""
    with closing(FilteredStore()) as store:
        yield store
