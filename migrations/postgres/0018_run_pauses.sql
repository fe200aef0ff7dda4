-- Runs that are paused by themselves: since when, and by whom. A run that was paused before this
-- table existed has no row.
CREATE TABLE run_pause (
    run BIGINT PRIMARY KEY NOT NULL,
    paused_at BIGINT NOT NULL,
    -- The id of the key that asked for it, if that is known.
    paused_by TEXT
);
