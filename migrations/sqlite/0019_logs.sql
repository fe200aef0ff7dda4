-- The run of an attempt with a log, so that the logs of a run are read in the order in which its
-- attempts ended. Attempts without a log have none, and no entry in the index.
ALTER TABLE attempt ADD COLUMN log_run INTEGER;
UPDATE attempt SET log_run = (SELECT s.run FROM state s WHERE s.id = attempt.state) WHERE logs IS NOT NULL;
CREATE INDEX attempt_log ON attempt (log_run, ended_at, state, number) WHERE log_run IS NOT NULL;
