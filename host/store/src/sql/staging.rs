//! Staging: ends of executions that are written in pieces.

use crate::dialect::Statement;

statements! {
    /// Reads the staging rows of executions.
    STAGING = "SELECT state, fence, pieces FROM staged WHERE state = $1",
    postgres "SELECT state, fence, pieces FROM staged WHERE state = ANY($1)";
    SET_STAGING =
        "INSERT INTO staged (state, run, fence, pieces) \
         VALUES ($1, $2, $3, $4) \
         ON CONFLICT (state) DO UPDATE SET fence = excluded.fence, pieces = excluded.pieces";
    END_STAGING = "DELETE FROM staged WHERE state = $1";
    NEW_SNAPSHOT = "INSERT INTO staged_snapshot (state, node, store_snapshot) VALUES ($1, $2, $3)",
    postgres concat!(
        "INSERT INTO staged_snapshot (state, node, store_snapshot) \
         SELECT * \
         FROM ",
        arrays!(state: int, node: int, store_snapshot: text)
    );
    /// Reads the status and the fence of a state.
    CLAIM_OF_STATE = "SELECT id, status, fence FROM state WHERE id = $1";
    UNSTAGE_OUTPUTS =
        "DELETE FROM output \
         WHERE state = $1 AND number IN \
             (SELECT o.number FROM output o WHERE o.state = $1 ORDER BY o.number LIMIT $2)";
    UNSTAGE_STATES = concat!(
        "DELETE FROM state \
         WHERE id IN (SELECT s.id FROM state s WHERE ",
        ready!(),
        " AND s.namespace = $1 \
             ORDER BY s.run, s.due_at, s.id LIMIT $2)"
    );
    /// Reads the staging rows of ends that were never committed: the execution is not claimed
    /// under the staging fence any more, or its run is over.
    LEFTOVERS =
        "SELECT g.state, g.run, g.fence \
         FROM staged g \
         JOIN state s ON s.id = g.state \
         JOIN run u ON u.id = g.run \
         WHERE s.status <> 'QUEUED' OR s.fence <> g.fence OR u.status <> 'RUNNING' \
         ORDER BY g.state";
    LEFTOVER_OF = "SELECT state, run, fence FROM staged WHERE state = $1";
}
