-- Of pools that hold as much, the one that was given something least recently goes first.
CREATE INDEX executions_pool ON executions(work_pool_id, claimed_at);
