-- Log lines, in a file of their own, so that a flood of them never delays a state change.
-- AUTOINCREMENT: a tail's cursor is a rowid, so none may ever be used twice.
CREATE TABLE logs (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    workspace_id TEXT NOT NULL,
    flow_run_id  TEXT,
    task_run_id  TEXT,
    name         TEXT NOT NULL,
    level        INTEGER NOT NULL,
    timestamp    INTEGER NOT NULL,
    message      TEXT NOT NULL,
    worker_id    TEXT
) STRICT;
CREATE INDEX logs_flow_run ON logs(flow_run_id, timestamp, id);
CREATE INDEX logs_task_run ON logs(task_run_id, timestamp, id) WHERE task_run_id IS NOT NULL;
CREATE INDEX logs_workspace ON logs(workspace_id, timestamp, id);

-- How far an execution's output was stored; committed with the lines.
CREATE TABLE log_cursors (
    execution_id TEXT PRIMARY KEY,
    timestamp_ns INTEGER NOT NULL,
    ordinal      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
