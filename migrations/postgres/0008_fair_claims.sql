-- Claims go round the runs of a namespace, as they go round namespaces.

-- 1: it may be claimed once it is due, which is later. A claim that finds it due
-- makes it ready before it claims, so that claims of ready states look at no times.
-- States that were there before pass for delayed: the next claims make them ready.
ALTER TABLE state ADD COLUMN delayed BIGINT NOT NULL DEFAULT 0 CHECK (delayed IN (0, 1));
UPDATE state SET delayed = 1 WHERE status = 'CREATED';
DROP INDEX state_due;
-- What can be claimed now: a step along it finds the next run with work, however
-- much another has.
CREATE INDEX state_ready ON state (namespace, run, due_at, id)
    WHERE status = 'CREATED' AND parked = 0 AND delayed = 0;
-- What can be claimed later, in the order in which it is due.
CREATE INDEX state_delayed ON state (namespace, due_at, id)
    WHERE status = 'CREATED' AND parked = 0 AND delayed = 1;
