-- Deletion of runs, graphs and plugins, deadlines of runs, and pauses of graphs and namespaces.

-- Runs that were deleted, and whose states are still being removed in pieces. Their rows of table
-- `run` are gone, so that no reader finds them.
CREATE TABLE deleted_run (
    run BIGINT PRIMARY KEY NOT NULL,
    deleted_at BIGINT NOT NULL
);

-- The runs of a revision, for the deletion of graphs and plugins.
CREATE INDEX run_revision ON run (revision);

-- The uploads that the nodes of a revision name. An upload that a current revision or the revision
-- of a run names is not removed.
CREATE TABLE revision_plugin (
    revision BIGINT NOT NULL,
    plugin TEXT COLLATE "C" NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (revision, plugin, digest)
);
INSERT INTO revision_plugin (revision, plugin, digest)
    SELECT DISTINCT r.id, n.value ->> 'plugin', n.value ->> 'digest'
    FROM revision r, json_array_elements(r.body::JSON -> 'nodes') n;
CREATE INDEX revision_plugin_digest ON revision_plugin (digest, plugin);

-- The numbers of revisions are never used again after the deletion of a graph: caches know
-- revisions by them.
INSERT INTO number SELECT 'revision', COALESCE(MAX(id), 0) + 1 FROM revision;

-- Deadlines of runs that have any: by `due_at` the run must have ended (`deadline`), or a state of
-- it must have begun (`start-by`). One that was met goes when it is due; one that was missed stays
-- with its run, as the reason of its failure.
CREATE TABLE deadline (
    run BIGINT NOT NULL,
    kind TEXT COLLATE "C" NOT NULL CHECK (kind IN ('deadline', 'start-by')),
    due_at BIGINT NOT NULL,
    missed_at BIGINT,
    PRIMARY KEY (run, kind)
);
-- The next ones, for a host that waits for them.
CREATE INDEX deadline_due ON deadline (due_at) WHERE missed_at IS NULL;

-- Pauses of namespaces and graphs: since when, by whom and why.
ALTER TABLE namespace ADD COLUMN paused_at BIGINT;
ALTER TABLE namespace ADD COLUMN paused_by TEXT;
ALTER TABLE namespace ADD COLUMN pause_reason TEXT;
ALTER TABLE graph ADD COLUMN paused_at BIGINT;
ALTER TABLE graph ADD COLUMN paused_by TEXT;
ALTER TABLE graph ADD COLUMN pause_reason TEXT;
-- The number of changes of the pause, and the change that the runs of the graph are still to
-- follow; 0 if they have followed all.
ALTER TABLE graph ADD COLUMN pause_event BIGINT NOT NULL DEFAULT 0 CHECK (pause_event >= 0);
ALTER TABLE graph ADD COLUMN pause_pending BIGINT NOT NULL DEFAULT 0 CHECK (pause_pending >= 0);
CREATE INDEX graph_pause_pending ON graph (id) WHERE pause_pending > 0;

-- Runs that are paused with their graph, and not by themselves: they resume with it.
CREATE TABLE paused_run (
    run BIGINT PRIMARY KEY NOT NULL,
    graph BIGINT NOT NULL
);
CREATE INDEX paused_run_graph ON paused_run (graph, run);
