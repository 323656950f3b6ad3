"""How large each run's log is, what of it was dropped and is not told yet, and whether it tells of the end: written in the transaction of the
lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from managedd.model.log_limits import Dropped

if TYPE_CHECKING:
    from managedd.store.database import Tx


def size(tx: Tx, flow_run_id: str) -> int:
    """What counts against the size that a run's log may have, bytes."""
    found: int | None = tx.scalar("SELECT bytes FROM log_runs WHERE id = ?", (flow_run_id,))
    return found or 0


def grow(tx: Tx, flow_run_id: str, more_bytes: int) -> int:
    """The run's log is larger by so much; returns its size."""
    size_bytes: int = tx.scalar(
        "INSERT INTO log_runs (id, bytes) VALUES (?, ?) "
        "ON CONFLICT (id) DO UPDATE SET bytes = bytes + excluded.bytes RETURNING bytes",
        (flow_run_id, more_bytes),
    )
    return size_bytes


def untold(tx: Tx, execution_id: str) -> Dropped:
    """What was dropped of the execution's output and is not told yet."""
    row = tx.one("SELECT dropped_lines, dropped_bytes FROM log_cursors WHERE execution_id = ?", (execution_id,))
    return Dropped() if row is None else Dropped(row[0], row[1])


def drop(tx: Tx, execution_id: str, more: Dropped) -> None:
    """So much more was dropped, or, below zero, told."""
    tx.execute(
        "INSERT INTO log_cursors (execution_id, timestamp_ns, ordinal, dropped_lines, dropped_bytes) VALUES (?, 0, 0, ?, ?) "
        "ON CONFLICT (execution_id) DO UPDATE SET dropped_lines = dropped_lines + excluded.dropped_lines, "
        "dropped_bytes = dropped_bytes + excluded.dropped_bytes",
        (execution_id, more.lines, more.bytes),
    )


def is_end_told(tx: Tx, execution_id: str) -> bool:
    """Whether the run's log says how the execution ended."""
    return bool(tx.scalar("SELECT end_told FROM log_cursors WHERE execution_id = ?", (execution_id,)))


def tell_end(tx: Tx, execution_id: str) -> bool:
    """The run's log says how the execution ended: belongs into the transaction of that line; False when it said so before."""
    done = tx.execute(
        "INSERT INTO log_cursors (execution_id, timestamp_ns, ordinal, end_told) VALUES (?, 0, 0, 1) "
        "ON CONFLICT (execution_id) DO UPDATE SET end_told = 1 WHERE end_told = 0",
        (execution_id,),
    )
    return done.rowcount > 0
