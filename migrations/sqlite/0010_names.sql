-- Columns by the glossary (docs/reference/glossary.md). Nothing but names changes.
ALTER TABLE run RENAME COLUMN unswept TO sweep_event;
ALTER TABLE state RENAME COLUMN parked TO held_back;
ALTER TABLE state RENAME COLUMN fixed TO store_snapshot;
ALTER TABLE state RENAME COLUMN begun TO begun_fence;
ALTER TABLE staged_fixed RENAME COLUMN fixed TO store_snapshot;
ALTER TABLE staged_fixed RENAME TO staged_snapshot;

-- Runs with a sweep that has not ended.
DROP INDEX run_unswept;
CREATE INDEX run_sweep_event ON run (id) WHERE sweep_event > 0;
