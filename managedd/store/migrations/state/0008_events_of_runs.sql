-- What an execution has told by its key: bytes of events that were stored, and how many were left out because its run had told too much.
ALTER TABLE executions ADD COLUMN event_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE executions ADD COLUMN events_left_out INTEGER NOT NULL DEFAULT 0;
