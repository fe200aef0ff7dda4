-- What a run with an idempotency key was started with: digests of its inputs
-- and store values, and its delay. A repeat is held to them. Runs of before have
-- none, and are taken for the same request.
ALTER TABLE run ADD COLUMN start_digest TEXT COLLATE "C";
