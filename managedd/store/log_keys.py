"""The integers by which log lines name workspaces, flow runs and task runs: made with the first line that names one, gone with the last.

Keys are known to this file of the store alone: whoever asks has ids, and gets ids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable

    from managedd.store.database import Tx

Named = Literal["log_workspaces", "log_runs", "log_task_runs"]
"""What has keys, by its table."""

OF_WORKSPACE = "(SELECT key FROM log_workspaces WHERE id = ?)"
OF_RUN = "(SELECT key FROM log_runs WHERE id = ?)"
"""The key of an id, as a term of a query: NULL, which equals nothing, when no line names it."""
RUN_ID = "(SELECT id FROM log_runs WHERE key = logs.flow_run)"
TASK_RUN_ID = "(SELECT id FROM log_task_runs WHERE key = logs.task_run)"
"""The id that a line names, as a term of a query over `logs`."""


def known(tx: Tx, named: Named, ids: Iterable[str]) -> dict[str, int]:
    """The keys of those of the ids that have one."""
    asked = list(ids)
    if len(asked) == 1:
        key: int | None = tx.scalar(f"SELECT key FROM {named} WHERE id = ?", asked)
        return {} if key is None else {asked[0]: key}
    sql = f"SELECT id, key FROM {named} WHERE id IN (SELECT value FROM json_each(?))"
    return {row[0]: row[1] for row in tx.all(sql, (orjson.dumps(asked).decode(),))}


def made(tx: Tx, named: Named, ids: Iterable[str | None]) -> dict[str | None, int | None]:
    """The keys of the ids, new ones for those that had none; None has None."""
    keys: dict[str | None, int | None] = {None: None}
    wanted = dict.fromkeys(id_ for id_ in ids if id_ is not None)
    if wanted:
        keys.update(known(tx, named, wanted))
        for id_ in wanted:
            if id_ not in keys:
                keys[id_] = tx.execute(f"INSERT INTO {named} (id) VALUES (?)", (id_,)).lastrowid
    return keys


def drop_unused_task_runs(tx: Tx, keys: Iterable[int | None]) -> None:
    """Those of the keys that no line has any more are gone."""
    asked = orjson.dumps([key for key in set(keys) if key is not None]).decode()
    tx.execute(
        "DELETE FROM log_task_runs WHERE key IN (SELECT value FROM json_each(?)) "
        "AND NOT EXISTS (SELECT 1 FROM logs INDEXED BY logs_task_run WHERE logs.task_run = log_task_runs.key)",
        (asked,),
    )
