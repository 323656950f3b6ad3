-- Clients choose the ids of task runs and of their states, so these are known within a workspace only: nobody learns from a refusal what others have,
-- nor takes an id from them.
CREATE TABLE own_task_runs (
    id                        TEXT NOT NULL,
    workspace_id              TEXT NOT NULL REFERENCES workspaces(id),
    name                      TEXT NOT NULL,
    flow_run_id               TEXT REFERENCES flow_runs(id) ON DELETE CASCADE,
    task_key                  TEXT NOT NULL,
    dynamic_key               TEXT NOT NULL,
    cache_key                 TEXT,
    cache_expiration          INTEGER,
    task_version              TEXT,
    empirical_policy          TEXT NOT NULL DEFAULT '{}',
    tags                      TEXT NOT NULL DEFAULT '[]',
    labels                    TEXT NOT NULL DEFAULT '{}',
    task_inputs               TEXT NOT NULL DEFAULT '{}',
    state_id                  TEXT,
    state_type                TEXT,
    state_name                TEXT,
    state_timestamp           INTEGER,
    run_count                 INTEGER NOT NULL DEFAULT 0,
    flow_run_run_count        INTEGER NOT NULL DEFAULT 0,
    expected_start_time       INTEGER,
    next_scheduled_start_time INTEGER,
    start_time                INTEGER,
    end_time                  INTEGER,
    total_run_time            INTEGER NOT NULL DEFAULT 0,
    created                   INTEGER NOT NULL,
    updated                   INTEGER NOT NULL,
    PRIMARY KEY (id, workspace_id)
) STRICT;
CREATE TABLE own_task_run_states (
    id            TEXT NOT NULL,
    workspace_id  TEXT NOT NULL,
    task_run_id   TEXT NOT NULL,
    type          TEXT NOT NULL,
    name          TEXT NOT NULL,
    timestamp     INTEGER NOT NULL,
    message       TEXT,
    state_details TEXT NOT NULL DEFAULT '{}',
    data          TEXT,
    PRIMARY KEY (id, workspace_id),
    FOREIGN KEY (task_run_id, workspace_id) REFERENCES own_task_runs(id, workspace_id) ON DELETE CASCADE
) STRICT;
INSERT INTO own_task_runs (id, workspace_id, name, flow_run_id, task_key, dynamic_key, cache_key, cache_expiration, task_version, empirical_policy, tags, labels, task_inputs, state_id, state_type, state_name, state_timestamp, run_count, flow_run_run_count, expected_start_time, next_scheduled_start_time, start_time, end_time, total_run_time, created, updated)
SELECT id, workspace_id, name, flow_run_id, task_key, dynamic_key, cache_key, cache_expiration, task_version, empirical_policy, tags, labels, task_inputs, state_id, state_type, state_name, state_timestamp, run_count, flow_run_run_count, expected_start_time, next_scheduled_start_time, start_time, end_time, total_run_time, created, updated FROM task_runs ORDER BY rowid;
INSERT INTO own_task_run_states (id, workspace_id, task_run_id, type, name, timestamp, message, state_details, data)
SELECT id, workspace_id, task_run_id, type, name, timestamp, message, state_details, data FROM task_run_states ORDER BY rowid;
DROP TABLE task_run_states;
DROP TABLE task_runs;
ALTER TABLE own_task_runs RENAME TO task_runs;
ALTER TABLE own_task_run_states RENAME TO task_run_states;
CREATE UNIQUE INDEX task_runs_key ON task_runs(flow_run_id, task_key, dynamic_key) WHERE flow_run_id IS NOT NULL;
CREATE INDEX task_runs_expected ON task_runs(workspace_id, expected_start_time);
CREATE INDEX task_runs_ended ON task_runs(workspace_id, end_time);
CREATE INDEX task_run_states_run ON task_run_states(task_run_id, timestamp);
