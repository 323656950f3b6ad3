-- Whoever asks for a resource's events finds those of their own workspace: how many others have of it costs nothing, and so tells nothing.
-- Workspaces are named by integers: ids of 36 characters, twice for each resource of each event, would take more than most resources do.
CREATE TABLE event_workspaces (
    key          INTEGER PRIMARY KEY,
    workspace_id TEXT NOT NULL UNIQUE REFERENCES workspaces(id) ON DELETE CASCADE
) STRICT;
INSERT INTO event_workspaces (workspace_id) SELECT id FROM workspaces ORDER BY rowid;
-- Whose each event is, from an index and in some bytes: the events themselves are large, and far from each other.
CREATE TABLE event_owners (
    position  INTEGER PRIMARY KEY,
    workspace INTEGER NOT NULL
) STRICT;
INSERT INTO event_owners (position, workspace)
SELECT events.position, event_workspaces.key
FROM events JOIN event_workspaces ON event_workspaces.workspace_id = events.workspace_id
WHERE (SELECT count(*) FROM event_workspaces) > 1
ORDER BY events.position;
CREATE TABLE own_event_related (
    workspace   INTEGER NOT NULL,
    resource_id TEXT NOT NULL,
    position    INTEGER NOT NULL REFERENCES events(position) ON DELETE CASCADE,
    role        TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (workspace, resource_id, position, role)
) STRICT, WITHOUT ROWID;
-- Where there is one workspace it is everybody's, and the rows are in their order already.
INSERT INTO own_event_related (workspace, resource_id, position, role)
SELECT
    coalesce((SELECT workspace FROM event_owners WHERE event_owners.position = event_related.position), 1),
    resource_id, position, role
FROM event_related;
DROP TABLE event_owners;
DROP TABLE event_related;
ALTER TABLE own_event_related RENAME TO event_related;
CREATE INDEX event_related_position ON event_related(position);
