-- The ledger day by day: a run over midnight counts on both days. And what a month's plan was, for when the workspace is on another.
CREATE TABLE usage_by_day (
    execution_id  TEXT NOT NULL,
    -- '2026-11' and '2026-11-22', of the operator's time zone.
    month         TEXT NOT NULL,
    day           TEXT NOT NULL,
    workspace_id  TEXT NOT NULL REFERENCES workspaces(id),
    minutes       INTEGER NOT NULL,
    flow_run_id   TEXT NOT NULL,
    deployment_id TEXT,
    -- 'flow/deployment', or the flow alone, as they were called then.
    owner         TEXT NOT NULL,
    PRIMARY KEY (execution_id, day)
) STRICT, WITHOUT ROWID;
INSERT INTO usage_by_day SELECT execution_id, month, day, workspace_id, minutes, flow_run_id, deployment_id, owner FROM usage;
DROP TABLE usage;
ALTER TABLE usage_by_day RENAME TO usage;
CREATE INDEX usage_month ON usage(workspace_id, month);
CREATE TRIGGER usage_added AFTER INSERT ON usage BEGIN
    INSERT INTO usage_months (workspace_id, month, minutes) VALUES (NEW.workspace_id, NEW.month, NEW.minutes)
    ON CONFLICT (workspace_id, month) DO UPDATE SET minutes = minutes + NEW.minutes;
END;
-- NULL: nothing has ended in that month since this is known.
ALTER TABLE usage_months ADD COLUMN plan TEXT;
ALTER TABLE usage_months ADD COLUMN limit_minutes REAL;
