//! Deadlines of runs. A run without one has no row here, and its commits execute none of these.

use crate::dialect::Statement;

statements! {
    NEW_DEADLINE = "INSERT INTO deadline (run, kind, due_at) VALUES ($1, $2, $3)",
    postgres concat!(
        "INSERT INTO deadline (run, kind, due_at) \
         SELECT * \
         FROM ",
        arrays!(run: int, kind: text, due_at: int)
    );
    /// Reads the next deadlines.
    NEXT_DEADLINES =
        "SELECT run, kind, due_at \
         FROM deadline \
         WHERE missed_at IS NULL \
         ORDER BY due_at LIMIT $1";
    DEADLINE =
        "SELECT due_at FROM deadline WHERE run = $1 AND kind = $2 AND missed_at IS NULL";
    /// Reads the attempts of a run's root state: more than none if the run has begun.
    ROOT_ATTEMPTS = "SELECT attempt FROM state WHERE run = $1 AND path = ''";
    MISS_DEADLINE = "UPDATE deadline SET missed_at = $3 WHERE run = $1 AND kind = $2";
    END_DEADLINE = "DELETE FROM deadline WHERE run = $1 AND kind = $2";
    /// Removes the deadlines of a run, except one that it missed.
    END_OTHER_DEADLINES = "DELETE FROM deadline WHERE run = $1 AND missed_at IS NULL";
    MISSED_DEADLINE = "SELECT kind FROM deadline WHERE run = $1 AND missed_at IS NOT NULL";
    REMOVE_DEADLINES = "DELETE FROM deadline WHERE run = $1";
}
