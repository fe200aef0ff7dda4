-- Large inputs of runs, apart from the row of the run: SQLite writes a row with its texts whole
-- whenever a column changes, and each commit changes the counters of a run. The column `inputs`
-- of such a run is empty.
CREATE TABLE run_inputs (
    run INTEGER PRIMARY KEY NOT NULL,
    inputs TEXT NOT NULL CHECK (inputs <> '')
);
