-- The store with which a run was started.

-- The store of the run at its start, a JSON object of texts; NULL if it was empty or is large, and
-- for runs of before. The entries of the run do not tell it: later states overwrite them, and the end of a run
-- removes them.
ALTER TABLE run ADD COLUMN start_store TEXT;

-- Large stores at the start, apart from the row of the run: SQLite writes a row with its texts whole
-- whenever a column changes, and each commit changes the counters of a run.
CREATE TABLE run_start_store (
    run INTEGER PRIMARY KEY NOT NULL,
    store TEXT NOT NULL CHECK (store <> '')
);
