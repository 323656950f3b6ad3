-- With what positions in tables that all workspaces share are made into ids, see `store/positions.py`.
INSERT INTO meta (key, value) VALUES ('positions_key', lower(hex(randomblob(32))));
