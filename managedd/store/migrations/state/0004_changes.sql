-- What was made, changed and deleted is noted here by triggers, whoever did it and however (cascades too). Every write transaction takes
-- notes from it before it ends, and makes events of them in the same commit; where there are many, the next ones go on. See
-- `orchestration/lifecycle.py`.
CREATE TABLE changes (
    position     INTEGER PRIMARY KEY,
    kind         TEXT NOT NULL,
    id           TEXT NOT NULL,
    workspace_id TEXT NOT NULL,
    -- JSON objects of columns, of long ones only whether they have changed; both NULL: somebody was heard of, so that its status may be another.
    before       TEXT,
    after        TEXT
) STRICT;

-- The status that was told last: it follows from the time since somebody polled, so a change of it writes no row by itself.
ALTER TABLE work_pools ADD COLUMN status_told TEXT NOT NULL DEFAULT '';
ALTER TABLE work_queues ADD COLUMN status_told TEXT NOT NULL DEFAULT '';
ALTER TABLE deployments ADD COLUMN status_told TEXT NOT NULL DEFAULT '';
-- When the run's image had been fetched, where it had to be.
ALTER TABLE executions ADD COLUMN pulled_at INTEGER;
CREATE INDEX work_pools_ready ON work_pools(id) WHERE status_told = 'READY';
CREATE INDEX work_queues_ready ON work_queues(last_polled) WHERE status_told = 'READY';
CREATE INDEX deployments_ready ON deployments(last_polled) WHERE status_told = 'READY';

CREATE TRIGGER flows_created AFTER INSERT ON flows BEGIN
    INSERT INTO changes (kind, id, workspace_id, before, after) VALUES ('flow', new.id, new.workspace_id, NULL,
            json_object('name', new.name, 'tags', json(new.tags)));
END;
CREATE TRIGGER flows_updated AFTER UPDATE OF name, tags, labels ON flows
WHEN (new.name, new.tags, new.labels) IS NOT (old.name, old.tags, old.labels) BEGIN
    INSERT INTO changes (kind, id, workspace_id, before, after) VALUES ('flow', new.id, new.workspace_id,
            json_object('name', old.name, 'tags', json(old.tags), 'labels', 0),
            json_object('name', new.name, 'tags', json(new.tags), 'labels', old.labels IS NOT new.labels));
END;
CREATE TRIGGER flows_deleted AFTER DELETE ON flows BEGIN
    INSERT INTO changes (kind, id, workspace_id, before, after) VALUES ('flow', old.id, old.workspace_id,
            json_object('name', old.name, 'tags', json(old.tags)), NULL);
END;

CREATE TRIGGER deployments_created AFTER INSERT ON deployments BEGIN
    INSERT INTO changes (kind, id, workspace_id, before, after) VALUES ('deployment', new.id, new.workspace_id, NULL,
            json_object('name', new.name, 'flow_id', new.flow_id, 'work_queue_id', new.work_queue_id, 'tags', json(new.tags)));
END;
CREATE TRIGGER deployments_updated AFTER UPDATE OF name, flow_id, work_queue_id, description, version, paused, entrypoint, path,
    concurrency_limit, enforce_parameter_schema, tags, concurrency_options, labels, parameters, parameter_openapi_schema, pull_steps,
    job_variables ON deployments
WHEN (new.name, new.flow_id, new.work_queue_id, new.description, new.version, new.paused, new.entrypoint, new.path,
    new.concurrency_limit, new.enforce_parameter_schema, new.tags, new.concurrency_options, new.labels, new.parameters,
    new.parameter_openapi_schema, new.pull_steps, new.job_variables) IS NOT (old.name, old.flow_id, old.work_queue_id, old.description,
    old.version, old.paused, old.entrypoint, old.path, old.concurrency_limit, old.enforce_parameter_schema, old.tags,
    old.concurrency_options, old.labels, old.parameters, old.parameter_openapi_schema, old.pull_steps, old.job_variables) BEGIN
    INSERT INTO changes (kind, id, workspace_id, before, after) VALUES ('deployment', new.id, new.workspace_id,
            json_object('name', old.name, 'flow_id', old.flow_id, 'work_queue_id', old.work_queue_id, 'description', old.description,
            'version', old.version, 'paused', old.paused, 'entrypoint', old.entrypoint, 'path', old.path, 'concurrency_limit',
            old.concurrency_limit, 'enforce_parameter_schema', old.enforce_parameter_schema, 'tags', json(old.tags), 'concurrency_options',
            json(old.concurrency_options), 'labels', 0, 'parameters', 0, 'parameter_openapi_schema', 0, 'pull_steps', 0, 'job_variables', 0),
            json_object('name', new.name, 'flow_id', new.flow_id, 'work_queue_id', new.work_queue_id, 'description', new.description,
            'version', new.version, 'paused', new.paused, 'entrypoint', new.entrypoint, 'path', new.path, 'concurrency_limit',
            new.concurrency_limit, 'enforce_parameter_schema', new.enforce_parameter_schema, 'tags', json(new.tags), 'concurrency_options',
            json(new.concurrency_options), 'labels', old.labels IS NOT new.labels, 'parameters', old.parameters IS NOT new.parameters,
            'parameter_openapi_schema', old.parameter_openapi_schema IS NOT new.parameter_openapi_schema, 'pull_steps', old.pull_steps IS
            NOT new.pull_steps, 'job_variables', old.job_variables IS NOT new.job_variables));
END;
CREATE TRIGGER deployments_deleted AFTER DELETE ON deployments BEGIN
    INSERT INTO changes (kind, id, workspace_id, before, after) VALUES ('deployment', old.id, old.workspace_id,
            json_object('name', old.name, 'flow_id', old.flow_id, 'work_queue_id', old.work_queue_id, 'tags', json(old.tags)), NULL);
END;

CREATE TRIGGER work_pools_created AFTER INSERT ON work_pools BEGIN
    INSERT INTO changes (kind, id, workspace_id, before, after) VALUES ('work-pool', new.id, new.workspace_id, NULL,
            json_object('name', new.name, 'type', new.type));
END;
CREATE TRIGGER work_pools_updated AFTER UPDATE OF name, type, default_queue_id, description, is_paused, concurrency_limit,
    base_job_template, storage_configuration ON work_pools
WHEN (new.name, new.type, new.default_queue_id, new.description, new.is_paused, new.concurrency_limit, new.base_job_template,
    new.storage_configuration) IS NOT (old.name, old.type, old.default_queue_id, old.description, old.is_paused, old.concurrency_limit,
    old.base_job_template, old.storage_configuration) BEGIN
    INSERT INTO changes (kind, id, workspace_id, before, after) VALUES ('work-pool', new.id, new.workspace_id,
            json_object('name', old.name, 'type', old.type, 'default_queue_id', old.default_queue_id, 'description', old.description,
            'is_paused', old.is_paused, 'concurrency_limit', old.concurrency_limit, 'base_job_template', 0, 'storage_configuration', 0),
            json_object('name', new.name, 'type', new.type, 'default_queue_id', new.default_queue_id, 'description', new.description,
            'is_paused', new.is_paused, 'concurrency_limit', new.concurrency_limit, 'base_job_template', old.base_job_template IS NOT
            new.base_job_template, 'storage_configuration', old.storage_configuration IS NOT new.storage_configuration));
END;
CREATE TRIGGER work_pools_deleted AFTER DELETE ON work_pools BEGIN
    INSERT INTO changes (kind, id, workspace_id, before, after) VALUES ('work-pool', old.id, old.workspace_id,
            json_object('name', old.name, 'type', old.type), NULL);
END;

CREATE TRIGGER work_queues_created AFTER INSERT ON work_queues BEGIN
    INSERT INTO changes (kind, id, workspace_id, before, after) VALUES ('work-queue', new.id, new.workspace_id, NULL,
            json_object('name', new.name, 'work_pool_id', new.work_pool_id));
END;
CREATE TRIGGER work_queues_updated AFTER UPDATE OF name, work_pool_id, description, is_paused, concurrency_limit, priority ON
    work_queues
WHEN (new.name, new.work_pool_id, new.description, new.is_paused, new.concurrency_limit, new.priority) IS NOT (old.name,
    old.work_pool_id, old.description, old.is_paused, old.concurrency_limit, old.priority) BEGIN
    INSERT INTO changes (kind, id, workspace_id, before, after) VALUES ('work-queue', new.id, new.workspace_id,
            json_object('name', old.name, 'work_pool_id', old.work_pool_id, 'description', old.description, 'is_paused', old.is_paused,
            'concurrency_limit', old.concurrency_limit, 'priority', old.priority),
            json_object('name', new.name, 'work_pool_id', new.work_pool_id, 'description', new.description, 'is_paused', new.is_paused,
            'concurrency_limit', new.concurrency_limit, 'priority', new.priority));
END;
CREATE TRIGGER work_queues_deleted AFTER DELETE ON work_queues BEGIN
    INSERT INTO changes (kind, id, workspace_id, before, after) VALUES ('work-queue', old.id, old.workspace_id,
            json_object('name', old.name, 'work_pool_id', old.work_pool_id), NULL);
END;

CREATE TRIGGER work_queues_polled AFTER UPDATE OF last_polled ON work_queues WHEN new.status_told <> 'READY' BEGIN
    INSERT INTO changes (kind, id, workspace_id) VALUES ('work-queue', new.id, new.workspace_id);
END;

CREATE TRIGGER deployments_polled AFTER UPDATE OF last_polled ON deployments WHEN new.status_told <> 'READY' BEGIN
    INSERT INTO changes (kind, id, workspace_id) VALUES ('deployment', new.id, new.workspace_id);
END;

CREATE TRIGGER workers_heard_insert AFTER INSERT ON workers
WHEN EXISTS (SELECT 1 FROM work_pools WHERE id = new.work_pool_id AND status_told <> 'READY') BEGIN
    INSERT INTO changes (kind, id, workspace_id) VALUES ('work-pool', new.work_pool_id, new.workspace_id);
END;

CREATE TRIGGER workers_heard_update AFTER UPDATE OF last_heartbeat_time ON workers
WHEN EXISTS (SELECT 1 FROM work_pools WHERE id = new.work_pool_id AND status_told <> 'READY') BEGIN
    INSERT INTO changes (kind, id, workspace_id) VALUES ('work-pool', new.work_pool_id, new.workspace_id);
END;

CREATE TRIGGER executions_claimed AFTER INSERT ON executions BEGIN
    INSERT INTO changes (kind, id, workspace_id, before, after) VALUES ('execution', new.id, new.workspace_id, NULL,
            json_object('flow_run_id', new.flow_run_id, 'attempt', new.attempt, 'driver', new.driver, 'phase', new.phase, 'image',
            new.image, 'memory_limit_bytes', new.memory_limit_bytes, 'cpu_limit', new.cpu_limit, 'time_limit_seconds',
            new.time_limit_seconds, 'pulled_at', new.pulled_at, 'created_at', new.created_at, 'started_at', new.started_at, 'installed_at', new.installed_at,
            'exited_at', new.exited_at, 'exit_code', new.exit_code, 'peak_memory_bytes', new.peak_memory_bytes, 'end_cause', new.end_cause,
            'end_message', new.end_message));
END;
CREATE TRIGGER executions_moved AFTER UPDATE OF phase, pulled_at, installed_at ON executions
WHEN (new.phase, new.pulled_at, new.installed_at) IS NOT (old.phase, old.pulled_at, old.installed_at) BEGIN
    INSERT INTO changes (kind, id, workspace_id, before, after) VALUES ('execution', new.id, new.workspace_id,
            json_object('flow_run_id', old.flow_run_id, 'attempt', old.attempt, 'driver', old.driver, 'phase', old.phase, 'image',
            old.image, 'memory_limit_bytes', old.memory_limit_bytes, 'cpu_limit', old.cpu_limit, 'time_limit_seconds',
            old.time_limit_seconds, 'pulled_at', old.pulled_at, 'created_at', old.created_at, 'started_at', old.started_at, 'installed_at', old.installed_at,
            'exited_at', old.exited_at, 'exit_code', old.exit_code, 'peak_memory_bytes', old.peak_memory_bytes, 'end_cause', old.end_cause,
            'end_message', old.end_message),
            json_object('flow_run_id', new.flow_run_id, 'attempt', new.attempt, 'driver', new.driver, 'phase', new.phase, 'image',
            new.image, 'memory_limit_bytes', new.memory_limit_bytes, 'cpu_limit', new.cpu_limit, 'time_limit_seconds',
            new.time_limit_seconds, 'pulled_at', new.pulled_at, 'created_at', new.created_at, 'started_at', new.started_at, 'installed_at', new.installed_at,
            'exited_at', new.exited_at, 'exit_code', new.exit_code, 'peak_memory_bytes', new.peak_memory_bytes, 'end_cause', new.end_cause,
            'end_message', new.end_message));
END;
