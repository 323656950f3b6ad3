-- Whether the run's log says how the execution ended; committed with that line.
ALTER TABLE log_cursors ADD COLUMN end_told INTEGER NOT NULL DEFAULT 0;
