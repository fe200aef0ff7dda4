//! Pauses of graphs and of namespaces.

use crate::dialect::Statement;

statements! {
    /// Reads whether a graph is paused, and locks it against starts and other pauses.
    PAUSED_GRAPH =
        "SELECT id, paused_at, pause_event FROM graph WHERE namespace = $1 AND name = $2",
    postgres
        "SELECT id, paused_at, pause_event \
         FROM graph \
         WHERE namespace = $1 AND name = $2 FOR UPDATE";
    PAUSE_GRAPH =
        "UPDATE graph \
         SET paused_at = $2, paused_by = $3, pause_reason = $4, \
             pause_event = pause_event + 1, pause_pending = pause_event + 1 \
         WHERE id = $1";
    PAUSE_NAMESPACE =
        "UPDATE namespace \
         SET paused_at = $2, paused_by = $3, pause_reason = $4 \
         WHERE name = $1";
    PAUSE_OF_GRAPH =
        "SELECT paused_at, paused_by, pause_reason \
         FROM graph \
         WHERE namespace = $1 AND name = $2 AND paused_at IS NOT NULL";
    PAUSE_OF_NAMESPACE =
        "SELECT paused_at, paused_by, pause_reason \
         FROM namespace \
         WHERE name = $1 AND paused_at IS NOT NULL";
    PAUSED_NAMESPACES = "SELECT id FROM namespace WHERE paused_at IS NOT NULL ORDER BY id";
    /// Reads the graphs whose runs are still to follow a pause or its end.
    PENDING_PAUSES =
        "SELECT id, pause_pending, CAST(CASE WHEN paused_at IS NULL THEN 0 ELSE 1 END AS BIGINT) \
         FROM graph \
         WHERE pause_pending > 0 \
         ORDER BY id LIMIT $1";
    END_PENDING_PAUSE =
        "UPDATE graph SET pause_pending = 0 WHERE id = $1 AND pause_pending = $2";
    /// Reads a page of the unfinished and unpaused runs of a graph before a run, the newest first.
    RUNS_TO_PAUSE =
        "SELECT created_at, id, paused \
         FROM run \
         WHERE graph = $1 AND status = 'RUNNING' AND (created_at, id) < ($2, $3) \
         ORDER BY created_at DESC, id DESC LIMIT $4";
    /// Reads a page of the runs that are paused with their graph.
    RUNS_PAUSED_WITH_GRAPH =
        "SELECT run FROM paused_run WHERE graph = $1 AND run > $2 ORDER BY run LIMIT $3";
    /// Reads whether the graph of a run is paused, and whether the run is paused with it.
    PAUSES_OF_RUN =
        "SELECT CAST(CASE WHEN g.paused_at IS NULL THEN 0 ELSE 1 END AS BIGINT), \
             (SELECT COUNT(*) FROM paused_run p WHERE p.run = u.id) \
         FROM run u \
         JOIN graph g ON g.id = u.graph \
         WHERE u.id = $1";
    /// Records that a run is paused with its graph.
    NEW_PAUSED_RUN =
        "INSERT INTO paused_run (run, graph) \
         SELECT u.id, u.graph FROM run u WHERE u.id = $1 \
         ON CONFLICT (run) DO NOTHING",
    postgres concat!(
        "INSERT INTO paused_run (run, graph) \
         SELECT u.id, u.graph \
         FROM ",
        unnest!(run: int),
        " JOIN run u ON u.id = n.run \
         ON CONFLICT (run) DO NOTHING"
    );
    /// Records one run that exists already.
    NEW_PAUSED_RUN_OF =
        "INSERT INTO paused_run (run, graph) \
         SELECT u.id, u.graph FROM run u WHERE u.id = $1 \
         ON CONFLICT (run) DO NOTHING";
    END_PAUSED_RUN = "DELETE FROM paused_run WHERE run = $1";
    /// Records that a run is paused by itself. A run that ended while it was paused has a row
    /// already.
    NEW_OWN_PAUSE =
        "INSERT INTO run_pause (run, paused_at, paused_by) \
         VALUES ($1, $2, $3) \
         ON CONFLICT (run) DO UPDATE SET paused_at = excluded.paused_at, \
             paused_by = excluded.paused_by";
    END_OWN_PAUSE = "DELETE FROM run_pause WHERE run = $1";
    /// The reason is that of graphs and namespaces; a run has none.
    OWN_PAUSE = "SELECT paused_at, paused_by, '' FROM run_pause WHERE run = $1",
    postgres "SELECT paused_at, paused_by, ''::TEXT FROM run_pause WHERE run = $1";
}
