-- The store with which a run was started.

-- The store of the run at its start, a JSON object of texts; NULL if it was empty or is large, and
-- for runs of before. The entries of the run do not tell it: later states overwrite them, and the end of a run
-- removes them.
ALTER TABLE run ADD COLUMN start_store TEXT;

-- Large stores at the start, apart from the row of the run, as on SQLite.
CREATE TABLE run_start_store (
    run BIGINT PRIMARY KEY NOT NULL,
    store TEXT NOT NULL CHECK (store <> '')
);

-- Compressed like the inputs of a run.
DO $$
BEGIN
    ALTER TABLE run ALTER COLUMN start_store SET COMPRESSION lz4;
    ALTER TABLE run_start_store ALTER COLUMN store SET COMPRESSION lz4;
EXCEPTION WHEN OTHERS THEN
    RAISE NOTICE 'this server has no lz4: large texts take longer';
END
$$;
