-- Keys of people and programs. The key itself is shown once and kept nowhere; a revoked one stays, so that who used it can be told.
CREATE TABLE keys (
    id           TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL REFERENCES workspaces(id) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    role         TEXT NOT NULL CHECK (role IN ('viewer', 'runner', 'developer', 'admin')),
    key_hash     TEXT NOT NULL UNIQUE,
    -- How the key begins, so that its owner knows which one it is.
    hint         TEXT NOT NULL,
    created      INTEGER NOT NULL,
    expires      INTEGER,
    last_used    INTEGER,
    revoked      INTEGER
) STRICT;
CREATE UNIQUE INDEX keys_name ON keys(workspace_id, name) WHERE revoked IS NULL;
