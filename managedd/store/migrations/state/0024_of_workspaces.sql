-- What is of one workspace, and what refers to a queue or a schema that goes, is found without looking through everybody's.
CREATE INDEX deployment_schedules_workspace ON deployment_schedules(workspace_id);
CREATE INDEX flow_run_inputs_workspace ON flow_run_inputs(workspace_id);
CREATE INDEX workers_workspace ON workers(workspace_id);
CREATE INDEX concurrency_leases_workspace ON concurrency_leases(workspace_id);
CREATE INDEX keys_workspace ON keys(workspace_id, created);
CREATE INDEX block_documents_schema ON block_documents(block_schema_id);
CREATE INDEX flow_runs_of_queue ON flow_runs(work_queue_id) WHERE work_queue_id IS NOT NULL;
-- What SQLite can't know: a workspace has many of each, a queue has had very many runs, of which few wait or hold a slot; other indexes lead to few rows.
ANALYZE sqlite_schema;
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
    ('deployment_schedules', 'deployment_schedules_workspace', '1048576 262144'),
    ('flow_run_inputs', 'flow_run_inputs_workspace', '1048576 262144'),
    ('workers', 'workers_workspace', '1048576 262144'),
    ('concurrency_leases', 'concurrency_leases_workspace', '1048576 262144'),
    ('keys', 'keys_workspace', '1048576 262144 1'),
    ('flow_runs', 'flow_runs_of_queue', '1048576 262144');
ANALYZE sqlite_schema;
