"""Whether runs' logs can still grow: one statement for all runs that are followed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import orjson

from managedd.model.states import TERMINAL
from managedd.store.offspring import IN_PROCESS

if TYPE_CHECKING:
    from collections.abc import Collection

    from managedd.store.database import Tx

_TERMINAL: Final = ", ".join(f"'{type_.value}'" for type_ in sorted(TERMINAL))
# CROSS JOIN keeps SQLite to the order: few are asked for, and each row is found by its id. Upwards it goes as far as the process does;
# UNION, not UNION ALL: a circle of parents, which only broken data has, ends too.
_STANDINGS: Final = f"""
WITH RECURSIVE printing(asked, id) AS (
    SELECT r.id, r.id FROM json_each(?) AS given
    CROSS JOIN flow_runs AS r ON r.id = given.value ->> 1 AND r.workspace_id = given.value ->> 0
    UNION
    SELECT printing.asked, t.flow_run_id FROM printing
    CROSS JOIN flow_runs AS top ON top.id = printing.asked AND top.state_type IN ({_TERMINAL})
    CROSS JOIN flow_runs AS r ON r.id = printing.id AND {IN_PROCESS.format(run="r")}
    CROSS JOIN task_runs AS t ON t.id = r.parent_task_run_id AND t.workspace_id = r.workspace_id
    WHERE t.flow_run_id IS NOT NULL
)
SELECT r.workspace_id, r.id, r.state_type IN ({_TERMINAL}) AS is_final, r.state_timestamp,
       count(e.id) AS executions, coalesce(sum(e.phase NOT IN ('FINALIZED', 'LOST')), 0) AS open
FROM printing
CROSS JOIN flow_runs AS r ON r.id = printing.asked
LEFT JOIN executions AS e ON e.flow_run_id = printing.id AND r.state_type IN ({_TERMINAL})
GROUP BY r.id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far a run is from its end; `is_executed` and `is_open` are told of a run whose state is final, and of one in its parent's
    process they tell of that."""

    is_final: bool
    """Whether its state is."""
    state_us: int
    """When it had its state, microseconds; 0: it has none."""
    is_executed: bool
    """Whether it has had an execution."""
    is_open: bool
    """Whether one of its executions has not ended."""


def standings(tx: Tx, runs: Collection[tuple[str, str]]) -> dict[tuple[str, str], Standing]:
    """The standing of each of `runs`, (workspace, flow run), that exists."""
    return {
        (row["workspace_id"], row["id"]): Standing(
            is_final=bool(row["is_final"]),
            state_us=row["state_timestamp"] or 0,
            is_executed=row["executions"] > 0,
            is_open=row["open"] > 0,
        )
        for row in tx.all(_STANDINGS, (orjson.dumps(list(runs)).decode(),))
    }
