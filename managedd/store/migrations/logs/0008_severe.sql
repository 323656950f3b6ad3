-- Few lines are warnings or worse: whoever asks for those of a workspace, or of a run that printed much, walks over no others.
CREATE INDEX logs_severe ON logs(workspace, timestamp) WHERE level >= 30;
CREATE INDEX logs_severe_run ON logs(flow_run, workspace, timestamp) WHERE level >= 30;
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
    ('logs', 'logs_severe', '200000 20000 2'),
    ('logs', 'logs_severe_run', '200000 20 20 2');
ANALYZE sqlite_schema;
