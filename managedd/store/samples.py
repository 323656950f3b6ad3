"""What containers used while they ran: a bounded row for each execution, gone with its run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from managedd.clock import iso
from managedd.model.samples import thinned

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from managedd.model.samples import Sample
    from managedd.store.database import Tx
    from managedd.store.rows import Wire


def add(tx: Tx, taken: Mapping[str, Sequence[Sample]]) -> None:
    """The executions' samples are on record, thinned with those before; of one whose run is gone there is nothing. Nobody is woken:
    nothing has happened to them."""
    for execution_id, samples in taken.items():
        known = tx.scalar("SELECT samples FROM execution_samples WHERE execution_id = ?", (execution_id,))
        before: list[Sample] = [] if known is None else [(each[0], each[1], each[2]) for each in orjson.loads(known)]
        last_us = before[-1][0] if before else -1
        kept = thinned([*before, *(each for each in samples if each[0] > last_us)])
        tx.execute(
            "INSERT INTO execution_samples (execution_id, flow_run_id, samples) SELECT e.id, e.flow_run_id, :samples FROM executions AS e "
            "WHERE e.id = :id AND EXISTS (SELECT 1 FROM flow_runs AS r WHERE r.id = e.flow_run_id) "
            "ON CONFLICT (execution_id) DO UPDATE SET samples = excluded.samples",
            {"id": execution_id, "samples": orjson.dumps(kept).decode()},
        )


def of_run(tx: Tx, flow_run_id: str) -> list[Wire]:
    """What each attempt of a run of this workspace used, first attempt first, beside what it might use."""
    found = tx.all(
        "SELECT e.id AS execution_id, e.attempt, e.memory_limit_bytes, e.cpu_limit, e.peak_memory_bytes, s.samples "
        "FROM executions AS e LEFT JOIN execution_samples AS s ON s.execution_id = e.id "
        "WHERE e.flow_run_id = ? AND e.workspace_id = ? ORDER BY e.attempt",
        (flow_run_id, tx.workspace),
    )
    return [{**dict(row), "samples": _shown(row["samples"])} for row in found]


def _shown(stored: str | None) -> list[Wire]:
    return [
        {"at": iso(at_us), "memory_bytes": memory, "cpu_seconds": cpu_us / 1e6}
        for at_us, memory, cpu_us in orjson.loads(stored or "[]")
    ]
