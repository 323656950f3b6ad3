"""Whether runs' logs can still grow: one statement for all runs that are followed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import orjson

from managedd.model.states import TERMINAL

if TYPE_CHECKING:
    from collections.abc import Collection

    from managedd.store.database import Tx

_TERMINAL: Final = ", ".join(f"'{type_.value}'" for type_ in sorted(TERMINAL))
# CROSS JOIN keeps SQLite to the order: few are asked for, and each row is found by its id.
_STANDINGS: Final = f"""
SELECT r.workspace_id, r.id, r.state_type IN ({_TERMINAL}) AS is_final, r.state_timestamp,
       count(e.id) AS executions, coalesce(sum(e.phase NOT IN ('FINALIZED', 'LOST')), 0) AS open
FROM json_each(?) AS asked
CROSS JOIN flow_runs AS r ON r.id = asked.value ->> 1 AND r.workspace_id = asked.value ->> 0
LEFT JOIN executions AS e ON e.flow_run_id = r.id AND r.state_type IN ({_TERMINAL})
GROUP BY r.id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far a run is from its end; `is_executed` and `is_open` are told of a run whose state is final."""

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
