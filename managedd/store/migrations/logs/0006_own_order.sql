-- Whoever asks for a run's or a task run's lines finds those of their own workspace: how many others have of it costs nothing, and so tells nothing.
DROP INDEX logs_flow_run;
DROP INDEX logs_task_run;
CREATE INDEX logs_flow_run ON logs(flow_run, workspace, timestamp);
CREATE INDEX logs_task_run ON logs(task_run, workspace, timestamp) WHERE task_run IS NOT NULL;
DELETE FROM sqlite_stat1 WHERE tbl = 'logs' AND idx IN ('logs_flow_run', 'logs_task_run');
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
    ('logs', 'logs_flow_run', '10000000 1000 1000 2'),
    ('logs', 'logs_task_run', '1000000 50 50 2');
ANALYZE sqlite_schema;
