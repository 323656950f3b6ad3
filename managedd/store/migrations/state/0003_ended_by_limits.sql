-- What a limit has ended lately: few of many.
CREATE INDEX executions_limited ON executions(exited_at) WHERE end_cause IN ('memory', 'time', 'quota', 'disk', 'pids');
