-- Bulk operations: one action on every run that met a filter when the operation began.

CREATE TABLE bulk (
    -- The id, which sorts by the time of the request.
    id TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    namespace TEXT COLLATE "C" NOT NULL,
    action TEXT COLLATE "C" NOT NULL CHECK (action IN ('cancel', 'redrive', 'delete')),
    -- The filter as the caller gave it, a JSON object.
    filter TEXT NOT NULL CHECK (filter <> '{}'),
    reason TEXT NOT NULL,
    created_by TEXT,
    -- The idempotency key of the request.
    start_key TEXT COLLATE "C",
    status TEXT COLLATE "C" NOT NULL CHECK (status IN ('RUNNING', 'SUCCESS', 'FAILED', 'CANCELLED')),
    -- Runs that were started or that ended after this time are left alone.
    frozen_at BIGINT NOT NULL,
    ended_at BIGINT,
    -- The number of runs that met the filter at the beginning, counted up to a bound: exactly, or
    -- at least so many.
    expected BIGINT NOT NULL CHECK (expected >= 0),
    is_exact BIGINT NOT NULL CHECK (is_exact IN (0, 1)),
    -- The number of runs of all pages before this one, by outcome.
    done BIGINT NOT NULL DEFAULT 0 CHECK (done >= 0),
    skipped BIGINT NOT NULL DEFAULT 0 CHECK (skipped >= 0),
    failed BIGINT NOT NULL DEFAULT 0 CHECK (failed >= 0),
    -- The number of the page, and the run after which it begins.
    page BIGINT NOT NULL DEFAULT 0 CHECK (page >= 0),
    page_after TEXT COLLATE "C",
    -- The session that carries the operation out.
    session BIGINT,
    CHECK ((status = 'RUNNING') = (ended_at IS NULL))
);
-- The list of a namespace, the newest last.
CREATE INDEX bulk_list ON bulk (namespace, id);
-- The operations that hosts carry out, and their number in a namespace.
CREATE INDEX bulk_running ON bulk (namespace, id) WHERE status = 'RUNNING';
-- The oldest ones, which are removed.
CREATE INDEX bulk_ended ON bulk (ended_at) WHERE ended_at IS NOT NULL;
CREATE UNIQUE INDEX bulk_start_key ON bulk (namespace, start_key) WHERE start_key IS NOT NULL;

-- The runs of the page of an operation that are done with, each written by the transaction that
-- changed the run. The end of the page counts and removes them.
CREATE TABLE bulk_run (
    bulk TEXT COLLATE "C" NOT NULL,
    run BIGINT NOT NULL,
    outcome TEXT COLLATE "C" NOT NULL CHECK (outcome IN ('done', 'skipped', 'failed')),
    PRIMARY KEY (bulk, run)
);
