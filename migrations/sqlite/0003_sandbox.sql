-- What nodes that nobody has to trust may do, and how namespaces share a host.

-- A namespace that has a graph, and what an operator says of it.
CREATE TABLE namespace (
    id INTEGER PRIMARY KEY NOT NULL,
    name TEXT NOT NULL UNIQUE,
    -- {limit: value, ..}: lower ones than the host's.
    limits TEXT NOT NULL DEFAULT '{}',
    -- So many of its nodes run at a time on one host, unless the host's own
    -- number counts.
    slots BIGINT CHECK (slots > 0)
);
INSERT INTO namespace (name) SELECT DISTINCT namespace FROM graph;

-- A claimable state carries its namespace: claims take turns by it.
ALTER TABLE state ADD COLUMN namespace BIGINT NOT NULL DEFAULT 0;
UPDATE state SET namespace = COALESCE(
    (SELECT n.id FROM run u JOIN namespace n ON n.name = u.namespace WHERE u.id = state.run), 0);
DROP INDEX state_due;
CREATE INDEX state_due ON state (namespace, due_at, id) WHERE status = 'CREATED' AND parked = 0;

-- What the plugins of a name may use beyond their sandbox: JSON.
CREATE TABLE capability (
    namespace TEXT NOT NULL,
    plugin TEXT NOT NULL,
    grants TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (namespace, plugin)
) WITHOUT ROWID;

-- Which key sealed a secret: the beginning of a hash of it. Those without are
-- of the time when there was only one.
ALTER TABLE secret ADD COLUMN key_id TEXT NOT NULL DEFAULT '';
-- A known text under the key of the hosts of this database, so that a host with
-- another key is told at once.
CREATE TABLE seal (
    key_id TEXT PRIMARY KEY NOT NULL,
    sealed BLOB NOT NULL
) WITHOUT ROWID;

-- What an attempt was given, beside what it gave.
ALTER TABLE state ADD COLUMN input_bytes BIGINT;
ALTER TABLE attempt ADD COLUMN input_bytes BIGINT;
