-- What counts against the size that a run's log may have; gone with the run's lines.
CREATE TABLE log_sizes (
    flow_run_id TEXT PRIMARY KEY,
    bytes       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What was dropped of an execution's output up to its cursor and is not told yet.
ALTER TABLE log_cursors ADD COLUMN dropped_lines INTEGER NOT NULL DEFAULT 0;
ALTER TABLE log_cursors ADD COLUMN dropped_bytes INTEGER NOT NULL DEFAULT 0;
