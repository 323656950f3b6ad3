-- Lines name their workspace, flow run and task run by integers: ids of 36 characters in every line and in every index would be more
-- than most lines have of text. Keys of runs go with the runs' lines and may be used again; nobody outside this file knows them.
CREATE TABLE log_workspaces (
    key INTEGER PRIMARY KEY,
    id  TEXT NOT NULL UNIQUE
) STRICT;
-- `bytes` is what counts against the size that the run's log may have; `removed` the line that tells of those that went before their run.
CREATE TABLE log_runs (
    key     INTEGER PRIMARY KEY,
    id      TEXT NOT NULL UNIQUE,
    bytes   INTEGER NOT NULL DEFAULT 0,
    removed INTEGER
) STRICT;
CREATE TABLE log_task_runs (
    key INTEGER PRIMARY KEY,
    id  TEXT NOT NULL UNIQUE
) STRICT;
INSERT INTO log_workspaces (id) SELECT DISTINCT workspace_id FROM logs;
INSERT INTO log_runs (id) SELECT DISTINCT flow_run_id FROM logs WHERE flow_run_id IS NOT NULL;
INSERT INTO log_runs (id, bytes) SELECT flow_run_id, bytes FROM log_sizes WHERE true
    ON CONFLICT (id) DO UPDATE SET bytes = excluded.bytes;
INSERT INTO log_task_runs (id) SELECT DISTINCT task_run_id FROM logs WHERE task_run_id IS NOT NULL;
DROP TABLE log_sizes;

-- AUTOINCREMENT: a tail's cursor is a line's id, so none may ever be used twice.
CREATE TABLE keyed_logs (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    workspace INTEGER NOT NULL,
    flow_run  INTEGER,
    task_run  INTEGER,
    name      TEXT NOT NULL,
    level     INTEGER NOT NULL,
    timestamp INTEGER NOT NULL,
    message   TEXT NOT NULL
) STRICT;
INSERT INTO keyed_logs (id, workspace, flow_run, task_run, name, level, timestamp, message)
SELECT
    logs.id,
    (SELECT key FROM log_workspaces WHERE log_workspaces.id = logs.workspace_id),
    (SELECT key FROM log_runs WHERE log_runs.id = logs.flow_run_id),
    (SELECT key FROM log_task_runs WHERE log_task_runs.id = logs.task_run_id),
    name, level, timestamp, message
FROM logs NOT INDEXED ORDER BY logs.id;
-- The newest lines may be gone: their ids are not used again either.
DELETE FROM sqlite_sequence WHERE name = 'keyed_logs';
INSERT INTO sqlite_sequence (name, seq) SELECT 'keyed_logs', seq FROM sqlite_sequence WHERE name = 'logs';
DROP TABLE logs;
ALTER TABLE keyed_logs RENAME TO logs;
-- Every index ends with the line's id by itself.
CREATE INDEX logs_flow_run ON logs(flow_run, timestamp);
CREATE INDEX logs_task_run ON logs(task_run, timestamp) WHERE task_run IS NOT NULL;
CREATE INDEX logs_workspace ON logs(workspace, timestamp);

-- For whoever looks into the file with SQL: the lines with their ids.
CREATE VIEW log_lines AS
SELECT
    logs.id, log_workspaces.id AS workspace_id, log_runs.id AS flow_run_id, log_task_runs.id AS task_run_id,
    logs.name, logs.level, logs.timestamp, logs.message
FROM logs
JOIN log_workspaces ON log_workspaces.key = logs.workspace
LEFT JOIN log_runs ON log_runs.key = logs.flow_run
LEFT JOIN log_task_runs ON log_task_runs.key = logs.task_run;

-- What SQLite can't know before there are rows: a workspace has very many lines, a run few.
DELETE FROM sqlite_stat1 WHERE tbl IN ('logs', 'log_sizes');
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
    ('logs', 'logs_workspace', '10000000 1000000 2'),
    ('logs', 'logs_flow_run', '10000000 1000 2'),
    ('logs', 'logs_task_run', '1000000 50 2'),
    ('log_workspaces', 'sqlite_autoindex_log_workspaces_1', '10 1'),
    ('log_runs', 'sqlite_autoindex_log_runs_1', '10000 1'),
    ('log_task_runs', 'sqlite_autoindex_log_task_runs_1', '20000 1');
ANALYZE sqlite_schema;
