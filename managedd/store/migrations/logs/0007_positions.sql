-- Small facts of this file. The first: with what the positions of its lines are made into ids, see `store/positions.py`.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
INSERT INTO meta (key, value) VALUES ('positions_key', lower(hex(randomblob(32))));
