-- What the containers of a run used while they ran: one row for each execution, with so many readings at most as a chart can show.
CREATE TABLE execution_samples (
    execution_id TEXT PRIMARY KEY,
    flow_run_id  TEXT NOT NULL REFERENCES flow_runs(id) ON DELETE CASCADE,
    -- [[microseconds, bytes of memory, microseconds of processor time since its start], …], in order.
    samples      TEXT NOT NULL
) STRICT;
CREATE INDEX execution_samples_run ON execution_samples(flow_run_id);
