-- What a run was started with.

-- The store of the run at its start, a JSON object of texts; NULL if it was empty, and for runs of
-- before. The entries of the run do not tell it: later states overwrite them, and the end of a run
-- removes them.
ALTER TABLE run ADD COLUMN start_store TEXT;

-- Compressed like the inputs of a run.
DO $$
BEGIN
    ALTER TABLE run ALTER COLUMN start_store SET COMPRESSION lz4;
EXCEPTION WHEN OTHERS THEN
    RAISE NOTICE 'this server has no lz4: large texts take longer';
END
$$;
