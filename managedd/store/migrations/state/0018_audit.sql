-- Who changed what, and who was refused. It outlives keys and workspaces, so it refers to none.
CREATE TABLE audit (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    at           INTEGER NOT NULL,
    -- NULL: of the daemon as a whole.
    workspace_id TEXT,
    actor        TEXT NOT NULL,
    actor_id     TEXT,
    actor_name   TEXT,
    -- NULL: the socket in the data directory.
    address      TEXT,
    -- Method and path as they are declared, and a JSON object of what the path names.
    operation    TEXT NOT NULL,
    named        TEXT NOT NULL DEFAULT '{}',
    status       INTEGER NOT NULL,
    times        INTEGER NOT NULL DEFAULT 1
) STRICT;
CREATE INDEX audit_workspace ON audit(workspace_id, id);
-- Refusals, which whoever is refused can make many of.
CREATE INDEX audit_refused ON audit(id) WHERE status >= 400;
