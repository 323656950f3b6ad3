-- Keys by what may be known of them. While keys change there are two: the new one, and the old one in an envelope of the new.
CREATE TABLE secret_keys (
    key_id      TEXT PRIMARY KEY,
    check_value TEXT NOT NULL,
    made        INTEGER NOT NULL,
    source      TEXT NOT NULL,
    envelope    BLOB
) STRICT;

-- What is secret of a row of the table `kind`; the row itself shows masks.
CREATE TABLE sealed (
    kind         TEXT NOT NULL,
    row_id       TEXT NOT NULL,
    workspace_id TEXT NOT NULL REFERENCES workspaces(id) ON DELETE CASCADE,
    key_id       TEXT NOT NULL,
    envelope     BLOB NOT NULL,
    PRIMARY KEY (kind, row_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX sealed_key ON sealed(key_id);
CREATE INDEX sealed_workspace ON sealed(workspace_id);

CREATE TRIGGER block_documents_unsealed AFTER DELETE ON block_documents BEGIN
    DELETE FROM sealed WHERE kind = 'block_documents' AND row_id = OLD.id;
END;
CREATE TRIGGER deployments_unsealed AFTER DELETE ON deployments BEGIN
    DELETE FROM sealed WHERE kind = 'deployments' AND row_id = OLD.id;
END;
CREATE TRIGGER work_pools_unsealed AFTER DELETE ON work_pools BEGIN
    DELETE FROM sealed WHERE kind = 'work_pools' AND row_id = OLD.id;
END;
CREATE TRIGGER automations_unsealed AFTER DELETE ON automations BEGIN
    DELETE FROM sealed WHERE kind = 'automations' AND row_id = OLD.id;
END;
CREATE TRIGGER flow_runs_unsealed AFTER DELETE ON flow_runs WHEN OLD.job_variables IS NOT NULL BEGIN
    DELETE FROM sealed WHERE kind = 'flow_runs' AND row_id = OLD.id;
END;

-- The job variables that the pool's template marks as secret, as a JSON list of paths; NULL: none.
ALTER TABLE work_pools ADD COLUMN secret_variables TEXT;

-- What stands in clear and has to be sealed: a table and the rowid behind which to go on.
CREATE TABLE unsealed (
    kind         TEXT NOT NULL,
    work_pool_id TEXT NOT NULL DEFAULT '',
    after_rowid  INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (kind, work_pool_id)
) STRICT, WITHOUT ROWID;
INSERT INTO unsealed (kind) VALUES ('work_pools'), ('block_documents');
