-- What the needs are made of may change, and nobody says so: they say where to look first, and are asked for again in turn.
ALTER TABLE flow_runs ADD COLUMN needs_vary INTEGER NOT NULL DEFAULT 0;
CREATE INDEX flow_runs_varying ON flow_runs(work_queue_id, next_scheduled_start_time, deployment_id)
    WHERE state_type = 'SCHEDULED' AND state_name = 'AwaitingHostCapacity' AND needs_vary = 1;
