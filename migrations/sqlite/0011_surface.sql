-- Columns and tables of lists, live views and timelines.

-- The session that claimed the state last, which names the host, and the time at which its
-- execution began: of the claim until the execution ends, and then its own. NULL again when the
-- state waits for another attempt.
ALTER TABLE state ADD COLUMN last_session INTEGER;
ALTER TABLE state ADD COLUMN began_at INTEGER;
UPDATE state SET last_session = session WHERE session IS NOT NULL;
-- The same of each attempt.
ALTER TABLE attempt ADD COLUMN session INTEGER;
ALTER TABLE attempt ADD COLUMN began_at INTEGER;

-- The failed states of a run in path order.
CREATE INDEX state_errored ON state (run, path) WHERE status = 'ERRORED';

-- The states of a run counted for each node, as text (node_counts.rs). Each end rewrites it, so
-- it is short: it has no sums of times.
ALTER TABLE run ADD COLUMN node_counts TEXT NOT NULL DEFAULT '';
UPDATE run SET node_counts = COALESCE((
    SELECT group_concat(node || '-' || node || ':' || waiting || ',' || active || ',' || succeeded || ',' || pruned
        || ',' || errored || ',' || cancelled || ',' || retries, ';')
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
        GROUP BY s.node ORDER BY s.node) n), '');

-- A host, by the data folder that its sessions name; its number, name and version are for people.
CREATE TABLE host (
    id INTEGER PRIMARY KEY NOT NULL,
    folder TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    first_seen_at INTEGER NOT NULL
);
INSERT INTO host (id, folder, name, version, first_seen_at)
    SELECT ROW_NUMBER() OVER (ORDER BY MIN(id)), host, host, '', MIN(started_at)
    FROM session WHERE host <> '' GROUP BY host;
INSERT INTO number SELECT 'host', COALESCE(MAX(id), 0) + 1 FROM host;

-- Why a run is there: the trigger that started it, or the key; the run that started it, or from
-- which it was forked. The time at which its root is due.
ALTER TABLE run ADD COLUMN "trigger" TEXT;
ALTER TABLE run ADD COLUMN started_by TEXT;
ALTER TABLE run ADD COLUMN parent TEXT;
ALTER TABLE run ADD COLUMN forked_from TEXT;
ALTER TABLE run ADD COLUMN due_at INTEGER;

-- The labels of runs. The index lists the runs with a label, the newest first.
CREATE TABLE label (
    run INTEGER NOT NULL,
    key TEXT NOT NULL CHECK (key <> ''),
    value TEXT NOT NULL,
    namespace TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (run, key)
) WITHOUT ROWID;
CREATE INDEX label_list ON label (namespace, key, value, created_at, run);
