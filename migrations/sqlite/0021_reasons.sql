-- The states of a run that wait for a time, in the order of their times: the reasons why a run waits
-- are counted along it. A state that is due at once, as almost every one, has no entry.
CREATE INDEX state_delayed_of_run ON state (run, due_at, id) WHERE status = 'CREATED' AND delayed = 1;
