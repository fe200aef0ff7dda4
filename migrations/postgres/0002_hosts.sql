-- Many hosts on one database, and what people do to runs.

-- A session's host is alive until here, unless it renews it: a lease. On
-- SQLite a data folder has one host, and nothing asks.
ALTER TABLE session ADD COLUMN expires_at BIGINT NOT NULL DEFAULT 0;
-- The data folder of its host. A folder has one host at a time, so that a new
-- one knows the last to be gone.
ALTER TABLE session ADD COLUMN host TEXT COLLATE "C" NOT NULL DEFAULT '';

-- The newest first: numbers no longer tell, since each host has its own block.
DROP INDEX run_list;
CREATE INDEX run_list ON run (namespace, created_at, id);

-- A run may be paused: what runs of it ends, and nothing is claimed.
ALTER TABLE run ADD COLUMN paused BIGINT NOT NULL DEFAULT 0 CHECK (paused IN (0, 1));
-- Its states are still to be brought in line with it, bit by bit: ended, if it
-- was cancelled, else parked or not. The number of the event that asked for it,
-- so that who sweeps for an older one does not call the work done.
ALTER TABLE run ADD COLUMN unswept BIGINT NOT NULL DEFAULT 0 CHECK (unswept >= 0);
UPDATE run SET unswept = version WHERE status = 'CANCELLED' AND open > 0;
DROP INDEX run_sweep;
CREATE INDEX run_unswept ON run (id) WHERE unswept > 0;
-- A second start with the same key finds the run of the first.
ALTER TABLE run ADD COLUMN start_key TEXT COLLATE "C" CHECK (start_key <> '');
CREATE UNIQUE INDEX run_start_key ON run (namespace, start_key) WHERE start_key IS NOT NULL;

-- A state of a paused run is out of the way of who looks for something to claim.
ALTER TABLE state ADD COLUMN parked BIGINT NOT NULL DEFAULT 0 CHECK (parked IN (0, 1));
-- The fence under which its host noted that it begins it. Only a state that may
-- have ended a host before is noted.
ALTER TABLE state ADD COLUMN begun BIGINT NOT NULL DEFAULT 0 CHECK (begun >= 0);
DROP INDEX state_due;
CREATE INDEX state_due ON state (due_at, id) WHERE status = 'CREATED' AND parked = 0;

-- Numbers are given out in blocks: this is the first that nobody has.
CREATE TABLE number (
    name TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    next BIGINT NOT NULL CHECK (next > 0)
);
INSERT INTO number SELECT 'state', COALESCE(MAX(id), 0) + 1 FROM state;
INSERT INTO number SELECT 'run', COALESCE(MAX(id), 0) + 1 FROM run;
INSERT INTO number SELECT 'session', COALESCE(MAX(id), 0) + 1 FROM session;
