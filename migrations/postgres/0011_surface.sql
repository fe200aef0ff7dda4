-- Columns and tables of lists, live views and timelines.

-- The session that claimed the state last, which names the host, and the time at which its
-- execution began: of the claim until the execution ends, and then its own. NULL again when the
-- state waits for another attempt.
ALTER TABLE state ADD COLUMN last_session BIGINT;
ALTER TABLE state ADD COLUMN began_at BIGINT;
UPDATE state SET last_session = session WHERE session IS NOT NULL;
-- The same of each attempt.
ALTER TABLE attempt ADD COLUMN session BIGINT;
ALTER TABLE attempt ADD COLUMN began_at BIGINT;

-- The failed states of a run in path order.
CREATE INDEX state_errored ON state (run, path) WHERE status = 'ERRORED';

-- The states of a run counted for each node, as text (node_counts.rs). Each end rewrites it, so
-- it is short: it has no sums of times.
ALTER TABLE run ADD COLUMN node_counts TEXT NOT NULL DEFAULT '';
UPDATE run SET node_counts = COALESCE((
    SELECT string_agg(node || '-' || node || ':' || waiting || ',' || active || ',' || succeeded || ',' || pruned
        || ',' || errored || ',' || cancelled || ',' || retries, ';' ORDER BY node)
    FROM (SELECT s.node,
            COUNT(CASE WHEN s.status = 'WAITING' THEN 1 END) AS waiting,
            COUNT(CASE WHEN s.status IN ('CREATED', 'QUEUED') THEN 1 END) AS active,
            COUNT(CASE WHEN s.status = 'SUCCESS' THEN 1 END) AS succeeded,
            COUNT(CASE WHEN s.status = 'PRUNED' THEN 1 END) AS pruned,
            COUNT(CASE WHEN s.status = 'ERRORED' THEN 1 END) AS errored,
            COUNT(CASE WHEN s.status = 'CANCELLED' THEN 1 END) AS cancelled,
            SUM(s.retries) AS retries
        FROM state s
        WHERE s.run = run.id AND (s.namespace >= 0 OR EXISTS
            (SELECT 1 FROM state p WHERE p.id = -s.namespace AND p.status = 'SUCCESS'))
        GROUP BY s.node) n), '');

-- A host, by the data folder that its sessions name; its number, name and version are for people.
CREATE TABLE host (
    id BIGINT PRIMARY KEY NOT NULL,
    folder TEXT COLLATE "C" NOT NULL UNIQUE,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    first_seen_at BIGINT NOT NULL
);
INSERT INTO host (id, folder, name, version, first_seen_at)
    SELECT ROW_NUMBER() OVER (ORDER BY MIN(id)), host, host, '', MIN(started_at)
    FROM session WHERE host <> '' GROUP BY host;
INSERT INTO number SELECT 'host', COALESCE(MAX(id), 0) + 1 FROM host;

-- Why a run is there: the trigger that started it, or the key; the run that started it, or from
-- which it was forked. The time at which its root is due.
ALTER TABLE run ADD COLUMN "trigger" TEXT COLLATE "C";
ALTER TABLE run ADD COLUMN started_by TEXT COLLATE "C";
ALTER TABLE run ADD COLUMN parent TEXT COLLATE "C";
ALTER TABLE run ADD COLUMN forked_from TEXT COLLATE "C";
ALTER TABLE run ADD COLUMN due_at BIGINT;

-- The labels of runs. The index lists the runs with a label, the newest first.
CREATE TABLE label (
    run BIGINT NOT NULL,
    key TEXT COLLATE "C" NOT NULL CHECK (key <> ''),
    value TEXT COLLATE "C" NOT NULL,
    namespace TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (run, key)
);
CREATE INDEX label_list ON label (namespace, key, value, created_at, run);
