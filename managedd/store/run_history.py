"""How many flow runs there were, by time and state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from managedd.clock import iso
from managedd.store.filtering import where
from managedd.store.resources import FLOW_RUN, RELATIONS

if TYPE_CHECKING:
    from managedd.store.database import Tx
    from managedd.store.rows import Filters, Wire


BY: Final = {
    "expected_start_time": "flow_runs.expected_start_time",
    "start_time": "coalesce(flow_runs.start_time, flow_runs.expected_start_time)",
}
"""The times by which runs are counted; one that has not begun counts by when it should, as in lists in the order of starts."""


def counted(
    tx: Tx, filters: Filters, *, start_us: int, interval_us: int, intervals: int, by: str = "expected_start_time"
) -> list[Wire]:
    """A row for each interval from `start_us` on, with the count of each state type among the runs whose time is in it."""
    sql, params = where(tx.workspace, FLOW_RUN, filters, RELATIONS)
    joins = FLOW_RUN.joins if FLOW_RUN.joins_choose else ""
    expected = BY[by]
    found = tx.all(
        f"SELECT ({expected} - ?) / ? AS part, flow_runs.state_type AS state_type, count(*) AS runs FROM flow_runs {joins} WHERE {sql} "
        f"AND {expected} >= ? AND {expected} < ? AND flow_runs.state_type IS NOT NULL GROUP BY part, flow_runs.state_type",
        [start_us, interval_us, *params, start_us, start_us + intervals * interval_us],
    )
    counts: list[dict[str, int]] = [{} for _ in range(intervals)]
    for row in found:
        counts[row["part"]][row["state_type"]] = row["runs"]
    return [
        {
            "start": iso(start_us + each * interval_us),
            "end": iso(start_us + (each + 1) * interval_us),
            "counts": counts[each],
        }
        for each in range(intervals)
    ]
