-- In whose container the slots were taken: what its process held is given back when it is gone. NULL: somebody else's.
ALTER TABLE concurrency_leases ADD COLUMN execution_id TEXT;
CREATE INDEX concurrency_leases_execution ON concurrency_leases(execution_id) WHERE execution_id IS NOT NULL;
