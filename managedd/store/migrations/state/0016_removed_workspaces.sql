-- When the workspace was deleted: it opens nothing from then on, its rows go in steps, it itself last.
ALTER TABLE workspaces ADD COLUMN removed INTEGER;
CREATE INDEX workspaces_removed ON workspaces(removed) WHERE removed IS NOT NULL;
