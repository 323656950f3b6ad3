-- A run that belongs to no queue, and to no deployment, as those that a client calls, takes no place in what is asked by queue or deployment: each of its
-- states would write these pages for nobody, and whoever looks for the queues' runs would read them all.
DROP INDEX flow_runs_queue;
CREATE INDEX flow_runs_queue ON flow_runs(work_queue_id, next_scheduled_start_time, state_name, deployment_id)
    WHERE state_type = 'SCHEDULED' AND work_queue_id IS NOT NULL;
DROP INDEX flow_runs_scheduled;
CREATE INDEX flow_runs_scheduled ON flow_runs(deployment_id, next_scheduled_start_time)
    WHERE state_type = 'SCHEDULED' AND deployment_id IS NOT NULL;
DROP INDEX flow_runs_occupying;
CREATE INDEX flow_runs_occupying ON flow_runs(work_queue_id, deployment_id)
    WHERE state_type IN ('PENDING', 'RUNNING', 'CANCELLING') AND work_queue_id IS NOT NULL;
DROP INDEX flow_runs_holding;
CREATE INDEX flow_runs_holding ON flow_runs(deployment_id, id, state_type)
    WHERE state_type IN ('PENDING', 'RUNNING', 'CANCELLING') AND deployment_id IS NOT NULL;
