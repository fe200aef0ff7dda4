-- The states of paused runs that would be ready otherwise, in the order of their times: the reasons
-- why such a run waits name some of them. A state of another run has no entry.
CREATE INDEX state_held_back ON state (run, due_at, id)
    WHERE status = 'CREATED' AND held_back = 1 AND delayed = 0;
