-- A container counts for its deployment until it is gone, also when its run was deleted meanwhile.
ALTER TABLE executions ADD COLUMN deployment_id TEXT;
UPDATE executions SET deployment_id = (SELECT r.deployment_id FROM flow_runs AS r WHERE r.id = executions.flow_run_id)
WHERE phase NOT IN ('FINALIZED', 'LOST');
CREATE INDEX executions_deployment ON executions(deployment_id, flow_run_id)
    WHERE deployment_id IS NOT NULL AND phase NOT IN ('EXITED', 'FINALIZED', 'LOST');
-- Whether a run holds a slot is answered without its row.
DROP INDEX flow_runs_holding;
CREATE INDEX flow_runs_holding ON flow_runs(deployment_id, id, state_type)
    WHERE state_type IN ('PENDING', 'RUNNING', 'CANCELLING');
