"""Task runs: loading what the task rules need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from managedd.errors import not_found
from managedd.model.flow_runs import TaskRunFacts, task_policy_facts
from managedd.store.flow_runs import loaded_state

if TYPE_CHECKING:
    from managedd.store.database import Row, Tx

_FACTS = """
SELECT t.*, s.id AS s_id, s.type AS s_type, s.name AS s_name, s.timestamp AS s_timestamp, s.message AS s_message,
       s.state_details AS s_details, s.data AS s_data,
       r.id AS r_id, r.run_count AS r_run_count,
       p.id AS p_id, p.type AS p_type, p.name AS p_name, p.timestamp AS p_timestamp, p.message AS p_message,
       p.state_details AS p_details, p.data AS p_data
FROM task_runs AS t
LEFT JOIN task_run_states AS s ON s.id = t.state_id AND s.workspace_id = t.workspace_id
LEFT JOIN flow_runs AS r ON r.id = t.flow_run_id
LEFT JOIN flow_run_states AS p ON p.id = r.state_id
WHERE t.id = ? AND t.workspace_id = ?
"""


def facts(tx: Tx, task_run_id: str) -> tuple[TaskRunFacts, Row]:
    """What the rules may know of the task run, and its row. Raises ManagedError(NOT_FOUND)."""
    row = tx.one(_FACTS, (task_run_id, tx.workspace))
    if row is None:
        raise not_found("Task run", task_run_id)
    known = TaskRunFacts(
        now_us=tx.now,
        run_id=row["id"],
        current=loaded_state(row),
        run_count=row["run_count"],
        start_time_us=row["start_time"],
        end_time_us=row["end_time"],
        total_run_time_us=row["total_run_time"],
        expected_start_time_us=row["expected_start_time"],
        next_scheduled_start_time_us=row["next_scheduled_start_time"],
        flow_run_id=row["flow_run_id"],
        flow_run_exists=row["flow_run_id"] is None or row["r_id"] is not None,
        flow_run_state=loaded_state(row, "p_"),
        flow_run_run_count=row["flow_run_run_count"],
        parent_run_count=row["r_run_count"] or 0,
        **task_policy_facts(orjson.loads(row["empirical_policy"])),
    )
    return known, row
