-- For how long a container was seen to run, by a clock that nobody sets (microseconds), and when that was noted.
-- The time in which nobody looked, and what a wall clock that is set makes of it, is no compute time.
ALTER TABLE executions ADD COLUMN ran_us INTEGER;
ALTER TABLE executions ADD COLUMN seen_at INTEGER;
