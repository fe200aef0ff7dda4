-- What a run was started with.

-- The store of the run at its start, a JSON object of texts; NULL if it was empty, and for runs of
-- before. The entries of the run do not tell it: later states overwrite them, and the end of a run
-- removes them.
ALTER TABLE run ADD COLUMN start_store TEXT;
