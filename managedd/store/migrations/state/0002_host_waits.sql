-- What a run that waits for the host needs of it, so that whoever looks for one that fits has to render no job again. NULL: not known (any more).
ALTER TABLE flow_runs ADD COLUMN needs_memory_bytes INTEGER;
ALTER TABLE flow_runs ADD COLUMN needs_cpus REAL;
CREATE INDEX flow_runs_parked ON flow_runs(work_queue_id, needs_memory_bytes, needs_cpus, next_scheduled_start_time, deployment_id)
    WHERE state_type = 'SCHEDULED' AND state_name = 'AwaitingHostCapacity';
-- Who was told what it waits for, and since when.
CREATE INDEX flow_runs_told ON flow_runs(work_queue_id, state_name, state_timestamp)
    WHERE state_type = 'SCHEDULED' AND state_name IN ('AwaitingComputeHours', 'AwaitingHostCapacity');

-- What the needs were made of has changed.
CREATE TRIGGER deployment_needs_changed AFTER UPDATE OF job_variables ON deployments WHEN OLD.job_variables IS NOT NEW.job_variables BEGIN
    UPDATE flow_runs SET needs_memory_bytes = NULL, needs_cpus = NULL
    WHERE deployment_id = NEW.id AND state_type = 'SCHEDULED' AND state_name = 'AwaitingHostCapacity';
END;
CREATE TRIGGER deployment_needs_gone AFTER DELETE ON deployments BEGIN
    UPDATE flow_runs SET needs_memory_bytes = NULL, needs_cpus = NULL
    WHERE deployment_id = OLD.id AND state_type = 'SCHEDULED' AND state_name = 'AwaitingHostCapacity';
END;
CREATE TRIGGER pool_needs_changed AFTER UPDATE OF base_job_template ON work_pools WHEN OLD.base_job_template IS NOT NEW.base_job_template BEGIN
    UPDATE flow_runs SET needs_memory_bytes = NULL, needs_cpus = NULL
    WHERE work_queue_id IN (SELECT id FROM work_queues WHERE work_pool_id = NEW.id)
      AND state_type = 'SCHEDULED' AND state_name = 'AwaitingHostCapacity';
END;
CREATE TRIGGER run_needs_changed AFTER UPDATE OF job_variables, work_queue_id ON flow_runs
WHEN NEW.needs_memory_bytes IS NOT NULL
    AND (OLD.job_variables IS NOT NEW.job_variables OR OLD.work_queue_id IS NOT NEW.work_queue_id) BEGIN
    UPDATE flow_runs SET needs_memory_bytes = NULL, needs_cpus = NULL WHERE id = NEW.id;
END;
CREATE TRIGGER plan_needs_changed AFTER UPDATE OF plan ON workspaces WHEN OLD.plan IS NOT NEW.plan BEGIN
    UPDATE flow_runs SET needs_memory_bytes = NULL, needs_cpus = NULL
    WHERE work_queue_id IN (SELECT id FROM work_queues WHERE workspace_id = NEW.id)
      AND state_type = 'SCHEDULED' AND state_name = 'AwaitingHostCapacity';
END;
