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

-- What SQLite can't know before there are rows: a workspace has very many lines, a run few. Without it a page of one run's log is
-- looked for in the whole workspace's.
ANALYZE sqlite_schema;
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
    ('logs', 'logs_workspace', '10000000 1000000 2 1'),
    ('logs', 'logs_flow_run', '10000000 1000 2 1'),
    ('logs', 'logs_task_run', '1000000 50 2 1');
ANALYZE sqlite_schema;
