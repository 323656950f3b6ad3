-- What other runs have made and may wait for, and what has not begun, in the order in which it is due.
CREATE INDEX flow_runs_children ON flow_runs(
    work_queue_id, state_name, next_scheduled_start_time, needs_memory_bytes, needs_cpus, deployment_id, workspace_id, parent_task_run_id
) WHERE state_type = 'SCHEDULED' AND parent_task_run_id IS NOT NULL;
