//! Bulk operations, and the runs of their pages.
//!
//! Not here: the statements that find these runs (`run_lists`).

use crate::dialect::Statement;

/// The runs of the page of the operation `b` with an outcome.
macro_rules! runs_of_page {
    ($outcome:literal) => {
        concat!(
            "(SELECT COUNT(*) FROM bulk_run r WHERE r.bulk = b.id AND r.outcome = '",
            $outcome,
            "')"
        )
    };
}

/// Operations, as the API shows them.
macro_rules! bulk_view {
    ($where:literal) => {
        concat!(
            "SELECT b.id, b.action, b.filter, b.reason, b.created_by, b.status, b.frozen_at, \
                 b.ended_at, b.expected, b.is_exact, b.done + ",
            runs_of_page!("done"),
            ", b.skipped + ",
            runs_of_page!("skipped"),
            ", b.failed + ",
            runs_of_page!("failed"),
            " FROM bulk b WHERE ",
            $where
        )
    };
}

/// The condition that no other session carries out the operation `b`: none has claimed it, the
/// session `$2` has, or the one that has is over.
macro_rules! claimable_bulk {
    () => {
        "(b.session IS NULL OR b.session = $2 OR NOT EXISTS \
             (SELECT 1 FROM session s WHERE s.id = b.session AND s.ended_at IS NULL))"
    };
}

statements! {
    NEW_BULK =
        "INSERT INTO bulk (id, namespace, action, filter, reason, created_by, start_key, status, \
             frozen_at, expected, is_exact) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, 'RUNNING', $8, $9, $10) \
         ON CONFLICT (namespace, start_key) WHERE start_key IS NOT NULL DO NOTHING";
    /// Counts the operations of a namespace that are not over.
    RUNNING_BULKS_OF =
        "SELECT COUNT(*) FROM bulk WHERE namespace = $1 AND status = 'RUNNING'";
    BULK = bulk_view!("b.namespace = $1 AND b.id = $2");
    BULK_OF_KEY = bulk_view!("b.namespace = $1 AND b.start_key = $2");
    /// Lists operations before an id, the newest first.
    BULKS = bulk_view!("b.namespace = $1 AND b.id < $2 ORDER BY b.id DESC LIMIT $3");
    /// Lists the ids of operations within a range, the newest first.
    BULK_IDS =
        "SELECT id \
         FROM bulk \
         WHERE namespace = $1 AND id >= $2 AND id < $3 \
         ORDER BY id DESC LIMIT $4";
    /// Reads operations that a session may carry out, those of namespaces after `$1`.
    RUNNING_BULKS = concat!(
        "SELECT b.id, b.namespace, b.action, b.filter, b.frozen_at, b.page, b.page_after, \
             CAST(CASE WHEN b.session = $2 THEN 1 ELSE 0 END AS BIGINT) \
         FROM bulk b \
         WHERE b.status = 'RUNNING' AND b.namespace > $1 AND ",
        claimable_bulk!(),
        " ORDER BY b.namespace, b.id LIMIT $3"
    );
    CLAIM_BULK = concat!(
        "UPDATE bulk AS b SET session = $2 WHERE b.id = $1 AND b.status = 'RUNNING' AND ",
        claimable_bulk!()
    );
    /// Reads how often a run is among those that a page is done with; nothing if the page is over.
    /// Keeps the page from ending until this transaction has.
    RUN_OF_PAGE =
        "SELECT (SELECT COUNT(*) FROM bulk_run r WHERE r.bulk = b.id AND r.run = $3) \
         FROM bulk b \
         WHERE b.id = $1 AND b.page = $2 AND b.status = 'RUNNING'",
    postgres
        "SELECT (SELECT COUNT(*) FROM bulk_run r WHERE r.bulk = b.id AND r.run = $3) \
         FROM bulk b \
         WHERE b.id = $1 AND b.page = $2 AND b.status = 'RUNNING' FOR SHARE";
    NEW_BULK_RUN = "INSERT INTO bulk_run (bulk, run, outcome) VALUES ($1, $2, $3)";
    /// Records that the action failed on a run that is there.
    NEW_FAILED_RUN =
        "INSERT INTO bulk_run (bulk, run, outcome) \
         SELECT CAST($1 AS TEXT), u.id, 'failed' FROM run u WHERE u.id = $2 \
         ON CONFLICT (bulk, run) DO NOTHING";
    /// Locks an operation that is not over, after the transactions of its page.
    LOCK_BULK = "SELECT page FROM bulk WHERE id = $1 AND status = 'RUNNING'",
    postgres "SELECT page FROM bulk WHERE id = $1 AND status = 'RUNNING' FOR UPDATE";
    /// Adds the runs of the page to the counts of a locked operation, and begins the next page.
    COUNT_PAGE = concat!(
        "UPDATE bulk AS b \
         SET done = b.done + ",
        runs_of_page!("done"),
        ", skipped = b.skipped + ",
        runs_of_page!("skipped"),
        ", failed = b.failed + ",
        runs_of_page!("failed"),
        ", page = b.page + 1, page_after = COALESCE($2, b.page_after) WHERE b.id = $1"
    );
    CLEAR_PAGE = "DELETE FROM bulk_run WHERE bulk = $1";
    /// Ends a locked operation.
    END_BULK = "UPDATE bulk SET status = $2, ended_at = $3, session = NULL WHERE id = $1";
    /// Ends a locked operation that has no runs left.
    COMPLETE_BULK =
        "UPDATE bulk \
         SET status = CASE WHEN failed > 0 THEN 'FAILED' ELSE 'SUCCESS' END, ended_at = $2, \
             session = NULL \
         WHERE id = $1";
    STATUS_OF_BULK = "SELECT status FROM bulk WHERE namespace = $1 AND id = $2";
    /// Removes the oldest operations that ended before a time, up to `$2`.
    REMOVE_BULKS =
        "DELETE FROM bulk \
         WHERE id IN (SELECT o.id FROM bulk o WHERE o.ended_at < $1 ORDER BY o.ended_at LIMIT $2)",
    postgres
        "DELETE FROM bulk \
         WHERE id = ANY (ARRAY(\
             SELECT o.id FROM bulk o WHERE o.ended_at < $1 ORDER BY o.ended_at LIMIT $2))";
}
