//! Deletion of runs, graphs and plugins, and the removal of what a deleted run leaves.

use crate::dialect::Statement;

statements! {
    DELETE_RUN = "DELETE FROM run WHERE id = $1";
    RECORD_DELETED_RUN = "INSERT INTO deleted_run (run, deleted_at) VALUES ($1, $2)";
    /// Lists deleted runs whose states are still being removed.
    DELETED_RUNS = "SELECT run FROM deleted_run ORDER BY run LIMIT $1";
    /// Locks a deleted run for the removal of one piece, unless another host removes one.
    LOCK_DELETED_RUN = "SELECT run FROM deleted_run WHERE run = $1",
    postgres "SELECT run FROM deleted_run WHERE run = $1 FOR UPDATE SKIP LOCKED";
    /// Reads a page of a run's states from a path on, staged ones included.
    STATES_TO_REMOVE =
        "SELECT id, path FROM state WHERE run = $1 AND path >= $2 ORDER BY path LIMIT $3";
    /// Removes up to `$2` outputs of some states.
    REMOVE_OUTPUTS =
        "DELETE FROM output \
         WHERE rowid IN (SELECT o.rowid \
             FROM json_each($1) w JOIN output o ON o.state = w.value LIMIT $2)",
    postgres
        "DELETE FROM output \
         WHERE ctid = ANY(ARRAY(SELECT o.ctid \
             FROM json_array_elements_text($1::JSON) w \
             JOIN output o ON o.state = w::BIGINT LIMIT $2))";
    /// Removes up to `$2` attempts of some states.
    REMOVE_ATTEMPTS =
        "DELETE FROM attempt \
         WHERE rowid IN (SELECT a.rowid \
             FROM json_each($1) w JOIN attempt a ON a.state = w.value LIMIT $2)",
    postgres
        "DELETE FROM attempt \
         WHERE ctid = ANY(ARRAY(SELECT a.ctid \
             FROM json_array_elements_text($1::JSON) w \
             JOIN attempt a ON a.state = w::BIGINT LIMIT $2))";
    REMOVE_UNITES = "DELETE FROM unite WHERE state IN (SELECT value FROM json_each($1))",
    postgres
        "DELETE FROM unite \
         WHERE state IN (SELECT w::BIGINT FROM json_array_elements_text($1::JSON) w)";
    REMOVE_STAGINGS = "DELETE FROM staged WHERE state IN (SELECT value FROM json_each($1))",
    postgres
        "DELETE FROM staged \
         WHERE state IN (SELECT w::BIGINT FROM json_array_elements_text($1::JSON) w)";
    REMOVE_SNAPSHOTS =
        "DELETE FROM staged_snapshot WHERE state IN (SELECT value FROM json_each($1))",
    postgres
        "DELETE FROM staged_snapshot \
         WHERE state IN (SELECT w::BIGINT FROM json_array_elements_text($1::JSON) w)";
    REMOVE_STATES = "DELETE FROM state WHERE id IN (SELECT value FROM json_each($1))",
    postgres
        "DELETE FROM state \
         WHERE id IN (SELECT w::BIGINT FROM json_array_elements_text($1::JSON) w)";
    REMOVE_INPUTS = "DELETE FROM run_inputs WHERE run = $1";
    REMOVE_START_STORE = "DELETE FROM run_start_store WHERE run = $1";
    REMOVE_LABELS = "DELETE FROM label WHERE run = $1";
    END_REMOVAL = "DELETE FROM deleted_run WHERE run = $1";

    /// Locks the runs of a graph, up to `$3`, in the order in which commits lock them.
    LOCK_RUNS_OF_GRAPH =
        "SELECT u.status \
         FROM run u \
         WHERE u.revision IN (SELECT r.id FROM revision r JOIN graph g ON g.id = r.graph \
             WHERE g.namespace = $1 AND g.name = $2) \
         ORDER BY u.id LIMIT $3",
    postgres
        "SELECT u.status \
         FROM run u \
         WHERE u.revision IN (SELECT r.id FROM revision r JOIN graph g ON g.id = r.graph \
             WHERE g.namespace = $1 AND g.name = $2) \
         ORDER BY u.id LIMIT $3 FOR UPDATE OF u";
    /// Locks a graph against starts, which lock it for the reference of their run.
    LOCK_GRAPH = "SELECT id FROM graph WHERE namespace = $1 AND name = $2",
    postgres "SELECT id FROM graph WHERE namespace = $1 AND name = $2 FOR UPDATE";
    CURRENT_DIGEST = "SELECT r.digest FROM graph g JOIN revision r ON r.id = g.current WHERE g.id = $1";
    COUNT_RUNS_OF_GRAPH =
        "SELECT COUNT(*) \
         FROM run u \
         WHERE u.revision IN (SELECT r.id FROM revision r WHERE r.graph = $1)";
    RECORD_DELETED_RUNS =
        "INSERT INTO deleted_run (run, deleted_at) \
         SELECT u.id, CAST($2 AS BIGINT) \
         FROM run u \
         WHERE u.revision IN (SELECT r.id FROM revision r WHERE r.graph = $1)";
    DELETE_DEADLINES_OF_GRAPH =
        "DELETE FROM deadline \
         WHERE run IN (SELECT u.id FROM run u WHERE u.revision IN \
             (SELECT r.id FROM revision r WHERE r.graph = $1))";
    DELETE_RUNS_OF_GRAPH =
        "DELETE FROM run WHERE revision IN (SELECT r.id FROM revision r WHERE r.graph = $1)";
    DELETE_USES_OF_GRAPH =
        "DELETE FROM revision_plugin \
         WHERE revision IN (SELECT r.id FROM revision r WHERE r.graph = $1)";
    DELETE_REVISIONS = "DELETE FROM revision WHERE graph = $1";
    DELETE_SECRETS = "DELETE FROM secret WHERE namespace = $1 AND graph = $2";
    DELETE_GRAPH = "DELETE FROM graph WHERE id = $1";

    /// Locks the uploads of a plugin: all, or those with a digest.
    LOCK_UPLOADS =
        "SELECT digest, version \
         FROM plugin \
         WHERE namespace = $1 AND name = $2 AND (CAST($3 AS TEXT) IS NULL OR digest = $3) \
         ORDER BY id",
    postgres
        "SELECT digest, version \
         FROM plugin \
         WHERE namespace = $1 AND name = $2 AND ($3::TEXT IS NULL OR digest = $3) \
         ORDER BY id FOR UPDATE";
    /// Reads which graphs use an upload, up to `$4`, each with the newest revision that does:
    /// its current revision names the upload, or the revision of a run does.
    USES_OF_UPLOAD =
        "SELECT g.name, MAX(r.number) \
         FROM revision_plugin x \
         JOIN revision r ON r.id = x.revision \
         JOIN graph g ON g.id = r.graph \
         WHERE g.namespace = $1 AND x.plugin = $2 AND x.digest = $3 \
             AND (g.current = r.id OR EXISTS (SELECT 1 FROM run u WHERE u.revision = r.id)) \
         GROUP BY g.name \
         ORDER BY g.name LIMIT $4";
    DELETE_UPLOAD = "DELETE FROM plugin WHERE namespace = $1 AND name = $2 AND digest = $3";
    /// Locks a component against uploads of the same bytes.
    LOCK_COMPONENT = "SELECT size FROM component WHERE digest = $1",
    postgres "SELECT size FROM component WHERE digest = $1 FOR UPDATE";
    DELETE_EXPORTED =
        "DELETE FROM exported \
         WHERE digest = $1 AND NOT EXISTS (SELECT 1 FROM plugin p WHERE p.digest = $1)";
    DELETE_COMPONENT =
        "DELETE FROM component \
         WHERE digest = $1 AND NOT EXISTS (SELECT 1 FROM plugin p WHERE p.digest = $1)";
    /// Records that a revision names an upload, if that is still there. On Postgres this locks the
    /// upload, so that it is not removed before the revision is visible.
    USE_UPLOAD =
        "INSERT INTO revision_plugin (revision, plugin, digest) \
         SELECT $1, p.name, p.digest \
         FROM plugin p \
         WHERE p.namespace = $2 AND p.name = $3 AND p.digest = $4 \
         RETURNING revision",
    postgres
        "INSERT INTO revision_plugin (revision, plugin, digest) \
         SELECT n.revision, p.name, p.digest \
         FROM plugin p \
         JOIN (SELECT CAST($1 AS BIGINT) AS revision) n ON TRUE \
         WHERE p.namespace = $2 AND p.name = $3 AND p.digest = $4 \
         FOR SHARE OF p \
         RETURNING revision";
}
