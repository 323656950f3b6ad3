-- The audit log's room is shared out between workspaces: the oldest refusals of each are found.
DROP INDEX audit_refused;
CREATE INDEX audit_refused ON audit(workspace_id, id) WHERE status >= 400;
