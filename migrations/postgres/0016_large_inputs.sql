-- Large inputs of runs, apart from the row of the run: SQLite writes a row with its texts whole
-- whenever a column changes, and both databases have the same tables. The column `inputs` of
-- such a run is empty.
CREATE TABLE run_inputs (
    run BIGINT PRIMARY KEY NOT NULL,
    inputs TEXT NOT NULL CHECK (inputs <> '')
);
DO $$
BEGIN
    ALTER TABLE run_inputs ALTER COLUMN inputs SET COMPRESSION lz4;
EXCEPTION WHEN OTHERS THEN
    RAISE NOTICE 'this server has no lz4: large texts take longer';
END
$$;
