//! Claims of ready states. Each step goes along an index; a test reads the plans of both databases.

use crate::dialect::Statement;

/// The columns of a claimed state, as `codec::read_claimed` reads them.
macro_rules! claimed {
    () => {
        "id, run, node, path, refs, scopes, attempt, retries, requeues, losses, conflicts, \
         session, fence, store_snapshot, begun_fence, namespace, due_at"
    };
}

/// Gives a staged state its namespace and its fixed store values, and leaves any other state
/// unchanged. The queues of staged states have negative numbers, so that a claim looks up the
/// namespace once for each queue, not for each state.
macro_rules! unstaged {
    ($namespace:literal, $has_snapshots:expr) => {
        concat!(
            "namespace = CASE WHEN namespace >= 0 THEN namespace ELSE ",
            $namespace,
            " END, \
             store_snapshot = CASE WHEN namespace >= 0",
            $has_snapshots,
            " THEN store_snapshot ELSE \
                 (SELECT f.store_snapshot FROM staged_snapshot f \
                     WHERE f.state = -state.namespace AND f.node = state.node) END"
        )
    };
}

statements! {
    /// Reads the head of each queue. For a namespace with ready states: the first one's run, due
    /// time and number, and the next run with ready states. For one with delayed states: no run,
    /// when the first is due, and when the first after now is due. Staged children have a queue of
    /// their own, whose number is negative. The last column is their namespace. It is NULL until
    /// their parent is SUCCESS, and while their run is paused or over: they may not be claimed
    /// then.
    ///
    /// The queues are those from number `$2` on, and those of the list `$3`. With 0 and the queues
    /// of staged children that are known, the statement passes over the index entries of all
    /// exhausted ones, which stay until a vacuum.
    CLAIMABLE = concat!(
        "WITH RECURSIVE \
         ready (namespace) AS (SELECT MIN(s.namespace) FROM state s WHERE ",
        ready!(),
        " AND s.namespace >= $2 \
             UNION ALL SELECT (SELECT MIN(s.namespace) FROM state s WHERE ",
        ready!(),
        " AND s.namespace > ready.namespace) \
             FROM ready WHERE ready.namespace IS NOT NULL), \
         delayed (namespace) AS (SELECT MIN(s.namespace) FROM state s WHERE ",
        delayed!(),
        " UNION ALL SELECT (SELECT MIN(s.namespace) FROM state s WHERE ",
        delayed!(),
        " AND s.namespace > delayed.namespace) \
             FROM delayed WHERE delayed.namespace IS NOT NULL) \
         SELECT first.namespace, first.run, first.due_at, first.id, \
             (SELECT MIN(s.run) FROM state s WHERE ",
        ready!(),
        " AND s.namespace = first.namespace AND s.run > first.run), ",
        owner_of_queue!("first"),
        " FROM (SELECT namespace FROM ready UNION ALL SELECT value FROM json_each($3)) queue \
         JOIN state first ON first.id = (SELECT s.id FROM state s WHERE ",
        ready!(),
        " AND s.namespace = queue.namespace \
             ORDER BY s.run, s.due_at, s.id LIMIT 1) \
         UNION ALL SELECT delayed.namespace, NULL, \
             (SELECT MIN(s.due_at) FROM state s WHERE ",
        delayed!(),
        " AND s.namespace = delayed.namespace), NULL, \
             (SELECT MIN(s.due_at) FROM state s WHERE ",
        delayed!(),
        " AND s.namespace = delayed.namespace AND s.due_at > $1), delayed.namespace \
         FROM delayed WHERE delayed.namespace IS NOT NULL"
    ),
    postgres concat!(
        "WITH RECURSIVE ",
        claimable!(" AND s.namespace >= $2"),
        " SELECT namespace, run, due_at, id, (SELECT s.run FROM state s WHERE ",
        ready!(),
        " AND s.namespace = first.namespace AND s.run > first.run \
             ORDER BY s.run, s.due_at, s.id LIMIT 1), ",
        owner_of_queue!("first"),
        " FROM (SELECT * FROM ready UNION ALL \
             SELECT known.* FROM json_array_elements_text($3::JSON) AS n (queue) \
             CROSS JOIN LATERAL (SELECT s.namespace, s.run, s.due_at, s.id FROM state s WHERE ",
        ready!(),
        " AND s.namespace = n.queue::BIGINT \
                 ORDER BY s.run, s.due_at, s.id LIMIT 1) known) first \
         UNION ALL SELECT namespace, NULL, due_at, NULL, \
             (SELECT MIN(s.due_at) FROM state s WHERE ",
        delayed!(),
        " AND s.namespace = delayed.namespace AND s.due_at > $1), namespace \
         FROM delayed"
    );
    /// Makes ready up to `$3` delayed states of a namespace that are due.
    PROMOTE = concat!(
        "UPDATE state \
         SET delayed = 0 \
         WHERE id IN (SELECT s.id FROM state s WHERE ",
        delayed!(),
        " AND s.namespace = $1 AND s.due_at <= $2 \
             ORDER BY s.due_at, s.id LIMIT $3) \
             AND status = 'CREATED' \
         RETURNING namespace"
    ),
    postgres concat!(
        "UPDATE state \
         SET delayed = 0 \
         WHERE id = ANY(ARRAY(SELECT due.id FROM ",
        unnest!(namespace: int, now: int, max_rows: int),
        " CROSS JOIN LATERAL (SELECT s.id FROM state s WHERE ",
        delayed!(),
        " AND s.namespace = n.namespace AND s.due_at <= n.now \
                 ORDER BY s.due_at, s.id LIMIT n.max_rows FOR UPDATE OF s SKIP LOCKED) due)) \
             AND status = 'CREATED' \
         RETURNING namespace"
    );
    /// Reads the first ready state of each run of a namespace, for a limited number of runs in a
    /// range.
    READY_RUNS = concat!(
        "WITH RECURSIVE \
         runs (run) AS (SELECT MIN(s.run) FROM state s WHERE ",
        ready!(),
        " AND s.namespace = $1 AND s.run > $2 AND s.run <= $3 \
             UNION ALL SELECT (SELECT MIN(s.run) FROM state s WHERE ",
        ready!(),
        " AND s.namespace = $1 AND s.run > runs.run AND s.run <= $3) \
             FROM runs WHERE runs.run IS NOT NULL LIMIT $4) \
         SELECT first.namespace, first.run, first.due_at, first.id \
         FROM runs \
         JOIN state first ON first.id = (SELECT s.id FROM state s WHERE ",
        ready!(),
        " AND s.namespace = $1 AND s.run = runs.run \
             ORDER BY s.due_at, s.id LIMIT 1)"
    ),
    postgres concat!(
        "SELECT found.namespace, found.run, found.due_at, found.id \
         FROM ",
        unnest!(namespace: int, after: int, up_to: int, max_rows: int),
        " CROSS JOIN LATERAL (WITH RECURSIVE \
             runs (namespace, run, due_at, id) AS (\
             (SELECT s.namespace, s.run, s.due_at, s.id FROM state s WHERE ",
        ready!(),
        " AND s.namespace = n.namespace AND s.run > n.after AND s.run <= n.up_to \
                 ORDER BY s.run, s.due_at, s.id LIMIT 1) \
             UNION ALL SELECT next.* FROM runs CROSS JOIN LATERAL \
             (SELECT s.namespace, s.run, s.due_at, s.id FROM state s WHERE ",
        ready!(),
        " AND s.namespace = n.namespace AND s.run > runs.run AND s.run <= n.up_to \
                 ORDER BY s.run, s.due_at, s.id LIMIT 1) next) \
             SELECT * FROM runs LIMIT n.max_rows) found"
    );
    /// Claims ready states of a run, from the first on. The update checks the status again: a state
    /// that another host claimed since the search stays with that host. Staged states get the
    /// namespace of their run here, and their fixed store values.
    CLAIM = concat!(
        "UPDATE state \
         SET status = 'QUEUED', session = $6, last_session = $6, began_at = $8, \
             fence = fence + 1, attempt = attempt + 1, ",
        unstaged!("$7", ""),
        " WHERE id IN (SELECT s.id FROM state s WHERE ",
        ready!(),
        " AND s.namespace = $1 AND s.run = $2 AND (s.due_at, s.id) >= ($3, $4) \
                 AND (SELECT u.paused FROM run u WHERE u.id = $2 AND u.status = 'RUNNING') = 0 \
                 ORDER BY s.due_at, s.id LIMIT $5) \
             AND status = 'CREATED' \
         RETURNING ",
        claimed!()
    ),
    postgres concat!(
        "UPDATE state \
         SET status = 'QUEUED', session = ($6::BIGINT[])[1], \
             last_session = ($6::BIGINT[])[1], began_at = ($8::BIGINT[])[1], \
             fence = fence + 1, attempt = attempt + 1, ",
        unstaged!(
            "($7::BIGINT[])[ARRAY_POSITION($1::BIGINT[], namespace)]",
            " OR NOT EXISTS (SELECT 1 FROM UNNEST($1::BIGINT[]) AS n (queue) \
                 JOIN staged_snapshot f ON f.state = -n.queue)"
        ),
        " WHERE id = ANY(ARRAY(SELECT free.id FROM ",
        unnest!(namespace: int, run: int, due_at: int, id: int, max_rows: int),
        " JOIN run u ON u.id = n.run AND u.status = 'RUNNING' AND u.paused = 0 \
             CROSS JOIN LATERAL (SELECT s.id FROM state s WHERE ",
        ready!(),
        " AND s.namespace = n.namespace AND s.run = n.run \
                 AND (s.due_at, s.id) >= (n.due_at, n.id) \
                 ORDER BY s.due_at, s.id LIMIT n.max_rows FOR UPDATE OF s SKIP LOCKED) free)) \
             AND status = 'CREATED' \
         RETURNING ",
        claimed!()
    );
    /// Reads a page of the states of live runs that a session holds, each with the time of its claim.
    HELD_BY = concat!(
        "SELECT ",
        claimed!(),
        ", began_at FROM state \
         WHERE status = 'QUEUED' AND session = $1 \
             AND EXISTS (SELECT 1 FROM run WHERE run.id = state.run AND run.status = 'RUNNING') \
             AND id > $2 \
         ORDER BY id LIMIT $3"
    );
}
