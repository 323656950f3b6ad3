-- Where a back-fill of events begins is found among those of its own workspace: how many others have in the same time costs nothing, and so tells nothing.
DROP INDEX events_received;
CREATE INDEX events_received ON events(workspace_id, received) WHERE indexed = 1;
