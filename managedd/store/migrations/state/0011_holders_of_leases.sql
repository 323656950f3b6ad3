-- Who holds a lease is found by its id, and those of an ended run among those that were not taken in a container.
CREATE INDEX concurrency_leases_holder ON concurrency_leases(json_extract(holder, '$.id')) WHERE holder IS NOT NULL;
CREATE INDEX concurrency_leases_elsewhere ON concurrency_leases(workspace_id) WHERE execution_id IS NULL AND holder IS NOT NULL;
-- Leases of tags without a limit, which nobody gave back; others without slots expire by themselves.
DELETE FROM concurrency_leases
WHERE expires_at - created > 3153600000000000 AND NOT EXISTS (SELECT 1 FROM concurrency_lease_slots AS s WHERE s.lease_id = concurrency_leases.id);
