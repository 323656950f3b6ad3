-- Browsers that have signed in. The token is in the browser's cookie and nowhere else; a session ends with its key.
CREATE TABLE web_sessions (
    id         TEXT PRIMARY KEY,
    token_hash TEXT NOT NULL UNIQUE,
    key_id     TEXT REFERENCES keys(id) ON DELETE CASCADE,
    -- Of server.auth_string, where it was begun with that: another one ends it.
    auth_hash  TEXT,
    created    INTEGER NOT NULL,
    expires    INTEGER NOT NULL,
    CHECK ((key_id IS NULL) <> (auth_hash IS NULL))
) STRICT;
CREATE INDEX web_sessions_key ON web_sessions(key_id);
CREATE INDEX web_sessions_expires ON web_sessions(expires);
