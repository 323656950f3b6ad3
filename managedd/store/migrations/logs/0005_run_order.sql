-- One run's lines in the order in which they were stored: every index ends with the line's id by itself.
CREATE INDEX logs_run_order ON logs(flow_run, workspace);
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES ('logs', 'logs_run_order', '10000000 1000 1000');
ANALYZE sqlite_schema;
