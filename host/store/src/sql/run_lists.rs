//! Lists of runs, the newest first. A statement here finds the keys of a page along an index; the
//! runs themselves are read by their keys (`RUN_VIEWS`).
//!
//! Not here: which statement a filter takes (`reads::run_list`).

use crate::dialect::Statement;

/// The newest runs with one status within `$2..` and `$4..`, `$6` at most; none unless the
/// parameter of the status is 1.
macro_rules! runs_of_status {
    ($owner:literal, $status:literal, $wanted:literal) => {
        concat!(
            "SELECT * FROM (SELECT created_at, id FROM run WHERE ",
            $owner,
            " AND status = '",
            $status,
            "' AND ",
            $wanted,
            " = 1 AND (created_at, id) >= ($2, $3) AND (created_at, id) < ($4, $5) \
             ORDER BY created_at DESC, id DESC LIMIT $6) of_status"
        )
    };
}

/// The newest runs of several statuses: the parameters from `$7` on say which.
macro_rules! runs_by_status {
    ($owner:literal) => {
        concat!(
            "SELECT created_at, id FROM (",
            runs_of_status!($owner, "RUNNING", "$7"),
            " UNION ALL ",
            runs_of_status!($owner, "SUCCESS", "$8"),
            " UNION ALL ",
            runs_of_status!($owner, "FAILED", "$9"),
            " UNION ALL ",
            runs_of_status!($owner, "CANCELLED", "$10"),
            ") listed ORDER BY created_at DESC, id DESC LIMIT $6"
        )
    };
}

/// The runs with a label within a range.
macro_rules! labelled {
    () => {
        "FROM label l \
         WHERE l.namespace = $1 AND l.key = $2 AND l.value = $3 \
             AND (l.created_at, l.run) >= ($4, $5) AND (l.created_at, l.run) < ($6, $7) "
    };
}

statements! {
    /// Lists runs of a namespace.
    RUNS_BY_STATUS = runs_by_status!("namespace = $1");
    /// Lists runs of a graph.
    RUNS_BY_GRAPH = runs_by_status!(
        "graph = (SELECT g.id FROM graph g WHERE g.namespace = $1 AND g.name = $11)"
    );
    /// Lists runs with a label, which also have other labels, a status and a graph. Each of these
    /// conditions is a lookup, and never a join, so that no planner reads whole tables.
    RUNS_BY_LABEL = concat!(
        "SELECT l.created_at, l.run ",
        labelled!(),
        "AND (SELECT u.status FROM run u WHERE u.id = l.run) \
             IN (SELECT value FROM json_each($9)) \
         AND ($10 IS NULL OR (SELECT u.graph FROM run u WHERE u.id = l.run) = \
             (SELECT g.id FROM graph g WHERE g.namespace = $1 AND g.name = $10)) \
         AND NOT EXISTS (SELECT 1 FROM json_each($11) w WHERE NOT EXISTS \
             (SELECT 1 FROM label o WHERE o.run = l.run AND o.key || ':' || o.value = w.value)) \
         ORDER BY l.created_at DESC, l.run DESC LIMIT $8"
    ),
    postgres concat!(
        "SELECT l.created_at, l.run ",
        labelled!(),
        "AND (SELECT u.status FROM run u WHERE u.id = l.run) \
             = ANY (ARRAY(SELECT json_array_elements_text($9::JSON))) \
         AND ($10::TEXT IS NULL OR (SELECT u.graph FROM run u WHERE u.id = l.run) = \
             (SELECT g.id FROM graph g WHERE g.namespace = $1 AND g.name = $10)) \
         AND ARRAY(SELECT o.key || ':' || o.value FROM label o WHERE o.run = l.run) \
             @> ARRAY(SELECT json_array_elements_text($11::JSON)) \
         ORDER BY l.created_at DESC, l.run DESC LIMIT $8"
    );
    /// Finds the run at which a page of [`RUNS_BY_LABEL`] ends that examines one more than `$8`.
    LABEL_BOUND = concat!(
        "SELECT l.created_at, l.run ",
        labelled!(),
        "ORDER BY l.created_at DESC, l.run DESC LIMIT 1 OFFSET $8"
    );
}
