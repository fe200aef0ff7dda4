-- Large runs, in pieces.

-- The event of a redrive that is under way: what it has opened is parked until it has
-- opened all, so that no unite goes on before that. 0 if there is none.
ALTER TABLE run ADD COLUMN redrive BIGINT NOT NULL DEFAULT 0 CHECK (redrive >= 0);
CREATE INDEX run_redrive ON run (id) WHERE redrive > 0;

-- The end of an execution with many outputs is written in pieces before it counts. Its
-- children carry the number of the execution, negative, as their namespace until they are
-- claimed: a queue of their own in the index of what can be claimed, which nobody sees and
-- nobody claims from until the execution is SUCCESS. Here stand those that are not so far,
-- each with the fence that writes and the number of pieces that are there.
CREATE TABLE staged (
    state BIGINT PRIMARY KEY NOT NULL,
    run BIGINT NOT NULL,
    fence BIGINT NOT NULL CHECK (fence > 0),
    pieces BIGINT NOT NULL CHECK (pieces > 0)
);

-- Values of the store that the inputs of such children name, fixed by the end of their
-- parent: for each node the same for all, and copied to a child when it is claimed.
CREATE TABLE staged_fixed (
    state BIGINT NOT NULL,
    node BIGINT NOT NULL,
    fixed TEXT NOT NULL,
    PRIMARY KEY (state, node)
);

-- Texts of any length are compressed in a few milliseconds, where the server can do that:
-- its default takes a second and a half for 20 MB, in a transaction that others wait for.
DO $$
BEGIN
    ALTER TABLE run ALTER COLUMN inputs SET COMPRESSION lz4;
    ALTER TABLE output ALTER COLUMN body SET COMPRESSION lz4;
    ALTER TABLE entry ALTER COLUMN value SET COMPRESSION lz4;
    ALTER TABLE attempt ALTER COLUMN logs SET COMPRESSION lz4;
EXCEPTION WHEN OTHERS THEN
    RAISE NOTICE 'this server has no lz4: large texts take longer';
END
$$;
