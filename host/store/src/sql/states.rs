//! States, with their attempts and outputs.

use crate::dialect::Statement;

/// The usage of an attempt, at the end of the columns of a state and of an attempt.
macro_rules! usage_columns {
    ($then:ident $($args:tt)*) => {
        $then! { $($args)*
            cpu_us: int,
            memory_bytes: int,
            host_calls: int,
            input_bytes: int,
            output_bytes: int,
        }
    };
}
pub(super) use usage_columns;

/// The columns of a state as people see it, in the order in which `StateView` reads them.
macro_rules! state_view {
    ($details:literal, $details_bytes:literal, $host:expr) => {
        concat!(
            "id, node, path, status, attempt, retries, requeues, created_at, due_at, began_at, ",
            $host,
            ", ended_at, outputs, kind, message, ",
            $details,
            ", ",
            $details_bytes,
            ", ",
            usage_columns!(names)
        )
    };
}

/// The number of the host whose session is in a column.
macro_rules! host_of {
    ($session:literal) => {
        concat!(
            "(SELECT h.id FROM session l JOIN host h ON h.folder = l.host WHERE l.id = ",
            $session,
            ")"
        )
    };
}

/// A condition that a filter may lack: true if the parameter is NULL.
macro_rules! if_given {
    ($parameter:literal, $condition:literal) => {
        concat!("(CAST(", $parameter, " AS TEXT) IS NULL OR ", $condition, ")")
    };
}

/// The states of a page by the values of a JSON list.
macro_rules! is_listed {
    (sqlite $column:literal, $list:literal, $type:literal) => {
        concat!(
            "(",
            $list,
            " IS NULL OR ",
            $column,
            " IN (SELECT value FROM json_each(",
            $list,
            ")))"
        )
    };
    (postgres $column:literal, $list:literal, $type:literal) => {
        concat!(
            "(",
            $list,
            "::TEXT IS NULL OR ",
            $column,
            " = ANY (ARRAY(SELECT json_array_elements_text(",
            $list,
            "::JSON)::",
            $type,
            ")))"
        )
    };
}

/// A page of a run's states in path order, `$6` at most, from the path `$4` on, after `$5` and up
/// to `$8`, which ends where their failures have `$7` bytes. Details are read if `$11` is 1, and
/// only those of failures: a pruned state may have megabytes. An index finds the states by the
/// first condition; SQLite is told which, since it has no statistics.
macro_rules! page_of_states {
    ($dialect:ident $from:literal, $indexed:expr, $kind:expr, $message:expr) => {
        concat!(
            "SELECT ",
            state_view!("details", "details_bytes", "host"),
            " FROM (SELECT page.*, SUM(bytes) OVER (ORDER BY path) - bytes AS bytes_ahead \
             FROM (SELECT ",
            state_view!(
                "CASE WHEN kind IS NULL OR $11 = 0 THEN NULL ELSE details END AS details",
                "CAST(octet_length(details) AS BIGINT) AS details_bytes",
                concat!(host_of!("last_session"), " AS host")
            ),
            ", CASE WHEN kind IS NULL THEN 0 \
                 ELSE octet_length(message) + $11 * COALESCE(octet_length(details), 0) \
                 END AS bytes \
             FROM ",
            $from,
            " WHERE run = $1 AND ",
            $indexed,
            " AND path >= $4 AND ",
            if_given!("$5", "path > $5"),
            " AND path <= $8 AND ",
            is_listed!($dialect "node", "$2", "BIGINT"),
            " AND ",
            is_listed!($dialect "status", "$3", "TEXT"),
            " AND ",
            $kind,
            " AND ",
            $message,
            " AND ",
            seen!("state"),
            " ORDER BY path LIMIT $6) page) counted WHERE bytes_ahead < $7 ORDER BY path"
        )
    };
}

/// The path at which a page of states ends that examines `$4` more than one, from the path `$2` on
/// and after `$3`; no row if the run has fewer.
macro_rules! bound_of_states {
    ($from:literal, $indexed:expr) => {
        concat!(
            "SELECT path FROM ",
            $from,
            " WHERE run = $1 AND ",
            $indexed,
            " AND path >= $2 AND ",
            if_given!("$3", "path > $3"),
            " ORDER BY path LIMIT 1 OFFSET $4"
        )
    };
}

/// The bytes of a state's first `$2` outputs, of its details and of its attempts.
macro_rules! state_bytes {
    () => {
        "(SELECT COALESCE(SUM(octet_length(body)), 0) FROM output \
             WHERE state = $1 AND number < $2) \
         + COALESCE((SELECT octet_length(details) FROM state WHERE id = $1), 0) \
         + (SELECT COALESCE(SUM(COALESCE(octet_length(logs), 0) \
             + COALESCE(octet_length(details), 0)), 0) FROM attempt WHERE state = $1)"
    };
}

statements! {
    /// Reads which claims are still valid: invariant 3. `IS NOT DISTINCT FROM`, here and in the
    /// guards below, stops the planner from choosing the partial index on `session`. That index
    /// holds every state the session has claimed and, until a vacuum, those it had; the primary key
    /// is the right path.
    STILL_HELD =
        "SELECT id, session, fence \
         FROM state \
         WHERE id = $1 AND session = $2 AND fence = $3 AND status = 'QUEUED'",
    postgres concat!(
        "SELECT s.id, s.session, s.fence \
         FROM ",
        unnest!(id: int, session: int, fence: int),
        " JOIN state s ON s.id = n.id \
         WHERE s.session IS NOT DISTINCT FROM n.session AND s.fence = n.fence \
             AND s.status IS NOT DISTINCT FROM 'QUEUED'"
    );
    /// Inserts a state, claimed by a session or not.
    NEW_STATE =
        "INSERT INTO state (id, run, node, path, status, due_at, session, fence, attempt, \
             retries, requeues, losses, conflicts, refs, scopes, store_snapshot, created_at, held_back, \
             namespace, delayed, last_session, began_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8, 0, 0, 0, 0, $9, $10, $11, $12, $13, $14, \
             $6 > $12, $7, CASE WHEN $7 IS NOT NULL THEN $12 END)",
    postgres concat!(
        "INSERT INTO state (id, run, node, path, status, due_at, session, fence, attempt, \
             retries, requeues, losses, conflicts, refs, scopes, store_snapshot, created_at, held_back, \
             namespace, delayed, last_session, began_at) \
         SELECT id, run, node, path, status, due_at, session, fence, fence, 0, 0, 0, 0, refs, \
             scopes, store_snapshot, now, held_back, namespace, (due_at > now)::INT, session, \
             CASE WHEN session IS NOT NULL THEN now END \
         FROM ",
        unnest!(
            id: int, run: int, node: int, path: text, status: text, due_at: int, session: int,
            fence: int, refs: text, scopes: text, store_snapshot: text, now: int, held_back: int, namespace: int
        )
    );
    /// Ends an execution, guarded by its fence.
    FINISH = concat!(
        "UPDATE state \
         SET status = $4, session = NULL, ended_at = $5, outputs = $6, kind = $7, message = $8, \
             details = $9, began_at = $10, ",
        usage_columns!(sets [11 12 13 14 15]),
        " WHERE id = $1 AND status = 'QUEUED' AND session = $2 AND fence = $3"
    ),
    postgres concat!(
        "UPDATE state \
         SET status = n.status, session = NULL, ended_at = n.now, outputs = n.outputs, \
             kind = n.kind, message = n.message, details = n.details, began_at = n.began_at, ",
        usage_columns!(sets_from_n),
        " FROM ",
        usage_columns!(
            unnest id: int, session: int, fence: int, status: text, now: int, outputs: int,
            kind: text, message: text, details: text, began_at: int,
        ),
        " WHERE state.id = n.id AND state.status IS NOT DISTINCT FROM 'QUEUED' \
             AND state.session IS NOT DISTINCT FROM n.session AND state.fence = n.fence"
    );
    /// Reschedules a state whose execution runs again, guarded by its fence.
    RESCHEDULE =
        "UPDATE state \
         SET status = 'CREATED', session = NULL, last_session = NULL, began_at = NULL, \
             due_at = $4, attempt = $5, retries = $6, requeues = $7, losses = $8, \
             conflicts = $9, held_back = $10, delayed = $11 \
         WHERE id = $1 AND status = 'QUEUED' AND session = $2 AND fence = $3",
    postgres concat!(
        "UPDATE state \
         SET status = 'CREATED', session = NULL, last_session = NULL, began_at = NULL, \
             due_at = n.due_at, attempt = n.attempt, \
             retries = n.retries, requeues = n.requeues, losses = n.losses, \
             conflicts = n.conflicts, held_back = n.held_back, delayed = n.delayed \
         FROM ",
        unnest!(
            id: int, session: int, fence: int, due_at: int, attempt: int, retries: int,
            requeues: int, losses: int, conflicts: int, held_back: int, delayed: int
        ),
        " WHERE state.id = n.id AND state.status IS NOT DISTINCT FROM 'QUEUED' \
             AND state.session IS NOT DISTINCT FROM n.session AND state.fence = n.fence"
    );
    /// Stores the usage of an execution whose run was cancelled, whether or not a sweep has ended
    /// its state.
    SAVE_USAGE = concat!(
        "UPDATE state \
         SET ",
        usage_columns!(sets [3 4 5 6 7]),
        " WHERE id = $1 AND fence = $2 AND status IN ('QUEUED', 'CANCELLED')"
    ),
    postgres concat!(
        "UPDATE state \
         SET ",
        usage_columns!(sets_from_n),
        " FROM ",
        usage_columns!(unnest id: int, fence: int,),
        " WHERE state.id = n.id AND state.fence = n.fence \
             AND state.status IN ('QUEUED', 'CANCELLED')"
    );
    /// Records that an execution begins.
    RECORD_BEGIN =
        "UPDATE state \
         SET begun_fence = fence \
         WHERE id = $1 AND status = 'QUEUED' AND session = $2 AND fence = $3",
    postgres concat!(
        "UPDATE state \
         SET begun_fence = state.fence \
         FROM ",
        unnest!(id: int, session: int, fence: int),
        " WHERE state.id = n.id AND state.status IS NOT DISTINCT FROM 'QUEUED' \
             AND state.session IS NOT DISTINCT FROM n.session AND state.fence = n.fence"
    );
    /// Reads a page of a run's states from a path on, each with whether it is visible.
    STATES_TO_SWEEP = concat!(
        "SELECT s.id, s.path, s.status, s.node, CASE WHEN ",
        seen!("s"),
        " THEN 1 ELSE 0 END, s.attempt, s.session, s.began_at \
         FROM state s \
         WHERE s.run = $1 AND s.path >= $2 \
         ORDER BY s.path LIMIT $3"
    ),
    postgres concat!(
        "SELECT s.id, s.path, s.status, s.node, CASE WHEN ",
        seen!("s"),
        " THEN 1::BIGINT ELSE 0 END, s.attempt, s.session, s.began_at \
         FROM state s \
         WHERE s.run = $1 AND s.path >= $2 \
         ORDER BY s.path LIMIT $3"
    );
    CANCEL_STATE =
        "UPDATE state \
         SET status = 'CANCELLED', session = NULL, ended_at = $2 \
         WHERE id = $1",
    postgres concat!(
        "UPDATE state \
         SET status = 'CANCELLED', session = NULL, ended_at = n.now \
         FROM ",
        unnest!(id: int, now: int),
        " WHERE state.id = n.id"
    );
    HOLD_BACK =
        "UPDATE state \
         SET held_back = $2 \
         WHERE id = $1 AND status = 'CREATED' AND held_back <> $2",
    postgres concat!(
        "UPDATE state \
         SET held_back = n.held_back \
         FROM ",
        unnest!(id: int, held_back: int),
        " WHERE state.id = n.id AND state.status = 'CREATED' AND state.held_back <> n.held_back"
    );
    /// Reads states of a run for a manual retry.
    STATES_TO_RETRY =
        "SELECT id, status, kind, node, path, refs, scopes \
         FROM state \
         WHERE run = $1 AND id = $2",
    postgres concat!(
        "SELECT s.id, s.status, s.kind, s.node, s.path, s.refs, s.scopes \
         FROM ",
        unnest!(run: int, id: int),
        " JOIN state s ON s.id = n.id AND s.run = n.run"
    );
    /// Reads a page of a run's states from a path on, to find the failed ones.
    FAILED_STATES =
        "SELECT id, path, status, kind \
         FROM state \
         WHERE run = $1 AND path >= $2 \
         ORDER BY path LIMIT $3";
    REOPEN_STATE =
        "UPDATE state \
         SET status = $2, due_at = $3, ended_at = NULL, kind = NULL, message = NULL, \
             details = NULL, retries = 0, losses = 0, conflicts = 0, held_back = $4 \
         WHERE id = $1 AND status = 'ERRORED'",
    postgres concat!(
        "UPDATE state \
         SET status = n.status, due_at = n.due_at, ended_at = NULL, kind = NULL, message = NULL, \
             details = NULL, retries = 0, losses = 0, conflicts = 0, held_back = n.held_back \
         FROM ",
        unnest!(id: int, status: text, due_at: int, held_back: int),
        " WHERE state.id = n.id AND state.status = 'ERRORED'"
    );
    /// Lists states of a run.
    STATES = page_of_states!(
        sqlite "state", "path IS NOT NULL",
        if_given!("$9", "kind = $9"),
        if_given!("$10", "substr(message, 1, 64) = $10")
    ),
    postgres page_of_states!(
        postgres "state", "path IS NOT NULL",
        if_given!("$9", "kind = $9"),
        if_given!("$10", "substr(message, 1, 64) = $10")
    );
    /// Lists failed states along their own index: a run may have a million others.
    ERRORED_STATES = page_of_states!(
        sqlite "state", "status = 'ERRORED'",
        if_given!("$9", "kind = $9"),
        if_given!("$10", "substr(message, 1, 64) = $10")
    ),
    postgres page_of_states!(
        postgres "state", "status = 'ERRORED'",
        if_given!("$9", "kind = $9"),
        if_given!("$10", "substr(message, 1, 64) = $10")
    );
    /// Lists failed states with a kind of failure.
    STATES_OF_KIND = page_of_states!(
        sqlite "state INDEXED BY state_failure_kind", "status = 'ERRORED' AND kind = $9",
        "TRUE",
        if_given!("$10", "substr(message, 1, 64) = $10")
    ),
    postgres page_of_states!(
        postgres "state", "status = 'ERRORED' AND kind = $9",
        "TRUE",
        if_given!("$10", "substr(message, 1, 64) = $10")
    );
    /// Lists failed states by the start of their message.
    STATES_OF_MESSAGE = page_of_states!(
        sqlite "state INDEXED BY state_failure_message",
        "status = 'ERRORED' AND substr(message, 1, 64) = $10",
        if_given!("$9", "kind = $9"),
        "TRUE"
    ),
    postgres page_of_states!(
        postgres "state", "status = 'ERRORED' AND substr(message, 1, 64) = $10",
        if_given!("$9", "kind = $9"),
        "TRUE"
    );
    /// Finds the end of a page of [`STATES`] that reaches its bound.
    STATES_BOUND = bound_of_states!("state", "path IS NOT NULL");
    /// Finds the end of a page of [`ERRORED_STATES`] that reaches its bound.
    ERRORED_STATES_BOUND = bound_of_states!("state", "status = 'ERRORED'");
    /// Finds the end of a page of [`STATES_OF_KIND`] that reaches its bound.
    STATES_OF_KIND_BOUND = bound_of_states!(
        "state INDEXED BY state_failure_kind",
        "status = 'ERRORED' AND kind = $5"
    ),
    postgres bound_of_states!("state", "status = 'ERRORED' AND kind = $5");
    /// Finds the end of a page of [`STATES_OF_MESSAGE`] that reaches its bound.
    STATES_OF_MESSAGE_BOUND = bound_of_states!(
        "state INDEXED BY state_failure_message",
        "status = 'ERRORED' AND substr(message, 1, 64) = $5"
    ),
    postgres bound_of_states!("state", "status = 'ERRORED' AND substr(message, 1, 64) = $5");
    STATE = concat!(
        "SELECT ",
        state_view!(
            "details",
            "CAST(octet_length(details) AS BIGINT)",
            host_of!("last_session")
        ),
        " FROM state WHERE run = $1 AND id = $2 AND ",
        seen!("state")
    );
    /// Finds a state of a run by its path.
    STATE_AT = concat!("SELECT id FROM state WHERE run = $1 AND path = $2 AND ", seen!("state"));
    /// Reads what the inputs of a state are rendered from. (A staged state gets its values of the
    /// store when it is claimed.)
    STATE_SOURCES = concat!(
        "SELECT id, node, path, refs, scopes, status, attempt, \
             CASE WHEN namespace >= 0 THEN store_snapshot ELSE \
                 (SELECT f.store_snapshot FROM staged_snapshot f \
                     WHERE f.state = -state.namespace AND f.node = state.node) END \
         FROM state WHERE run = $1 AND id = $2 AND ",
        seen!("state")
    );
    /// Lists the states of some nodes that have outputs, in path order after a path, and the last
    /// one of the `$4` states that are examined.
    RESULT_STATES = concat!(
        "SELECT id, node, path, CASE WHEN status = 'SUCCESS' AND \
             node IN (SELECT value FROM json_each($3)) THEN outputs ELSE 0 END AS results, rank \
         FROM (SELECT page.*, ROW_NUMBER() OVER (ORDER BY path) AS rank \
             FROM (SELECT id, node, path, status, outputs FROM state \
                 WHERE run = $1 AND path >= $2 AND ",
        seen!("state"),
        " ORDER BY path LIMIT $4) page) ranked \
         WHERE (status = 'SUCCESS' AND outputs > 0 \
             AND node IN (SELECT value FROM json_each($3))) OR rank = $4 \
         ORDER BY path LIMIT $5"
    ),
    postgres concat!(
        "SELECT id, node, path, CASE WHEN status = 'SUCCESS' AND node IN \
             (SELECT value::BIGINT FROM json_array_elements_text($3::JSON)) \
             THEN outputs ELSE 0 END AS results, rank \
         FROM (SELECT page.*, ROW_NUMBER() OVER (ORDER BY path) AS rank \
             FROM (SELECT id, node, path, status, outputs FROM state \
                 WHERE run = $1 AND path >= $2 AND ",
        seen!("state"),
        " ORDER BY path LIMIT $4) page) ranked \
         WHERE (status = 'SUCCESS' AND outputs > 0 AND node IN \
                 (SELECT value::BIGINT FROM json_array_elements_text($3::JSON))) OR rank = $4 \
         ORDER BY path LIMIT $5"
    );
    /// Returns the bytes of a state's first outputs, of its details and of its attempts.
    STATE_SIZE = concat!("SELECT ", state_bytes!()),
    postgres concat!("SELECT (", state_bytes!(), ")::BIGINT");
    NEW_ATTEMPT = concat!(
        "INSERT INTO attempt (state, number, session, began_at, ended_at, outcome, kind, \
             message, details, logs, log_run, ",
        usage_columns!(names),
        ") \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)"
    ),
    postgres concat!(
        "INSERT INTO attempt (state, number, session, began_at, ended_at, outcome, kind, \
             message, details, logs, log_run, ",
        usage_columns!(names),
        ") \
         SELECT * \
         FROM ",
        usage_columns!(
            arrays state: int, number: int, session: int, began_at: int, ended_at: int,
            outcome: text, kind: text, message: text, details: text, logs: text, log_run: int,
        )
    );
    DELETE_OLD_ATTEMPTS = "DELETE FROM attempt WHERE state = $1 AND number <= $2",
    postgres concat!(
        "DELETE FROM attempt USING ",
        unnest!(state: int, number: int),
        " WHERE attempt.state = n.state AND attempt.number <= n.number"
    );
    ATTEMPTS = concat!(
        "SELECT number, began_at, ",
        host_of!("session"),
        ", ended_at, outcome, kind, message, details, logs, ",
        usage_columns!(names),
        " FROM attempt \
         WHERE state = $1 \
         ORDER BY number"
    );
    NEW_OUTPUT = "INSERT INTO output (state, number, body) VALUES ($1, $2, $3)",
    postgres concat!(
        "INSERT INTO output (state, number, body) \
         SELECT * \
         FROM ",
        arrays!(state: int, number: int, body: text)
    );
    /// Reads ranges of outputs: each is a state, and the first and last number.
    OUTPUTS_AT =
        "SELECT o.state, o.number, o.body \
         FROM json_each($1) w \
         JOIN output o ON o.state = w.value ->> 0 \
             AND o.number BETWEEN w.value ->> 1 AND w.value ->> 2 \
         WHERE octet_length(o.body) <= $2",
    postgres
        "SELECT o.state, o.number, o.body \
         FROM json_array_elements($1::JSON) w \
         JOIN output o ON o.state = (w ->> 0)::BIGINT \
             AND o.number BETWEEN (w ->> 1)::BIGINT AND (w ->> 2)::BIGINT \
         WHERE octet_length(o.body) <= $2";
    /// Reads the sizes of ranges of outputs, like [`OUTPUTS_AT`].
    OUTPUT_SIZES_AT =
        "SELECT o.state, o.number, octet_length(o.body) \
         FROM json_each($1) w \
         JOIN output o ON o.state = w.value ->> 0 \
             AND o.number BETWEEN w.value ->> 1 AND w.value ->> 2",
    postgres
        "SELECT o.state, o.number, octet_length(o.body)::BIGINT \
         FROM json_array_elements($1::JSON) w \
         JOIN output o ON o.state = (w ->> 0)::BIGINT \
             AND o.number BETWEEN (w ->> 1)::BIGINT AND (w ->> 2)::BIGINT";
    OUTPUTS_OF_STATE = "SELECT body FROM output WHERE state = $1 ORDER BY number";
    OUTPUT_BYTES = "SELECT COALESCE(SUM(octet_length(body)), 0) FROM output WHERE state = $1",
    postgres "SELECT COALESCE(SUM(octet_length(body)), 0)::BIGINT FROM output WHERE state = $1";
    OUTPUT_SIZES =
        "SELECT state, number, octet_length(body) \
         FROM output \
         WHERE state = $1 \
         ORDER BY number",
    postgres
        "SELECT state, number, octet_length(body)::BIGINT \
         FROM output \
         WHERE state = $1 \
         ORDER BY number";
    /// Reads a page of a succeeded state's outputs; those of any other state are staged.
    OUTPUTS_PAGE =
        "SELECT body \
         FROM output \
         WHERE state = $1 AND number >= $2 \
             AND EXISTS (SELECT 1 FROM state s WHERE s.id = $1 AND s.status = 'SUCCESS') \
         ORDER BY number LIMIT $3";
}
