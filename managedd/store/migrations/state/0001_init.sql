-- The state of everything. Times are integer microseconds since the epoch (UTC), durations integer microseconds,
-- booleans 0/1, JSON is text. Every resource row has the workspace it belongs to.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE accounts (
    id      TEXT PRIMARY KEY,
    handle  TEXT NOT NULL UNIQUE,
    name    TEXT NOT NULL,
    created INTEGER NOT NULL
) STRICT;

CREATE TABLE workspaces (
    id          TEXT PRIMARY KEY,
    account_id  TEXT NOT NULL REFERENCES accounts(id),
    handle      TEXT NOT NULL,
    name        TEXT NOT NULL,
    description TEXT NOT NULL DEFAULT '',
    plan        TEXT NOT NULL,
    -- The bucket of starts: so many were taken at that moment.
    starts_taken REAL NOT NULL DEFAULT 0,
    starts_as_of INTEGER NOT NULL DEFAULT 0,
    created     INTEGER NOT NULL,
    updated     INTEGER NOT NULL,
    UNIQUE (account_id, handle)
) STRICT;

-- The plans of the settings, as they were read last: what is decided in a transaction is decided by what stands here.
CREATE TABLE plans (
    name   TEXT PRIMARY KEY,
    limits TEXT NOT NULL
) STRICT;

CREATE TABLE flows (
    id           TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL REFERENCES workspaces(id),
    name         TEXT NOT NULL,
    tags         TEXT NOT NULL DEFAULT '[]',
    labels       TEXT NOT NULL DEFAULT '{}',
    created      INTEGER NOT NULL,
    updated      INTEGER NOT NULL,
    UNIQUE (workspace_id, name)
) STRICT;
CREATE INDEX flows_created ON flows(workspace_id, created);

CREATE TABLE work_pools (
    id                    TEXT PRIMARY KEY,
    workspace_id          TEXT NOT NULL REFERENCES workspaces(id),
    name                  TEXT NOT NULL,
    description           TEXT,
    type                  TEXT NOT NULL,
    base_job_template     TEXT NOT NULL DEFAULT '{}',
    is_paused             INTEGER NOT NULL DEFAULT 0,
    concurrency_limit     INTEGER,
    storage_configuration TEXT NOT NULL DEFAULT '{}',
    default_queue_id      TEXT,
    created               INTEGER NOT NULL,
    updated               INTEGER NOT NULL,
    UNIQUE (workspace_id, name)
) STRICT;

CREATE TABLE work_queues (
    id                TEXT PRIMARY KEY,
    workspace_id      TEXT NOT NULL REFERENCES workspaces(id),
    work_pool_id      TEXT NOT NULL REFERENCES work_pools(id) ON DELETE CASCADE,
    name              TEXT NOT NULL,
    description       TEXT NOT NULL DEFAULT '',
    is_paused         INTEGER NOT NULL DEFAULT 0,
    concurrency_limit INTEGER,
    priority          INTEGER NOT NULL DEFAULT 1,
    filter            TEXT,
    last_polled       INTEGER,
    created           INTEGER NOT NULL,
    updated           INTEGER NOT NULL,
    UNIQUE (work_pool_id, name)
) STRICT;
CREATE INDEX work_queues_name ON work_queues(workspace_id, name);

CREATE TABLE workers (
    id                         TEXT PRIMARY KEY,
    workspace_id               TEXT NOT NULL REFERENCES workspaces(id),
    work_pool_id               TEXT NOT NULL REFERENCES work_pools(id) ON DELETE CASCADE,
    name                       TEXT NOT NULL,
    last_heartbeat_time        INTEGER,
    heartbeat_interval_seconds REAL,
    metadata                   TEXT,
    created                    INTEGER NOT NULL,
    updated                    INTEGER NOT NULL,
    UNIQUE (work_pool_id, name)
) STRICT;

CREATE TABLE deployments (
    id                         TEXT PRIMARY KEY,
    workspace_id               TEXT NOT NULL REFERENCES workspaces(id),
    flow_id                    TEXT NOT NULL REFERENCES flows(id) ON DELETE CASCADE,
    name                       TEXT NOT NULL,
    version                    TEXT,
    version_id                 TEXT,
    version_info               TEXT,
    description                TEXT,
    paused                     INTEGER NOT NULL DEFAULT 0,
    tags                       TEXT NOT NULL DEFAULT '[]',
    labels                     TEXT NOT NULL DEFAULT '{}',
    parameters                 TEXT NOT NULL DEFAULT '{}',
    parameter_openapi_schema   TEXT,
    enforce_parameter_schema   INTEGER NOT NULL DEFAULT 1,
    pull_steps                 TEXT,
    path                       TEXT,
    entrypoint                 TEXT,
    storage_document_id        TEXT,
    infrastructure_document_id TEXT,
    job_variables              TEXT NOT NULL DEFAULT '{}',
    work_queue_id              TEXT REFERENCES work_queues(id) ON DELETE SET NULL,
    work_queue_name            TEXT,
    concurrency_limit          INTEGER,
    concurrency_options        TEXT,
    last_polled                INTEGER,
    created_by                 TEXT,
    updated_by                 TEXT,
    created                    INTEGER NOT NULL,
    updated                    INTEGER NOT NULL,
    UNIQUE (flow_id, name)
) STRICT;
CREATE INDEX deployments_name ON deployments(workspace_id, name);
CREATE INDEX deployments_queue ON deployments(work_queue_id);
CREATE INDEX deployments_updated ON deployments(workspace_id, updated);

CREATE TABLE deployment_schedules (
    id                 TEXT PRIMARY KEY,
    workspace_id       TEXT NOT NULL REFERENCES workspaces(id),
    deployment_id      TEXT NOT NULL REFERENCES deployments(id) ON DELETE CASCADE,
    schedule           TEXT NOT NULL,
    active             INTEGER NOT NULL DEFAULT 1,
    max_scheduled_runs INTEGER,
    parameters         TEXT NOT NULL DEFAULT '{}',
    slug               TEXT,
    created            INTEGER NOT NULL,
    updated            INTEGER NOT NULL
) STRICT;
CREATE INDEX deployment_schedules_deployment ON deployment_schedules(deployment_id);
CREATE UNIQUE INDEX deployment_schedules_slug ON deployment_schedules(deployment_id, slug) WHERE slug IS NOT NULL;

CREATE TABLE flow_runs (
    id                         TEXT PRIMARY KEY,
    workspace_id               TEXT NOT NULL REFERENCES workspaces(id),
    name                       TEXT NOT NULL,
    flow_id                    TEXT NOT NULL REFERENCES flows(id) ON DELETE CASCADE,
    deployment_id              TEXT,
    deployment_version         TEXT,
    schedule_id                TEXT,
    work_queue_id              TEXT REFERENCES work_queues(id) ON DELETE SET NULL,
    work_queue_name            TEXT,
    flow_version               TEXT,
    parameters                 TEXT NOT NULL DEFAULT '{}',
    context                    TEXT NOT NULL DEFAULT '{}',
    empirical_policy           TEXT NOT NULL DEFAULT '{}',
    tags                       TEXT NOT NULL DEFAULT '[]',
    labels                     TEXT NOT NULL DEFAULT '{}',
    idempotency_key            TEXT,
    parent_task_run_id         TEXT,
    job_variables              TEXT,
    infrastructure_document_id TEXT,
    infrastructure_pid         TEXT,
    created_by                 TEXT,
    auto_scheduled             INTEGER NOT NULL DEFAULT 0,
    state_id                   TEXT,
    state_type                 TEXT,
    state_name                 TEXT,
    state_timestamp            INTEGER,
    run_count                  INTEGER NOT NULL DEFAULT 0,
    expected_start_time        INTEGER,
    next_scheduled_start_time  INTEGER,
    start_time                 INTEGER,
    end_time                   INTEGER,
    total_run_time             INTEGER NOT NULL DEFAULT 0,
    client_version             TEXT,
    created                    INTEGER NOT NULL,
    updated                    INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX flow_runs_idempotency ON flow_runs(flow_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
-- Two kinds: what begins with the workspace gives orders and windows of time, the others lead to few rows (see `Table.leads`).
CREATE INDEX flow_runs_expected ON flow_runs(workspace_id, expected_start_time);
CREATE INDEX flow_runs_began ON flow_runs(workspace_id, coalesce(start_time, expected_start_time));
CREATE INDEX flow_runs_ended ON flow_runs(workspace_id, end_time);
CREATE INDEX flow_runs_name ON flow_runs(name);
CREATE INDEX flow_runs_deployment ON flow_runs(deployment_id, expected_start_time) WHERE deployment_id IS NOT NULL;
CREATE INDEX flow_runs_flow ON flow_runs(flow_id, expected_start_time);
CREATE INDEX flow_runs_parent ON flow_runs(parent_task_run_id) WHERE parent_task_run_id IS NOT NULL;
-- The queue: what waits, in due order, per work queue. Partial, so that history never slows it.
CREATE INDEX flow_runs_queue ON flow_runs(work_queue_id, next_scheduled_start_time, state_name, deployment_id) WHERE state_type = 'SCHEDULED';
-- What waits for a slot of its deployment, in the order in which it was due first.
CREATE INDEX flow_runs_waiting ON flow_runs(work_queue_id, expected_start_time, deployment_id)
    WHERE state_type = 'SCHEDULED' AND state_name = 'AwaitingConcurrencySlot';
-- Slots are derived from the runs that hold them.
CREATE INDEX flow_runs_occupying ON flow_runs(work_queue_id, deployment_id)
    WHERE state_type IN ('PENDING', 'RUNNING', 'CANCELLING');
CREATE INDEX flow_runs_holding ON flow_runs(deployment_id) WHERE state_type IN ('PENDING', 'RUNNING', 'CANCELLING');
-- What is due and was not begun, over all queues: the scheduler marks it Late.
CREATE INDEX flow_runs_due ON flow_runs(next_scheduled_start_time) WHERE state_type = 'SCHEDULED' AND state_name = 'Scheduled';
-- How far ahead each schedule is planned.
CREATE INDEX flow_runs_schedule ON flow_runs(schedule_id, next_scheduled_start_time)
    WHERE state_type = 'SCHEDULED' AND schedule_id IS NOT NULL;
-- What a deployment is going to run.
CREATE INDEX flow_runs_scheduled ON flow_runs(deployment_id, next_scheduled_start_time) WHERE state_type = 'SCHEDULED';
-- What has not ended, by state. Runs that have ended are too many of a kind for an index to help.
CREATE INDEX flow_runs_live ON flow_runs(state_type, workspace_id, expected_start_time)
    WHERE state_type IN ('SCHEDULED', 'PENDING', 'RUNNING', 'CANCELLING', 'PAUSED');
CREATE INDEX flow_runs_paused ON flow_runs(id) WHERE state_type = 'PAUSED';
CREATE INDEX flow_runs_cancelling ON flow_runs(state_timestamp) WHERE state_type = 'CANCELLING';

CREATE TABLE flow_run_states (
    id            TEXT PRIMARY KEY,
    workspace_id  TEXT NOT NULL,
    flow_run_id   TEXT NOT NULL REFERENCES flow_runs(id) ON DELETE CASCADE,
    type          TEXT NOT NULL,
    name          TEXT NOT NULL,
    timestamp     INTEGER NOT NULL,
    message       TEXT,
    state_details TEXT NOT NULL DEFAULT '{}',
    data          TEXT
) STRICT;
CREATE INDEX flow_run_states_run ON flow_run_states(flow_run_id, timestamp);

CREATE TABLE flow_run_inputs (
    id           TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL REFERENCES workspaces(id),
    flow_run_id  TEXT NOT NULL REFERENCES flow_runs(id) ON DELETE CASCADE,
    key          TEXT NOT NULL,
    value        TEXT NOT NULL,
    sender       TEXT,
    created      INTEGER NOT NULL,
    updated      INTEGER NOT NULL,
    UNIQUE (flow_run_id, key)
) STRICT;

CREATE TABLE task_runs (
    id                        TEXT PRIMARY KEY,
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
    updated                   INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX task_runs_key ON task_runs(flow_run_id, task_key, dynamic_key) WHERE flow_run_id IS NOT NULL;
CREATE INDEX task_runs_expected ON task_runs(workspace_id, expected_start_time);
CREATE INDEX task_runs_ended ON task_runs(workspace_id, end_time);

CREATE TABLE task_run_states (
    id            TEXT PRIMARY KEY,
    workspace_id  TEXT NOT NULL,
    task_run_id   TEXT NOT NULL REFERENCES task_runs(id) ON DELETE CASCADE,
    type          TEXT NOT NULL,
    name          TEXT NOT NULL,
    timestamp     INTEGER NOT NULL,
    message       TEXT,
    state_details TEXT NOT NULL DEFAULT '{}',
    data          TEXT
) STRICT;
CREATE INDEX task_run_states_run ON task_run_states(task_run_id, timestamp);

CREATE TABLE artifacts (
    id           TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL REFERENCES workspaces(id),
    key          TEXT,
    type         TEXT,
    description  TEXT,
    data         TEXT,
    metadata_    TEXT,
    flow_run_id  TEXT,
    task_run_id  TEXT,
    created      INTEGER NOT NULL,
    updated      INTEGER NOT NULL
) STRICT;
CREATE INDEX artifacts_key ON artifacts(workspace_id, key, created);
CREATE INDEX artifacts_flow_run ON artifacts(flow_run_id);
CREATE INDEX artifacts_task_run ON artifacts(task_run_id);

CREATE TABLE artifact_collections (
    id           TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL REFERENCES workspaces(id),
    key          TEXT NOT NULL,
    latest_id    TEXT NOT NULL REFERENCES artifacts(id) ON DELETE CASCADE,
    created      INTEGER NOT NULL,
    updated      INTEGER NOT NULL,
    UNIQUE (workspace_id, key)
) STRICT;
CREATE INDEX artifact_collections_latest ON artifact_collections(latest_id);

CREATE TABLE variables (
    id           TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL REFERENCES workspaces(id),
    name         TEXT NOT NULL,
    value        TEXT NOT NULL,
    tags         TEXT NOT NULL DEFAULT '[]',
    created      INTEGER NOT NULL,
    updated      INTEGER NOT NULL,
    UNIQUE (workspace_id, name)
) STRICT;

CREATE TABLE block_types (
    id                TEXT PRIMARY KEY,
    workspace_id      TEXT NOT NULL REFERENCES workspaces(id),
    name              TEXT NOT NULL,
    slug              TEXT NOT NULL,
    logo_url          TEXT,
    documentation_url TEXT,
    description       TEXT,
    code_example      TEXT,
    is_protected      INTEGER NOT NULL DEFAULT 0,
    created           INTEGER NOT NULL,
    updated           INTEGER NOT NULL,
    UNIQUE (workspace_id, slug)
) STRICT;

CREATE TABLE block_schemas (
    id            TEXT PRIMARY KEY,
    workspace_id  TEXT NOT NULL REFERENCES workspaces(id),
    block_type_id TEXT NOT NULL REFERENCES block_types(id) ON DELETE CASCADE,
    checksum      TEXT NOT NULL,
    fields        TEXT NOT NULL DEFAULT '{}',
    capabilities  TEXT NOT NULL DEFAULT '[]',
    version       TEXT NOT NULL DEFAULT 'non-versioned',
    created       INTEGER NOT NULL,
    updated       INTEGER NOT NULL,
    UNIQUE (workspace_id, checksum, version)
) STRICT;
CREATE INDEX block_schemas_type ON block_schemas(block_type_id, created);

CREATE TABLE block_documents (
    id              TEXT PRIMARY KEY,
    workspace_id    TEXT NOT NULL REFERENCES workspaces(id),
    name            TEXT,
    block_type_id   TEXT NOT NULL REFERENCES block_types(id) ON DELETE CASCADE,
    block_schema_id TEXT NOT NULL REFERENCES block_schemas(id) ON DELETE CASCADE,
    data            TEXT NOT NULL DEFAULT '{}',
    is_anonymous    INTEGER NOT NULL DEFAULT 0,
    created         INTEGER NOT NULL,
    updated         INTEGER NOT NULL,
    UNIQUE (block_type_id, name)
) STRICT;
CREATE INDEX block_documents_name ON block_documents(workspace_id, name);

CREATE TABLE concurrency_limits (
    id                         TEXT PRIMARY KEY,
    workspace_id               TEXT NOT NULL REFERENCES workspaces(id),
    name                       TEXT NOT NULL,
    "limit"                    INTEGER NOT NULL,
    active                     INTEGER NOT NULL DEFAULT 1,
    -- Slots taken without a lease (rate limits, old clients); leased slots are derived from concurrency_lease_slots.
    unleased_slots             REAL NOT NULL DEFAULT 0,
    unleased_at                INTEGER NOT NULL DEFAULT 0,
    denied_slots               REAL NOT NULL DEFAULT 0,
    slot_decay_per_second      REAL NOT NULL DEFAULT 0,
    avg_slot_occupancy_seconds REAL NOT NULL DEFAULT 2.0,
    created                    INTEGER NOT NULL,
    updated                    INTEGER NOT NULL,
    UNIQUE (workspace_id, name)
) STRICT;

CREATE TABLE concurrency_leases (
    id           TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL REFERENCES workspaces(id),
    holder       TEXT,
    expires_at   INTEGER NOT NULL,
    created      INTEGER NOT NULL
) STRICT;
CREATE INDEX concurrency_leases_expiry ON concurrency_leases(expires_at);

CREATE TABLE concurrency_lease_slots (
    lease_id TEXT NOT NULL REFERENCES concurrency_leases(id) ON DELETE CASCADE,
    limit_id TEXT NOT NULL REFERENCES concurrency_limits(id) ON DELETE CASCADE,
    slots    INTEGER NOT NULL,
    PRIMARY KEY (lease_id, limit_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX concurrency_lease_slots_limit ON concurrency_lease_slots(limit_id);

-- Clients and the daemon write events; `position` is what a reader's cursor holds, so it must never be reused.
-- An event goes into the indexes below, and into event_related, some moments after it was stored, together with many others: a state change
-- that had to bring twelve pages of indexes up to date would take half as long again. See `store/events.catch_up`.
CREATE TABLE events (
    position     INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT NOT NULL,
    workspace_id TEXT NOT NULL REFERENCES workspaces(id),
    occurred     INTEGER NOT NULL,
    received     INTEGER NOT NULL,
    event        TEXT NOT NULL,
    resource_id  TEXT NOT NULL,
    resource     TEXT NOT NULL,
    related      TEXT NOT NULL DEFAULT '[]',
    payload      TEXT NOT NULL DEFAULT '{}',
    follows      TEXT,
    indexed      INTEGER NOT NULL DEFAULT 0,
    UNIQUE (workspace_id, id)
) STRICT;
CREATE INDEX events_occurred ON events(workspace_id, occurred) WHERE indexed = 1;
CREATE INDEX events_name ON events(workspace_id, event, occurred) WHERE indexed = 1;
CREATE INDEX events_resource ON events(workspace_id, resource_id, occurred) WHERE indexed = 1;
CREATE INDEX events_received ON events(received) WHERE indexed = 1;

CREATE TABLE event_related (
    resource_id TEXT NOT NULL,
    position    INTEGER NOT NULL REFERENCES events(position) ON DELETE CASCADE,
    role        TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (resource_id, position, role)
) STRICT, WITHOUT ROWID;
CREATE INDEX event_related_position ON event_related(position);

CREATE TABLE automations (
    id                 TEXT PRIMARY KEY,
    workspace_id       TEXT NOT NULL REFERENCES workspaces(id),
    name               TEXT NOT NULL,
    description        TEXT NOT NULL DEFAULT '',
    enabled            INTEGER NOT NULL DEFAULT 1,
    tags               TEXT NOT NULL DEFAULT '[]',
    trigger            TEXT NOT NULL,
    actions            TEXT NOT NULL DEFAULT '[]',
    actions_on_trigger TEXT NOT NULL DEFAULT '[]',
    actions_on_resolve TEXT NOT NULL DEFAULT '[]',
    owner_resource     TEXT,
    created            INTEGER NOT NULL,
    updated            INTEGER NOT NULL
) STRICT;
CREATE INDEX automations_owner ON automations(workspace_id, owner_resource);

CREATE TABLE executions (
    id                 TEXT PRIMARY KEY,
    workspace_id       TEXT NOT NULL REFERENCES workspaces(id),
    flow_run_id        TEXT NOT NULL,
    work_pool_id       TEXT,
    attempt            INTEGER NOT NULL,
    phase              TEXT NOT NULL,
    driver             TEXT NOT NULL,
    handle             TEXT,
    key_hash           TEXT,
    image              TEXT,
    memory_limit_bytes INTEGER,
    cpu_limit          REAL,
    time_limit_seconds INTEGER,
    claimed_at         INTEGER NOT NULL,
    created_at         INTEGER,
    started_at         INTEGER,
    installed_at       INTEGER,
    exited_at          INTEGER,
    finalized_at       INTEGER,
    exit_code          INTEGER,
    oom_killed         INTEGER NOT NULL DEFAULT 0,
    peak_memory_bytes  INTEGER,
    -- Wish and fact are separate columns: asked to stop, and how it ended.
    stop_requested_at  INTEGER,
    stop_reason        TEXT,
    end_cause          TEXT,
    end_message        TEXT,
    evidence           TEXT NOT NULL DEFAULT '{}'
) STRICT;
CREATE INDEX executions_run ON executions(flow_run_id, attempt);
-- One live execution per run: what the dispatcher promises, the schema holds.
CREATE UNIQUE INDEX executions_live ON executions(flow_run_id) WHERE phase NOT IN ('FINALIZED', 'LOST');
CREATE INDEX executions_open ON executions(phase) WHERE phase NOT IN ('FINALIZED', 'LOST');
CREATE UNIQUE INDEX executions_key ON executions(key_hash) WHERE key_hash IS NOT NULL;
CREATE INDEX executions_workspace ON executions(workspace_id, claimed_at);

-- What ended executions have cost, month by month: written in the transaction that ends them, kept when their runs are deleted.
CREATE TABLE usage (
    execution_id  TEXT NOT NULL,
    -- '2026-11', of the operator's time zone; the day is the first one in that month.
    month         TEXT NOT NULL,
    day           TEXT NOT NULL,
    workspace_id  TEXT NOT NULL REFERENCES workspaces(id),
    minutes       INTEGER NOT NULL,
    flow_run_id   TEXT NOT NULL,
    deployment_id TEXT,
    -- 'flow/deployment', or the flow alone, as they were called then.
    owner         TEXT NOT NULL,
    PRIMARY KEY (execution_id, month)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_month ON usage(workspace_id, month);

-- The sums, so that asking what is left costs nothing.
CREATE TABLE usage_months (
    workspace_id TEXT NOT NULL REFERENCES workspaces(id),
    month        TEXT NOT NULL,
    minutes      INTEGER NOT NULL,
    -- The last share of the plan's hours, in percent, that was warned of.
    warned       INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (workspace_id, month)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER usage_added AFTER INSERT ON usage BEGIN
    INSERT INTO usage_months (workspace_id, month, minutes) VALUES (NEW.workspace_id, NEW.month, NEW.minutes)
    ON CONFLICT (workspace_id, month) DO UPDATE SET minutes = minutes + NEW.minutes;
END;
