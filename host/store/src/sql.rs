//! The SQL statements of this crate. A test prepares each of them on both databases, so that none
//! uses a table or column that does not exist.
//!
//! A statement has one text for both databases as far as their common subset reaches. Elsewhere two
//! texts stand side by side. A statement for many rows runs on SQLite once per row, and on Postgres
//! once over arrays (`UNNEST`). Lists of numbers are JSON text, and only Postgres needs locks.

use crate::text::Text;

/// The current time on Postgres, in milliseconds since 1970, at this moment of the transaction.
macro_rules! now {
    () => {
        "SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::BIGINT"
    };
}
pub(crate) use now;

/// Declares one constant per statement, and [`ALL`] of them.
macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $text:expr $(, postgres $postgres:expr)?;)*) => {
        $($(#[$doc])* pub(crate) const $name: &Text = statement!($text $(, $postgres)?);)*
        #[cfg(test)]
        pub(crate) const ALL: &[(&str, &Text)] = &[$((stringify!($name), $name)),*];
    };
}

/// Builds a statement; its parameters are renumbered in SQLite's way.
macro_rules! statement {
    ($text:expr) => {
        statement!($text, $text)
    };
    ($text:expr, $postgres:expr) => {
        &Text {
            sqlite: {
                const BYTES: &[u8] = &crate::text::question_marks::<{ $text.len() }>($text);
                match std::str::from_utf8(BYTES) {
                    Ok(text) => text,
                    Err(_) => panic!("one ASCII letter for another"),
                }
            },
            postgres: $postgres,
        }
    };
}

/// The condition that a state is visible in its run: it was not staged, or the execution that
/// staged it is SUCCESS.
macro_rules! seen {
    ($state:literal) => {
        concat!(
            "(",
            $state,
            ".namespace >= 0 OR EXISTS (SELECT 1 FROM state p WHERE p.id = -",
            $state,
            ".namespace AND p.status = 'SUCCESS'))"
        )
    };
}

/// The columns of a claimed state, as `rows::claimed` reads them.
macro_rules! claimed {
    () => {
        "id, run, node, path, refs, scopes, attempt, retries, requeues, losses, conflicts, session, fence, fixed, begun, namespace"
    };
}

/// The columns of a state, as people read it.
macro_rules! state_view {
    ($details:literal) => {
        concat!(
            "id, node, path, status, attempt, retries, requeues, created_at, ended_at, outputs, kind, message, ",
            $details,
            ", cpu_us, memory_bytes, host_calls, input_bytes, output_bytes"
        )
    };
}

/// A page of a run's states in path order, `$6` at most, which ends where their failures have `$7`
/// bytes.
macro_rules! page_of_states {
    ($condition:literal) => {
        concat!(
            "SELECT ",
            state_view!("details"),
            " FROM (SELECT page.*, SUM(bytes) OVER (ORDER BY path) - bytes AS bytes_ahead FROM (SELECT ",
            state_view!("CASE WHEN kind IS NULL THEN NULL ELSE details END AS details"),
            ", CASE WHEN kind IS NULL THEN 0 ELSE octet_length(message) + COALESCE(octet_length(details), 0) END AS bytes \
             FROM state WHERE run = $1 AND ",
            $condition,
            " AND ",
            seen!("state"),
            " ORDER BY path LIMIT $6) page) counted WHERE bytes_ahead < $7 ORDER BY path"
        )
    };
}

/// The condition of the index `state_ready`: states that can be claimed now.
macro_rules! ready {
    () => {
        "s.status = 'CREATED' AND s.parked = 0 AND s.delayed = 0"
    };
}

/// The condition of the index `state_delayed`: states that can be claimed later.
macro_rules! delayed {
    () => {
        "s.status = 'CREATED' AND s.parked = 0 AND s.delayed = 1"
    };
}

/// On Postgres: the first ready state of each namespace, and the first delayed one. Each takes one
/// step along an index, however many states there are. Index entries of states claimed earlier come
/// before all others until a vacuum, so no step is taken twice.
macro_rules! claimable {
    () => {
        concat!(
            "ready (namespace, run, due_at, id) AS (\
             (SELECT s.namespace, s.run, s.due_at, s.id FROM state s WHERE ",
            ready!(),
            " ORDER BY s.namespace, s.run, s.due_at, s.id LIMIT 1) \
             UNION ALL SELECT next.* FROM ready CROSS JOIN LATERAL \
             (SELECT s.namespace, s.run, s.due_at, s.id FROM state s WHERE ",
            ready!(),
            " AND s.namespace > ready.namespace ORDER BY s.namespace, s.run, s.due_at, s.id LIMIT 1) next), \
             delayed (namespace, due_at) AS (\
             (SELECT s.namespace, s.due_at FROM state s WHERE ",
            delayed!(),
            " ORDER BY s.namespace, s.due_at, s.id LIMIT 1) \
             UNION ALL SELECT next.* FROM delayed CROSS JOIN LATERAL \
             (SELECT s.namespace, s.due_at FROM state s WHERE ",
            delayed!(),
            " AND s.namespace > delayed.namespace ORDER BY s.namespace, s.due_at, s.id LIMIT 1) next)"
        )
    };
}

statements! {
    // Numbers and sessions.
    NUMBERS = "UPDATE number SET next = next + $2 WHERE name = $1 RETURNING next";
    BEGIN_SESSION = "INSERT INTO session (id, started_at, expires_at, host) VALUES ($1, $2, $3, $4)";
    /// Changes nothing, but writes: proves that the database is writable.
    TOUCH_SESSION = "UPDATE session SET started_at = started_at WHERE id = $1";
    /// The time of the latest commits, for a host whose clock has gone back. Each part reads the
    /// last rows of a table by its key. On Postgres the database's own clock counts instead.
    LATEST_TIME = "SELECT COALESCE(MAX(t), 0) FROM (\
                   SELECT MAX(MAX(started_at), COALESCE(MAX(ended_at), 0)) AS t FROM session \
                   UNION ALL SELECT MAX(created_at) FROM (SELECT created_at FROM state ORDER BY id DESC LIMIT 100) \
                   UNION ALL SELECT MAX(ended_at) FROM (SELECT ended_at FROM attempt ORDER BY rowid DESC LIMIT 100) \
                   UNION ALL SELECT MAX(ended_at) FROM state WHERE id IN (SELECT state FROM output ORDER BY rowid DESC LIMIT 100))",
    postgres now!();
    END_SESSION = "UPDATE session SET ended_at = $2 WHERE id = $1 AND ended_at IS NULL";
    END_OTHERS = "UPDATE session SET ended_at = $2 WHERE id <> $1 AND ended_at IS NULL";
    END_OLDER = "UPDATE session SET ended_at = $2 WHERE id <> $1 AND host = $3 AND ended_at IS NULL";

    // The statements of a commit, in the order in which it uses them.
    /// Makes the commit of this transaction unsynced: it reaches the disk with the next synced
    /// commit. (On SQLite that is a setting of the connection.)
    UNSYNCED = "SELECT 1",
    postgres "SELECT set_config('synchronous_commit', 'off', true)";
    /// Inserts runs of current revisions one after the other, in the given order. That order
    /// decides which start is first with a key, and which transaction waits for which. (A join
    /// alone does not keep an order.)
    NEW_RUN = "INSERT INTO run (id, uuid, namespace, graph, revision, status, version, inputs, created_at, open, failed, \
               states, succeeded, pruned, errored, cancelled, retries, requeues, store_keys, store_bytes, store_version, start_key, start_digest) \
               SELECT $1, $2, $3, r.graph, r.id, 'RUNNING', 0, $5, $6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, $7, $8 \
               FROM revision r JOIN graph g ON g.id = r.graph AND g.current = r.id WHERE r.id = $4 ON CONFLICT DO NOTHING RETURNING id",
    postgres "INSERT INTO run (id, uuid, namespace, graph, revision, status, version, inputs, created_at, open, failed, \
              states, succeeded, pruned, errored, cancelled, retries, requeues, store_keys, store_bytes, store_version, start_key, start_digest) \
              SELECT n.id, n.uuid, n.namespace, r.graph, r.id, 'RUNNING', 0, n.inputs, n.now, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n.start_key, n.start_digest \
              FROM UNNEST($1::BIGINT[], $2::TEXT[], $3::TEXT[], $4::BIGINT[], $5::TEXT[], $6::BIGINT[], $7::TEXT[], $8::TEXT[]) WITH ORDINALITY \
              AS n (id, uuid, namespace, revision, inputs, now, start_key, start_digest, at) JOIN revision r ON r.id = n.revision \
              JOIN graph g ON g.id = r.graph AND g.current = r.id ORDER BY n.at \
              ON CONFLICT DO NOTHING RETURNING id";
    /// Reads the run that prevents a new one: it has the same id, or the same idempotency key.
    FIRST_RUN = "SELECT u.uuid, g.name, u.start_digest FROM run u JOIN graph g ON g.id = u.graph \
                 WHERE u.uuid = $1 OR (u.namespace = $2 AND u.start_key = $3) ORDER BY u.id LIMIT 1";
    /// Reads the run that an idempotency key has started.
    STARTED_WITH = "SELECT u.uuid, g.name, u.start_digest FROM run u JOIN graph g ON g.id = u.graph \
                    WHERE u.namespace = $1 AND u.start_key = $2";
    /// Reads the mutable columns of a run. On Postgres this locks the row, and every transaction
    /// that writes below a run has locked it here.
    RUN_ROW = "SELECT id, status, paused, unswept, version, open, failed, states, succeeded, pruned, errored, cancelled, \
               retries, requeues, store_keys, store_bytes, store_version, ended_at, created_at, redrive FROM run WHERE id = $1",
    postgres "SELECT id, status, paused, unswept, version, open, failed, states, succeeded, pruned, errored, cancelled, \
              retries, requeues, store_keys, store_bytes, store_version, ended_at, created_at, redrive FROM run WHERE id = ANY($1) ORDER BY id FOR UPDATE";
    SAVE_RUN = "UPDATE run SET status = $2, paused = $3, unswept = $4, version = $5, open = $6, failed = $7, states = $8, \
                succeeded = $9, pruned = $10, errored = $11, cancelled = $12, retries = $13, requeues = $14, store_keys = $15, \
                store_bytes = $16, store_version = $17, ended_at = $18, redrive = $19 WHERE id = $1",
    postgres "UPDATE run SET status = n.status, paused = n.paused, unswept = n.unswept, version = n.version, open = n.open, \
              failed = n.failed, states = n.states, succeeded = n.succeeded, pruned = n.pruned, errored = n.errored, \
              cancelled = n.cancelled, retries = n.retries, requeues = n.requeues, store_keys = n.store_keys, \
              store_bytes = n.store_bytes, store_version = n.store_version, ended_at = n.ended_at, redrive = n.redrive \
              FROM UNNEST($1::BIGINT[], $2::TEXT[], $3::BIGINT[], $4::BIGINT[], $5::BIGINT[], $6::BIGINT[], $7::BIGINT[], \
              $8::BIGINT[], $9::BIGINT[], $10::BIGINT[], $11::BIGINT[], $12::BIGINT[], $13::BIGINT[], $14::BIGINT[], \
              $15::BIGINT[], $16::BIGINT[], $17::BIGINT[], $18::BIGINT[], $19::BIGINT[]) \
              AS n (id, status, paused, unswept, version, open, failed, states, succeeded, pruned, errored, cancelled, retries, \
              requeues, store_keys, store_bytes, store_version, ended_at, redrive) WHERE run.id = n.id";
    /// Reads which claims are still valid: invariant 3. `IS NOT DISTINCT FROM`, here and in the
    /// guards below, stops the planner from choosing the partial index on `session`. That index
    /// holds every state the session has claimed and, until a vacuum, those it had; the primary key
    /// is the right path.
    STILL_HELD = "SELECT id, session, fence FROM state WHERE id = $1 AND session = $2 AND fence = $3 AND status = 'QUEUED'",
    postgres "SELECT s.id, s.session, s.fence FROM UNNEST($1::BIGINT[], $2::BIGINT[], $3::BIGINT[]) AS n (id, session, fence) \
              JOIN state s ON s.id = n.id WHERE s.session IS NOT DISTINCT FROM n.session AND s.fence = n.fence AND s.status IS NOT DISTINCT FROM 'QUEUED'";
    /// Inserts a state, claimed by a session or not.
    NEW_STATE = "INSERT INTO state (id, run, node, path, status, due_at, session, fence, attempt, retries, requeues, losses, \
                 conflicts, refs, scopes, fixed, created_at, parked, namespace, delayed) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8, 0, 0, 0, 0, $9, $10, $11, $12, $13, $14, $6 > $12)",
    postgres "INSERT INTO state (id, run, node, path, status, due_at, session, fence, attempt, retries, requeues, losses, \
              conflicts, refs, scopes, fixed, created_at, parked, namespace, delayed) \
              SELECT id, run, node, path, status, due_at, session, fence, fence, 0, 0, 0, 0, refs, scopes, fixed, now, parked, namespace, \
              (due_at > now)::INT \
              FROM UNNEST($1::BIGINT[], $2::BIGINT[], $3::BIGINT[], $4::TEXT[], $5::TEXT[], $6::BIGINT[], $7::BIGINT[], $8::BIGINT[], \
              $9::TEXT[], $10::TEXT[], $11::TEXT[], $12::BIGINT[], $13::BIGINT[], $14::BIGINT[]) \
              AS n (id, run, node, path, status, due_at, session, fence, refs, scopes, fixed, now, parked, namespace)";
    /// Ends an execution, guarded by its fence.
    FINISH = "UPDATE state SET status = $4, session = NULL, ended_at = $5, outputs = $6, kind = $7, message = $8, details = $9, \
              cpu_us = $10, memory_bytes = $11, host_calls = $12, input_bytes = $13, output_bytes = $14 \
              WHERE id = $1 AND status = 'QUEUED' AND session = $2 AND fence = $3",
    postgres "UPDATE state SET status = n.status, session = NULL, ended_at = n.now, outputs = n.outputs, kind = n.kind, \
              message = n.message, details = n.details, cpu_us = n.cpu_us, memory_bytes = n.memory_bytes, \
              host_calls = n.host_calls, input_bytes = n.input_bytes, output_bytes = n.output_bytes \
              FROM UNNEST($1::BIGINT[], $2::BIGINT[], $3::BIGINT[], $4::TEXT[], $5::BIGINT[], $6::BIGINT[], $7::TEXT[], $8::TEXT[], \
              $9::TEXT[], $10::BIGINT[], $11::BIGINT[], $12::BIGINT[], $13::BIGINT[], $14::BIGINT[]) \
              AS n (id, session, fence, status, now, outputs, kind, message, details, cpu_us, memory_bytes, host_calls, input_bytes, output_bytes) \
              WHERE state.id = n.id AND state.status IS NOT DISTINCT FROM 'QUEUED' AND state.session IS NOT DISTINCT FROM n.session AND state.fence = n.fence";
    /// Ends an execution that runs again, under the same guard.
    REPEAT = "UPDATE state SET status = 'CREATED', session = NULL, due_at = $4, attempt = $5, retries = $6, requeues = $7, \
              losses = $8, conflicts = $9, parked = $10, delayed = $11 \
              WHERE id = $1 AND status = 'QUEUED' AND session = $2 AND fence = $3",
    postgres "UPDATE state SET status = 'CREATED', session = NULL, due_at = n.due_at, attempt = n.attempt, retries = n.retries, \
              requeues = n.requeues, losses = n.losses, conflicts = n.conflicts, parked = n.parked, delayed = n.delayed \
              FROM UNNEST($1::BIGINT[], $2::BIGINT[], $3::BIGINT[], $4::BIGINT[], $5::BIGINT[], $6::BIGINT[], $7::BIGINT[], \
              $8::BIGINT[], $9::BIGINT[], $10::BIGINT[], $11::BIGINT[]) \
              AS n (id, session, fence, due_at, attempt, retries, requeues, losses, conflicts, parked, delayed) \
              WHERE state.id = n.id AND state.status IS NOT DISTINCT FROM 'QUEUED' AND state.session IS NOT DISTINCT FROM n.session AND state.fence = n.fence";
    /// Stores the usage of an execution whose run was cancelled, whether or not a sweep has ended
    /// its state.
    USED = "UPDATE state SET cpu_us = $3, memory_bytes = $4, host_calls = $5, input_bytes = $6, output_bytes = $7 \
            WHERE id = $1 AND fence = $2 AND status IN ('QUEUED', 'CANCELLED')",
    postgres "UPDATE state SET cpu_us = n.cpu_us, memory_bytes = n.memory_bytes, host_calls = n.host_calls, \
              input_bytes = n.input_bytes, output_bytes = n.output_bytes \
              FROM UNNEST($1::BIGINT[], $2::BIGINT[], $3::BIGINT[], $4::BIGINT[], $5::BIGINT[], $6::BIGINT[], $7::BIGINT[]) \
              AS n (id, fence, cpu_us, memory_bytes, host_calls, input_bytes, output_bytes) \
              WHERE state.id = n.id AND state.fence = n.fence AND state.status IN ('QUEUED', 'CANCELLED')";
    /// Records that an execution begins.
    BEGUN = "UPDATE state SET begun = fence WHERE id = $1 AND status = 'QUEUED' AND session = $2 AND fence = $3",
    postgres "UPDATE state SET begun = state.fence FROM UNNEST($1::BIGINT[], $2::BIGINT[], $3::BIGINT[]) AS n (id, session, fence) \
              WHERE state.id = n.id AND state.status IS NOT DISTINCT FROM 'QUEUED' AND state.session IS NOT DISTINCT FROM n.session AND state.fence = n.fence";
    NEW_OUTPUT = "INSERT INTO output (state, number, body) VALUES ($1, $2, $3)",
    postgres "INSERT INTO output (state, number, body) SELECT * FROM UNNEST($1::BIGINT[], $2::BIGINT[], $3::TEXT[])";
    NEW_ATTEMPT = "INSERT INTO attempt (state, number, ended_at, outcome, kind, message, details, logs, cpu_us, memory_bytes, host_calls, input_bytes, output_bytes) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
    postgres "INSERT INTO attempt (state, number, ended_at, outcome, kind, message, details, logs, cpu_us, memory_bytes, host_calls, input_bytes, output_bytes) \
              SELECT * FROM UNNEST($1::BIGINT[], $2::BIGINT[], $3::BIGINT[], $4::TEXT[], $5::TEXT[], $6::TEXT[], $7::TEXT[], $8::TEXT[], \
              $9::BIGINT[], $10::BIGINT[], $11::BIGINT[], $12::BIGINT[], $13::BIGINT[])";
    OLD_ATTEMPTS = "DELETE FROM attempt WHERE state = $1 AND number <= $2",
    postgres "DELETE FROM attempt USING UNNEST($1::BIGINT[], $2::BIGINT[]) AS n (state, number) \
              WHERE attempt.state = n.state AND attempt.number <= n.number";
    NEW_UNITE = "INSERT INTO unite (state, source, branches, open, failed, arrived) VALUES ($1, $2, $3, $4, $5, $6)",
    postgres "INSERT INTO unite (state, source, branches, open, failed, arrived) \
              SELECT * FROM UNNEST($1::BIGINT[], $2::BIGINT[], $3::BIGINT[], $4::BIGINT[], $5::BIGINT[], $6::BIGINT[])";
    COUNT = "UPDATE unite SET open = open + $2, failed = failed + $3, arrived = arrived + $4 WHERE state = $1 \
             RETURNING state, open, failed, arrived, branches",
    postgres "UPDATE unite SET open = open + n.open_, failed = failed + n.failed_, arrived = arrived + n.arrived_ \
              FROM UNNEST($1::BIGINT[], $2::BIGINT[], $3::BIGINT[], $4::BIGINT[]) AS n (state_, open_, failed_, arrived_) \
              WHERE state = n.state_ RETURNING state, open, failed, arrived, branches";
    WAITING = "SELECT id, node, path, refs, scopes, fence, attempt, fixed FROM state WHERE id = $1 AND status = 'WAITING'",
    postgres "SELECT id, node, path, refs, scopes, fence, attempt, fixed FROM state WHERE id = ANY($1) AND status = 'WAITING'";
    /// Opens a unite for execution: claimable, or claimed at once.
    OPEN_UNITE = "UPDATE state SET status = $2, due_at = $3, session = $4, fence = fence + $5, attempt = attempt + $5, parked = $6 \
                  WHERE id = $1 AND status = 'WAITING'",
    postgres "UPDATE state SET status = n.status, due_at = n.due_at, session = n.session, fence = state.fence + n.claims, \
              attempt = state.attempt + n.claims, parked = n.parked \
              FROM UNNEST($1::BIGINT[], $2::TEXT[], $3::BIGINT[], $4::BIGINT[], $5::BIGINT[], $6::BIGINT[]) \
              AS n (id, status, due_at, session, claims, parked) WHERE state.id = n.id AND state.status = 'WAITING'";
    END_UNITE = "UPDATE state SET status = $2, ended_at = $3, kind = $4, message = $5, details = $6 \
                 WHERE id = $1 AND status = 'WAITING'",
    postgres "UPDATE state SET status = n.status, ended_at = n.now, kind = n.kind, message = n.message, details = n.details \
              FROM UNNEST($1::BIGINT[], $2::TEXT[], $3::BIGINT[], $4::TEXT[], $5::TEXT[], $6::TEXT[]) \
              AS n (id, status, now, kind, message, details) WHERE state.id = n.id AND state.status = 'WAITING'";
    /// Reads failed states below an execution at some nodes, the first in path order.
    FAILED_MEMBERS = "SELECT id, node, path, refs, scopes, kind, message FROM state \
                      WHERE run = $1 AND path > $2 AND path < $3 AND status = 'ERRORED' \
                      AND node IN (SELECT value FROM json_each($4)) ORDER BY path LIMIT $5",
    postgres "SELECT id, node, path, refs, scopes, kind, message FROM state \
              WHERE run = $1 AND path > $2 AND path < $3 AND status = 'ERRORED' \
              AND node IN (SELECT value::BIGINT FROM json_array_elements_text($4::JSON)) ORDER BY path LIMIT $5";
    /// Reads the head of each queue. For a namespace with ready states: the first one's run, due
    /// time and number, and the next run with ready states. For one with delayed states: no run,
    /// when the first is due, and when the first after now is due. Staged children have a queue of
    /// their own, whose number is negative. The last column is their namespace. It is NULL until
    /// their parent is SUCCESS, and while their run is paused or over: they may not be claimed
    /// then.
    CLAIMABLE = concat!("WITH RECURSIVE ready (namespace) AS (SELECT MIN(s.namespace) FROM state s WHERE ", ready!(), " \
                 UNION ALL SELECT (SELECT MIN(s.namespace) FROM state s WHERE ", ready!(), " AND s.namespace > ready.namespace) \
                 FROM ready WHERE ready.namespace IS NOT NULL), \
                 delayed (namespace) AS (SELECT MIN(s.namespace) FROM state s WHERE ", delayed!(), " \
                 UNION ALL SELECT (SELECT MIN(s.namespace) FROM state s WHERE ", delayed!(), " AND s.namespace > delayed.namespace) \
                 FROM delayed WHERE delayed.namespace IS NOT NULL) \
                 SELECT first.namespace, first.run, first.due_at, first.id, (SELECT MIN(s.run) FROM state s WHERE ", ready!(), " \
                 AND s.namespace = first.namespace AND s.run > first.run), \
                 CASE WHEN first.namespace >= 0 THEN first.namespace ELSE \
                 (SELECT p.namespace FROM state p JOIN run u ON u.id = p.run WHERE p.id = -first.namespace AND p.status = 'SUCCESS' \
                 AND u.status = 'RUNNING' AND u.paused = 0) END \
                 FROM ready JOIN state first ON first.id = (SELECT s.id FROM state s WHERE ", ready!(), " \
                 AND s.namespace = ready.namespace ORDER BY s.run, s.due_at, s.id LIMIT 1) \
                 UNION ALL SELECT delayed.namespace, NULL, \
                 (SELECT MIN(s.due_at) FROM state s WHERE ", delayed!(), " AND s.namespace = delayed.namespace), NULL, \
                 (SELECT MIN(s.due_at) FROM state s WHERE ", delayed!(), " AND s.namespace = delayed.namespace AND s.due_at > $1), delayed.namespace \
                 FROM delayed WHERE delayed.namespace IS NOT NULL"),
    postgres concat!("WITH RECURSIVE ", claimable!(), " SELECT namespace, run, due_at, id, \
                      (SELECT s.run FROM state s WHERE ", ready!(), " AND s.namespace = ready.namespace AND s.run > ready.run \
                       ORDER BY s.run, s.due_at, s.id LIMIT 1), \
                      CASE WHEN ready.namespace >= 0 THEN ready.namespace ELSE \
                 (SELECT p.namespace FROM state p JOIN run u ON u.id = p.run WHERE p.id = -ready.namespace AND p.status = 'SUCCESS' \
                 AND u.status = 'RUNNING' AND u.paused = 0) END FROM ready \
                      UNION ALL SELECT namespace, NULL, due_at, NULL, \
                      (SELECT MIN(s.due_at) FROM state s WHERE ", delayed!(), " AND s.namespace = delayed.namespace AND s.due_at > $1), namespace \
                      FROM delayed");
    /// Makes up to `$3` delayed states of a namespace ready that are due.
    PROMOTE = concat!("UPDATE state SET delayed = 0 WHERE id IN (SELECT s.id FROM state s WHERE ", delayed!(), " \
                       AND s.namespace = $1 AND s.due_at <= $2 ORDER BY s.due_at, s.id LIMIT $3) \
                       AND status = 'CREATED' RETURNING namespace"),
    postgres concat!("UPDATE state SET delayed = 0 WHERE id = ANY(ARRAY(SELECT due.id \
                      FROM UNNEST($1::BIGINT[], $2::BIGINT[], $3::BIGINT[]) AS n (namespace, now, most) \
                      CROSS JOIN LATERAL (SELECT s.id FROM state s WHERE ", delayed!(), " AND s.namespace = n.namespace \
                      AND s.due_at <= n.now ORDER BY s.due_at, s.id LIMIT n.most FOR UPDATE OF s SKIP LOCKED) due)) \
                      AND status = 'CREATED' RETURNING namespace");
    /// Reads the first ready state of each run of a namespace, for a limited number of runs in a
    /// range.
    READY_RUNS = concat!("WITH RECURSIVE runs (run) AS (SELECT MIN(s.run) FROM state s WHERE ", ready!(), " \
                  AND s.namespace = $1 AND s.run > $2 AND s.run <= $3 \
                  UNION ALL SELECT (SELECT MIN(s.run) FROM state s WHERE ", ready!(), " \
                  AND s.namespace = $1 AND s.run > runs.run AND s.run <= $3) FROM runs WHERE runs.run IS NOT NULL LIMIT $4) \
                  SELECT first.namespace, first.run, first.due_at, first.id FROM runs \
                  JOIN state first ON first.id = (SELECT s.id FROM state s WHERE ", ready!(), " \
                  AND s.namespace = $1 AND s.run = runs.run ORDER BY s.due_at, s.id LIMIT 1)"),
    postgres concat!("SELECT found.namespace, found.run, found.due_at, found.id \
                      FROM UNNEST($1::BIGINT[], $2::BIGINT[], $3::BIGINT[], $4::BIGINT[]) AS n (namespace, after, up_to, most) \
                      CROSS JOIN LATERAL (WITH RECURSIVE runs (namespace, run, due_at, id) AS (\
                      (SELECT s.namespace, s.run, s.due_at, s.id FROM state s WHERE ", ready!(), " AND s.namespace = n.namespace \
                       AND s.run > n.after AND s.run <= n.up_to ORDER BY s.run, s.due_at, s.id LIMIT 1) \
                      UNION ALL SELECT next.* FROM runs CROSS JOIN LATERAL \
                      (SELECT s.namespace, s.run, s.due_at, s.id FROM state s WHERE ", ready!(), " AND s.namespace = n.namespace \
                       AND s.run > runs.run AND s.run <= n.up_to ORDER BY s.run, s.due_at, s.id LIMIT 1) next) \
                      SELECT * FROM runs LIMIT n.most) found");
    /// Claims ready states of a run, from the first on. The update checks the status again: a state
    /// that another host claimed since the search stays with that host. Staged states get their
    /// namespace here, and their fixed store values.
    CLAIM = concat!("UPDATE state SET status = 'QUEUED', session = $6, fence = fence + 1, attempt = attempt + 1, \
            namespace = CASE WHEN namespace >= 0 THEN namespace ELSE (SELECT p.namespace FROM state p WHERE p.id = -state.namespace) END, \
            fixed = CASE WHEN namespace >= 0 THEN fixed ELSE \
            (SELECT f.fixed FROM staged_fixed f WHERE f.state = -state.namespace AND f.node = state.node) END \
            WHERE id IN (SELECT s.id FROM state s WHERE ", ready!(), " AND s.namespace = $1 AND s.run = $2 \
                         AND (s.due_at, s.id) >= ($3, $4) \
                         AND (SELECT u.paused FROM run u WHERE u.id = $2 AND u.status = 'RUNNING') = 0 \
                         ORDER BY s.due_at, s.id LIMIT $5) \
            AND status = 'CREATED' RETURNING ", claimed!()),
    postgres concat!("UPDATE state SET status = 'QUEUED', session = ($6::BIGINT[])[1], fence = fence + 1, attempt = attempt + 1, \
              namespace = CASE WHEN namespace >= 0 THEN namespace ELSE (SELECT p.namespace FROM state p WHERE p.id = -state.namespace) END, \
            fixed = CASE WHEN namespace >= 0 THEN fixed ELSE \
            (SELECT f.fixed FROM staged_fixed f WHERE f.state = -state.namespace AND f.node = state.node) END \
              WHERE id = ANY(ARRAY(SELECT free.id FROM UNNEST($1::BIGINT[], $2::BIGINT[], $3::BIGINT[], $4::BIGINT[], $5::BIGINT[]) \
                         AS n (namespace, run, due_at, id, most) JOIN run u ON u.id = n.run AND u.status = 'RUNNING' AND u.paused = 0 \
                         CROSS JOIN LATERAL (SELECT s.id FROM state s WHERE ", ready!(), " AND s.namespace = n.namespace \
                         AND s.run = n.run AND (s.due_at, s.id) >= (n.due_at, n.id) \
                         ORDER BY s.due_at, s.id LIMIT n.most FOR UPDATE OF s SKIP LOCKED) free)) \
              AND status = 'CREATED' RETURNING ", claimed!());
    /// Reads a page of a run's states from a path on, each with whether it is visible.
    SOME_STATES = concat!("SELECT s.id, s.path, s.status, CASE WHEN ", seen!("s"), " THEN 1 ELSE 0 END FROM state s \
                   WHERE s.run = $1 AND s.path >= $2 ORDER BY s.path LIMIT $3"),
    postgres concat!("SELECT s.id, s.path, s.status, CASE WHEN ", seen!("s"), " THEN 1::BIGINT ELSE 0 END FROM state s \
              WHERE s.run = $1 AND s.path >= $2 ORDER BY s.path LIMIT $3");
    CANCEL_STATE = "UPDATE state SET status = 'CANCELLED', session = NULL, ended_at = $2 WHERE id = $1",
    postgres "UPDATE state SET status = 'CANCELLED', session = NULL, ended_at = n.now \
              FROM UNNEST($1::BIGINT[], $2::BIGINT[]) AS n (id, now) WHERE state.id = n.id";
    PARK_STATE = "UPDATE state SET parked = $2 WHERE id = $1 AND status = 'CREATED' AND parked <> $2",
    postgres "UPDATE state SET parked = n.parked FROM UNNEST($1::BIGINT[], $2::BIGINT[]) AS n (id, parked) \
              WHERE state.id = n.id AND state.status = 'CREATED' AND state.parked <> n.parked";

    // Staging: ends in pieces.
    /// Reads the staging rows of executions.
    STAGED = "SELECT state, fence, pieces FROM staged WHERE state = $1",
    postgres "SELECT state, fence, pieces FROM staged WHERE state = ANY($1)";
    SET_STAGED = "INSERT INTO staged (state, run, fence, pieces) VALUES ($1, $2, $3, $4) \
                  ON CONFLICT (state) DO UPDATE SET fence = excluded.fence, pieces = excluded.pieces";
    END_STAGED = "DELETE FROM staged WHERE state = $1";
    NEW_FIXED = "INSERT INTO staged_fixed (state, node, fixed) VALUES ($1, $2, $3)",
    postgres "INSERT INTO staged_fixed (state, node, fixed) SELECT * FROM UNNEST($1::BIGINT[], $2::BIGINT[], $3::TEXT[])";
    /// Reads the status and the fence of a state.
    STANDS = "SELECT id, status, fence FROM state WHERE id = $1";
    UNSTAGE_OUTPUTS = "DELETE FROM output WHERE state = $1 AND number IN \
                       (SELECT o.number FROM output o WHERE o.state = $1 ORDER BY o.number LIMIT $2)";
    UNSTAGE_STATES = concat!("DELETE FROM state WHERE id IN (SELECT s.id FROM state s WHERE ", ready!(), " \
                      AND s.namespace = $1 ORDER BY s.run, s.due_at, s.id LIMIT $2)");
    /// Reads the staging rows of ends that never came: the execution is not claimed under the
    /// staging fence any more, or its run is over.
    LEFTOVERS = "SELECT g.state, g.run, g.fence FROM staged g JOIN state s ON s.id = g.state JOIN run u ON u.id = g.run \
                 WHERE s.status <> 'QUEUED' OR s.fence <> g.fence OR u.status <> 'RUNNING' ORDER BY g.state";
    LEFTOVER_OF = "SELECT state, run, fence FROM staged WHERE state = $1";

    /// Reads states of a run for a manual retry.
    STATE_AT = "SELECT id, status, kind, node, path, refs, scopes FROM state WHERE run = $1 AND id = $2",
    postgres "SELECT s.id, s.status, s.kind, s.node, s.path, s.refs, s.scopes \
              FROM UNNEST($1::BIGINT[], $2::BIGINT[]) AS n (run, id) JOIN state s ON s.id = n.id AND s.run = n.run";
    /// Reads a page of a run's states from a path on, to find the failed ones.
    FAILED_AMONG = "SELECT id, path, status, kind FROM state WHERE run = $1 AND path >= $2 ORDER BY path LIMIT $3";
    REOPEN_STATE = "UPDATE state SET status = $2, due_at = $3, ended_at = NULL, kind = NULL, message = NULL, details = NULL, \
                    retries = 0, losses = 0, conflicts = 0, parked = $4 WHERE id = $1 AND status = 'ERRORED'",
    postgres "UPDATE state SET status = n.status, due_at = n.due_at, ended_at = NULL, kind = NULL, message = NULL, details = NULL, \
              retries = 0, losses = 0, conflicts = 0, parked = n.parked \
              FROM UNNEST($1::BIGINT[], $2::TEXT[], $3::BIGINT[], $4::BIGINT[]) AS n (id, status, due_at, parked) \
              WHERE state.id = n.id AND state.status = 'ERRORED'";

    // The store of a run.
    ENTRY_OF = "SELECT run, key, value, version FROM entry WHERE run = $1 AND key = $2",
    postgres "SELECT e.run, e.key, e.value, e.version FROM UNNEST($1::BIGINT[], $2::TEXT[]) AS n (run, key) \
              JOIN entry e ON e.run = n.run AND e.key = n.key";
    SET_ENTRY = "INSERT INTO entry (run, key, value, version) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (run, key) DO UPDATE SET value = excluded.value, version = excluded.version",
    postgres "INSERT INTO entry (run, key, value, version) SELECT * FROM UNNEST($1::BIGINT[], $2::TEXT[], $3::TEXT[], $4::BIGINT[]) \
              ON CONFLICT (run, key) DO UPDATE SET value = excluded.value, version = excluded.version";
    REMOVE_ENTRY = "DELETE FROM entry WHERE run = $1 AND key = $2",
    postgres "DELETE FROM entry USING UNNEST($1::BIGINT[], $2::TEXT[]) AS n (run, key) \
              WHERE entry.run = n.run AND entry.key = n.key";
    CLEAR_ENTRIES = "DELETE FROM entry WHERE run = $1";
    ENTRY = "SELECT value, version FROM entry WHERE run = $1 AND key = $2";
    ENTRIES = "SELECT key, value, version FROM entry WHERE run = $1 ORDER BY key";

    // Recovery.
    /// Reads a page of the states of live runs that a session holds.
    HELD_BY = concat!("SELECT ", claimed!(), " FROM state WHERE status = 'QUEUED' AND session = $1 \
              AND EXISTS (SELECT 1 FROM run WHERE run.id = state.run AND run.status = 'RUNNING') AND id > $2 ORDER BY id LIMIT $3");
    /// Reads the sessions that hold states and have ended, or never existed.
    LOST_SESSIONS = "SELECT DISTINCT s.session FROM state s WHERE s.status = 'QUEUED' \
                     AND NOT EXISTS (SELECT 1 FROM session WHERE session.id = s.session AND session.ended_at IS NULL) \
                     AND EXISTS (SELECT 1 FROM run WHERE run.id = s.run AND run.status = 'RUNNING')";
    UNSWEPT = "SELECT id, unswept, redrive FROM run WHERE unswept > 0 \
               UNION SELECT id, unswept, redrive FROM run WHERE redrive > 0";

    // Plugins, graphs, secrets.
    COMPONENT = "INSERT INTO component (digest, bytes, size, nodes, imports, compile_ms) VALUES ($1, $2, $3, $4, $5, $6) \
                 ON CONFLICT (digest) DO NOTHING";
    PUSH = "INSERT INTO plugin (namespace, name, version, digest, uploaded_at, size, node_names) VALUES ($1, $2, $3, $4, $5, $6, $7) \
            ON CONFLICT (namespace, name, digest) DO UPDATE SET version = excluded.version, uploaded_at = excluded.uploaded_at";
    KNOWN_PLUGIN = "SELECT id FROM plugin WHERE namespace = $1 AND name = $2 AND digest = $3";
    COMPONENT_BYTES = "SELECT bytes FROM component WHERE digest = $1";
    COMPONENT_NODES = "SELECT nodes FROM component WHERE digest = $1";
    /// Lists the newest upload of each plugin after a name, with limits on the rows and on the
    /// bytes of node names.
    PLUGIN_LIST = "SELECT name, version, digest, uploaded_at, size, node_names FROM (SELECT page.*, \
                   SUM(octet_length(node_names)) OVER (ORDER BY name) - octet_length(node_names) AS bytes_ahead FROM (\
                   SELECT p.name, p.version, p.digest, p.uploaded_at, p.size, p.node_names FROM plugin p \
                   WHERE p.namespace = $1 AND p.name > $2 \
                   AND p.id = (SELECT q.id FROM plugin q WHERE q.namespace = p.namespace AND q.name = p.name \
                               ORDER BY q.uploaded_at DESC, q.id DESC LIMIT 1) ORDER BY p.name LIMIT $3) page) counted \
                   WHERE bytes_ahead < $4 ORDER BY name";
    EXPORTED = "INSERT INTO exported (digest, node) SELECT $1, w.value FROM json_each($2) w WHERE TRUE \
                ON CONFLICT (digest, node) DO NOTHING",
    postgres "INSERT INTO exported (digest, node) SELECT $1, w FROM json_array_elements_text($2::JSON) w \
              ON CONFLICT (digest, node) DO NOTHING";
    /// Reads the newest uploads that export nodes with these names.
    EXPORTERS = "SELECT e.node, p.name, p.digest, c.imports FROM plugin p JOIN exported e ON e.digest = p.digest \
                 JOIN component c ON c.digest = p.digest WHERE p.namespace = $1 AND e.node IN (SELECT w.value FROM json_each($2) w) \
                 AND p.id = (SELECT q.id FROM plugin q WHERE q.namespace = p.namespace AND q.name = p.name \
                             ORDER BY q.uploaded_at DESC, q.id DESC LIMIT 1) ORDER BY e.node, p.name",
    postgres "SELECT e.node, p.name, p.digest, c.imports FROM plugin p JOIN exported e ON e.digest = p.digest \
              JOIN component c ON c.digest = p.digest \
              WHERE p.namespace = $1 AND e.node IN (SELECT w FROM json_array_elements_text($2::JSON) w) \
              AND p.id = (SELECT q.id FROM plugin q WHERE q.namespace = p.namespace AND q.name = p.name \
                          ORDER BY q.uploaded_at DESC, q.id DESC LIMIT 1) ORDER BY e.node, p.name";
    /// Reads the names of nodes that the newest uploads export, for suggestions.
    NODE_NAMES = "SELECT DISTINCT e.node FROM plugin p JOIN exported e ON e.digest = p.digest WHERE p.namespace = $1 \
                  AND p.id = (SELECT q.id FROM plugin q WHERE q.namespace = p.namespace AND q.name = p.name \
                              ORDER BY q.uploaded_at DESC, q.id DESC LIMIT 1) ORDER BY e.node LIMIT $2";
    /// Reads the newest upload of each plugin.
    PLUGINS = "SELECT p.name, p.version, p.digest, p.uploaded_at, c.size, c.nodes, c.imports, c.compile_ms \
               FROM plugin p JOIN component c ON c.digest = p.digest WHERE p.namespace = $1 \
               AND p.id = (SELECT q.id FROM plugin q WHERE q.namespace = p.namespace AND q.name = p.name \
                           ORDER BY q.uploaded_at DESC, q.id DESC LIMIT 1) ORDER BY p.name";
    PLUGIN = "SELECT p.name, p.version, p.digest, p.uploaded_at, c.size, c.nodes, c.imports, c.compile_ms \
              FROM plugin p JOIN component c ON c.digest = p.digest WHERE p.namespace = $1 AND (p.name = $2 OR p.digest = $2) \
              ORDER BY p.uploaded_at DESC, p.id DESC LIMIT 1";
    // Namespaces and their configuration.
    /// Creates a missing namespace. (Postgres loses a number for each conflict, hence the check.)
    NEW_NAMESPACE = "INSERT INTO namespace (name) SELECT $1 WHERE NOT EXISTS (SELECT 1 FROM namespace n WHERE n.name = $1) \
                     ON CONFLICT (name) DO NOTHING";
    NAMESPACE = "SELECT id, name, limits, slots FROM namespace WHERE name = $1";
    /// Reads and locks a namespace, so that no other transaction configures it.
    LOCK_NAMESPACE = "SELECT id, name, limits, slots FROM namespace WHERE name = $1",
    postgres "SELECT id, name, limits, slots FROM namespace WHERE name = $1 FOR NO KEY UPDATE";
    NAMESPACE_LIST = "SELECT id, name, limits, slots FROM namespace WHERE name > $1 ORDER BY name LIMIT $2";
    SET_NAMESPACE = "UPDATE namespace SET limits = $2, slots = $3 WHERE name = $1";
    SET_GRANTS = "INSERT INTO capability (namespace, plugin, grants, updated_at) VALUES ($1, $2, $3, $4) \
                  ON CONFLICT (namespace, plugin) DO UPDATE SET grants = excluded.grants, updated_at = excluded.updated_at";
    REMOVE_GRANTS = "DELETE FROM capability WHERE namespace = $1 AND plugin = $2";
    GRANTS_OF = "SELECT plugin, grants FROM capability WHERE namespace = $1 AND plugin = $2";
    /// Lists grants after a plugin name, with limits on the rows and on their bytes.
    GRANT_LIST = "SELECT plugin, grants, bytes FROM (SELECT page.*, SUM(bytes) OVER (ORDER BY plugin) - bytes AS bytes_ahead FROM (\
                  SELECT plugin, grants, CAST(octet_length(grants) AS BIGINT) AS bytes FROM capability \
                  WHERE namespace = $1 AND plugin > $2 ORDER BY plugin LIMIT $3) page) counted \
                  WHERE bytes_ahead < $4 ORDER BY plugin";
    GRANTS = "SELECT plugin, grants FROM capability WHERE namespace = $1 ORDER BY plugin";

    /// Finds or creates a graph. Either way the row is locked, so that revisions of one graph come
    /// one after the other.
    GRAPH_ROW = "INSERT INTO graph (namespace, name, current) VALUES ($1, $2, 0) \
                 ON CONFLICT (namespace, name) DO UPDATE SET current = graph.current RETURNING id, current";
    REVISION = "SELECT id, number, digest FROM revision WHERE id = $1";
    NEW_REVISION = "INSERT INTO revision (graph, number, digest, body, created_at) VALUES ($1, $2, $3, $4, $5) RETURNING id";
    SET_CURRENT = "UPDATE graph SET current = $2, number = $3, nodes = $4, applied_at = $5 WHERE id = $1";
    /// Lists graphs after a name.
    GRAPH_LIST = "SELECT name, number, applied_at, nodes FROM graph WHERE namespace = $1 AND name > $2 ORDER BY name LIMIT $3";
    GRAPH_SIZE = "SELECT CAST(octet_length(r.body) AS BIGINT) FROM graph g JOIN revision r ON r.id = g.current \
                  WHERE g.namespace = $1 AND g.name = $2";
    GRAPH = "SELECT g.name, r.id, r.number, r.digest, r.body, r.created_at, n.id FROM graph g JOIN revision r ON r.id = g.current \
             JOIN namespace n ON n.name = g.namespace \
             WHERE g.namespace = $1 AND g.name = $2";
    SET_SECRET = "INSERT INTO secret (namespace, graph, name, sealed, key_id) VALUES ($1, $2, $3, $4, $5) \
                  ON CONFLICT (namespace, graph, name) DO UPDATE SET sealed = excluded.sealed, key_id = excluded.key_id";
    REMOVE_SECRET = "DELETE FROM secret WHERE namespace = $1 AND graph = $2 AND name = $3";
    SECRET_NAMES = "SELECT name FROM secret WHERE namespace = $1 AND graph = $2 ORDER BY name";
    SECRETS_OF_GRAPH = "SELECT name, sealed, key_id FROM secret WHERE namespace = $1 AND graph = $2 ORDER BY name";

    // Keys: key check values, and re-encryption.
    /// Serializes the transactions that write to `seal`.
    LOCK_SEALS = "SELECT 1",
    postgres "SELECT 1 FROM pg_advisory_xact_lock(hashtextextended('exosphere seal', 0))";
    SEALS = "SELECT key_id, sealed FROM seal ORDER BY key_id";
    /// Waits for transactions that encrypt under the key.
    SET_SEAL = "INSERT INTO seal (key_id, sealed) VALUES ($1, $2) ON CONFLICT (key_id) DO UPDATE SET sealed = excluded.sealed";
    /// Reads the check value of a key, and locks it against changes until this transaction ends.
    SEAL = "SELECT key_id, sealed FROM seal WHERE key_id = $1",
    postgres "SELECT key_id, sealed FROM seal WHERE key_id = $1 FOR SHARE";
    REMOVE_SEALS = "DELETE FROM seal WHERE key_id <> $1";
    SEALED_OTHERWISE = "SELECT COUNT(*) FROM secret WHERE key_id <> $1";
    ANY_SECRET = "SELECT namespace, graph, name, sealed, key_id FROM secret LIMIT 1";
    /// Reads a page of secrets, after a key.
    SECRETS = "SELECT namespace, graph, name, sealed, key_id FROM secret \
               WHERE (namespace, graph, name) > ($1, $2, $3) ORDER BY namespace, graph, name LIMIT $4";
    /// Reads and locks a page of the secrets under other keys than this one.
    SECRETS_TO_RESEAL = "SELECT namespace, graph, name, sealed, key_id FROM secret WHERE key_id <> $5 \
                         AND (namespace, graph, name) > ($1, $2, $3) ORDER BY namespace, graph, name LIMIT $4",
    postgres "SELECT namespace, graph, name, sealed, key_id FROM secret WHERE key_id <> $5 \
              AND (namespace, graph, name) > ($1, $2, $3) ORDER BY namespace, graph, name LIMIT $4 FOR UPDATE";
    RESEAL = "UPDATE secret SET sealed = $4, key_id = $5 WHERE namespace = $1 AND graph = $2 AND name = $3";
    /// Removes a secret, unless it has been set again.
    FORGET_SECRET = "DELETE FROM secret WHERE namespace = $1 AND graph = $2 AND name = $3 AND sealed = $4";

    // Reads of executions.
    RUN_INFO = "SELECT u.uuid, u.namespace, g.name, r.number, r.body, u.inputs, r.id, n.id FROM run u \
                JOIN graph g ON g.id = u.graph JOIN revision r ON r.id = u.revision \
                JOIN namespace n ON n.name = u.namespace WHERE u.id = $1";
    OUTPUTS_AT = "SELECT o.state, o.number, o.body FROM json_each($1) w \
                  JOIN output o ON o.state = w.value ->> 0 AND o.number = w.value ->> 1 WHERE octet_length(o.body) <= $2",
    postgres "SELECT o.state, o.number, o.body FROM json_array_elements($1::JSON) w \
              JOIN output o ON o.state = (w ->> 0)::BIGINT AND o.number = (w ->> 1)::BIGINT WHERE octet_length(o.body) <= $2";
    UNITE_SOURCE = "SELECT u.source, s.path, u.branches FROM unite u JOIN state s ON s.id = u.source WHERE u.state = $1";
    /// Reads the states that a unite gathers from: the ended ones below an execution at some nodes.
    MEMBERS = "SELECT id, node, path, status, outputs, kind, message FROM state \
               WHERE run = $1 AND path > $2 AND path < $3 AND status IN ('SUCCESS', 'ERRORED') \
               AND node IN (SELECT value FROM json_each($4)) ORDER BY path",
    postgres "SELECT id, node, path, status, outputs, kind, message FROM state \
              WHERE run = $1 AND path > $2 AND path < $3 AND status IN ('SUCCESS', 'ERRORED') \
              AND node IN (SELECT value::BIGINT FROM json_array_elements_text($4::JSON)) ORDER BY path";
    MEMBER_BYTES = "SELECT COALESCE(SUM(octet_length(o.body)), 0) FROM state s JOIN output o ON o.state = s.id \
                    WHERE s.run = $1 AND s.path > $2 AND s.path < $3 AND s.status = 'SUCCESS' \
                    AND s.node IN (SELECT value FROM json_each($4))",
    postgres "SELECT COALESCE(SUM(octet_length(o.body)), 0)::BIGINT FROM state s JOIN output o ON o.state = s.id \
              WHERE s.run = $1 AND s.path > $2 AND s.path < $3 AND s.status = 'SUCCESS' \
              AND s.node IN (SELECT value::BIGINT FROM json_array_elements_text($4::JSON))";
    MEMBER_OUTPUTS = "SELECT o.state, o.body FROM state s JOIN output o ON o.state = s.id \
                      WHERE s.run = $1 AND s.path > $2 AND s.path < $3 AND s.status = 'SUCCESS' \
                      AND s.node IN (SELECT value FROM json_each($4)) ORDER BY s.path, o.number",
    postgres "SELECT o.state, o.body FROM state s JOIN output o ON o.state = s.id \
              WHERE s.run = $1 AND s.path > $2 AND s.path < $3 AND s.status = 'SUCCESS' \
              AND s.node IN (SELECT value::BIGINT FROM json_array_elements_text($4::JSON)) ORDER BY s.path, o.number";
    MEMBER_SIZES = "SELECT o.state, o.number, octet_length(o.body) FROM state s JOIN output o ON o.state = s.id \
                    WHERE s.run = $1 AND s.path > $2 AND s.path < $3 AND s.status = 'SUCCESS' \
                    AND s.node IN (SELECT value FROM json_each($4)) ORDER BY s.path, o.number",
    postgres "SELECT o.state, o.number, octet_length(o.body)::BIGINT FROM state s JOIN output o ON o.state = s.id \
              WHERE s.run = $1 AND s.path > $2 AND s.path < $3 AND s.status = 'SUCCESS' \
              AND s.node IN (SELECT value::BIGINT FROM json_array_elements_text($4::JSON)) ORDER BY s.path, o.number";
    OUTPUTS = "SELECT body FROM output WHERE state = $1 ORDER BY number";
    OUTPUT_BYTES = "SELECT COALESCE(SUM(octet_length(body)), 0) FROM output WHERE state = $1",
    postgres "SELECT COALESCE(SUM(octet_length(body)), 0)::BIGINT FROM output WHERE state = $1";
    OUTPUT_SIZES = "SELECT state, number, octet_length(body) FROM output WHERE state = $1 ORDER BY number",
    postgres "SELECT state, number, octet_length(body)::BIGINT FROM output WHERE state = $1 ORDER BY number";
    /// Reads the statuses of several runs.
    RUN_STATUSES = "SELECT id, version, status, paused FROM run WHERE id IN (SELECT value FROM json_each($1))",
    postgres "SELECT id, version, status, paused FROM run WHERE id IN (SELECT value::BIGINT FROM json_array_elements_text($1::JSON))";

    // Reads of the API.
    /// Lists runs before a cursor, the newest first. Hosts take run numbers in blocks, so that a
    /// larger number is not always a later run's.
    RUNS = "SELECT u.id, u.uuid, g.name, r.number, u.status, u.paused, u.version, u.created_at, u.ended_at, u.states, u.succeeded, u.pruned, \
            u.errored, u.cancelled, u.retries, u.requeues, u.store_keys FROM run u JOIN graph g ON g.id = u.graph JOIN revision r ON r.id = u.revision \
            WHERE u.namespace = $1 AND (CAST($2 AS TEXT) IS NULL OR g.name = $2) AND (CAST($3 AS TEXT) IS NULL OR u.status = $3) \
            AND (CAST($4 AS BIGINT) IS NULL OR (u.created_at, u.id) < (SELECT b.created_at, b.id FROM run b WHERE b.id = $4)) \
            ORDER BY u.created_at DESC, u.id DESC LIMIT $5";
    /// Reads a run. (`IS NOT DISTINCT FROM` stops the planner from choosing the index of a
    /// namespace's runs while it has no statistics.)
    RUN = "SELECT u.id, u.uuid, g.name, r.number, u.status, u.paused, u.version, u.created_at, u.ended_at, u.states, u.succeeded, u.pruned, \
           u.errored, u.cancelled, u.retries, u.requeues, u.store_keys FROM run u JOIN graph g ON g.id = u.graph JOIN revision r ON r.id = u.revision \
           WHERE u.uuid = $2 AND u.namespace IS NOT DISTINCT FROM $1";
    /// Lists states of a run in path order, from the first path on and after the second. Details
    /// are read only for failures, because those of a pruned state may have megabytes. The page
    /// ends at a number of bytes of failures.
    STATES = page_of_states!("($2 IS NULL OR node IN (SELECT value FROM json_each($2))) AND ($3 IS NULL OR status = $3) \
              AND path >= $4 AND ($5 IS NULL OR path > $5)"),
    postgres page_of_states!("($2::TEXT IS NULL OR node IN (SELECT value::BIGINT FROM json_array_elements_text($2::JSON))) \
              AND ($3::TEXT IS NULL OR status = $3) AND path >= $4 AND ($5::TEXT IS NULL OR path > $5)");
    STATE = concat!("SELECT ", state_view!("details"), " FROM state WHERE run = $1 AND id = $2 AND ", seen!("state"));
    /// Reads a page of a succeeded state's outputs; those of any other state are staged.
    OUTPUTS_PAGE = "SELECT body FROM output WHERE state = $1 AND number >= $2 \
                    AND EXISTS (SELECT 1 FROM state s WHERE s.id = $1 AND s.status = 'SUCCESS') ORDER BY number LIMIT $3";
    /// Returns the bytes of a state's first outputs, of its details and of its attempts.
    STATE_SIZE = "SELECT (SELECT COALESCE(SUM(octet_length(body)), 0) FROM output WHERE state = $1 AND number < $2) \
                  + (SELECT COALESCE(octet_length(details), 0) FROM state WHERE id = $1) \
                  + (SELECT COALESCE(SUM(COALESCE(octet_length(logs), 0) + COALESCE(octet_length(details), 0)), 0) FROM attempt WHERE state = $1)",
    postgres "SELECT ((SELECT COALESCE(SUM(octet_length(body)), 0) FROM output WHERE state = $1 AND number < $2) \
              + (SELECT COALESCE(octet_length(details), 0) FROM state WHERE id = $1) \
              + (SELECT COALESCE(SUM(COALESCE(octet_length(logs), 0) + COALESCE(octet_length(details), 0)), 0) FROM attempt WHERE state = $1))::BIGINT";
    /// Returns the bytes of a run's store.
    STORE_SIZE = "SELECT COALESCE(SUM(octet_length(key) + octet_length(value)), 0) FROM entry WHERE run = $1",
    postgres "SELECT COALESCE(SUM(octet_length(key) + octet_length(value)), 0)::BIGINT FROM entry WHERE run = $1";
    ATTEMPTS = "SELECT number, ended_at, outcome, kind, message, details, logs, cpu_us, memory_bytes, host_calls, input_bytes, output_bytes \
                FROM attempt WHERE state = $1 ORDER BY number";

    // Reads of a check, all in one snapshot.
    MIGRATED = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = '_sqlx_migrations'",
    postgres "SELECT COUNT(*) FROM pg_class WHERE oid = to_regclass('_sqlx_migrations')";
    MIGRATIONS = "SELECT version, checksum, CAST(CASE WHEN success THEN 1 ELSE 0 END AS BIGINT) FROM _sqlx_migrations ORDER BY version";
    CHECK_COMPONENTS = "SELECT c.digest, c.nodes, c.imports, c.size, CAST(octet_length(c.bytes) AS BIGINT), \
                        (SELECT group_concat(e.node, ',') FROM (SELECT node FROM exported WHERE digest = c.digest ORDER BY node) e) \
                        FROM component c",
    postgres "SELECT c.digest, c.nodes, c.imports, c.size, CAST(octet_length(c.bytes) AS BIGINT), \
              (SELECT string_agg(e.node, ',' ORDER BY e.node) FROM exported e WHERE e.digest = c.digest) FROM component c";
    CHECK_EXPORTED = "SELECT e.digest || '/' || e.node, c.digest FROM exported e LEFT JOIN component c ON c.digest = e.digest";
    CHECK_PLUGINS = "SELECT p.id, p.namespace, p.name, p.digest, c.digest FROM plugin p LEFT JOIN component c ON c.digest = p.digest";
    CHECK_GRAPHS = "SELECT g.id, g.namespace, g.name, g.current, r.graph FROM graph g LEFT JOIN revision r ON r.id = g.current";
    CHECK_REVISIONS = "SELECT r.id, r.graph, r.number, r.digest, r.body, g.id FROM revision r LEFT JOIN graph g ON g.id = r.graph";
    /// Encrypted values are not checked, because only a host has the keys.
    CHECK_SECRETS = "SELECT namespace || '/' || graph || '/' || name, namespace, graph, name, key_id FROM secret";
    CHECK_SEALS = "SELECT key_id, key_id FROM seal";
    CHECK_NAMESPACES = "SELECT id, name FROM namespace";
    CHECK_CAPABILITIES = "SELECT namespace || '/' || plugin, namespace, plugin, grants FROM capability";
    CHECK_NUMBERS = "SELECT name, next, CASE name WHEN 'state' THEN COALESCE((SELECT MAX(id) FROM state), 0) \
                     WHEN 'run' THEN COALESCE((SELECT MAX(id) FROM run), 0) ELSE COALESCE((SELECT MAX(id) FROM session), 0) END \
                     FROM number WHERE name IN ('state', 'run', 'session')";
    /// Reads a page of runs by number, each with the rows that it refers to.
    CHECK_RUNS = "SELECT u.id, u.uuid, u.namespace, u.graph, u.revision, u.status, u.version, u.inputs, u.ended_at, u.open, u.failed, \
                  u.states, u.succeeded, u.pruned, u.errored, u.cancelled, u.retries, u.requeues, u.store_keys, u.store_bytes, \
                  u.store_version, u.paused, u.unswept, u.start_key, g.namespace, r.graph, u.start_digest, u.redrive FROM run u \
                  LEFT JOIN graph g ON g.id = u.graph LEFT JOIN revision r ON r.id = u.revision \
                  WHERE u.id > $1 ORDER BY u.id LIMIT $2";
    /// Reads the graphs of some runs.
    CHECK_BODIES = "SELECT id, body FROM revision WHERE id IN (SELECT revision FROM run WHERE id >= $1 AND id <= $2)";
    /// Returns the sizes of some runs' stores. On Postgres a text may be longer than the original:
    /// see `postgres::escaped`.
    CHECK_STORES = "SELECT run, COUNT(*), SUM(octet_length(key) + octet_length(value)), MAX(version) \
                    FROM entry WHERE run >= $1 AND run <= $2 GROUP BY run",
    postgres "SELECT run, COUNT(*), SUM(octet_length(key) + octet_length(value) \
              - length(key || value) + length(replace(key || value, chr(1), '')))::BIGINT, MAX(version) \
              FROM entry WHERE run >= $1 AND run <= $2 GROUP BY run";
    /// Reads the states of some runs in the order in which the check walks a run, each with its
    /// counts if it is a unite.
    CHECK_STATES = concat!("SELECT s.id, s.run, s.node, s.path, s.status, s.session, s.fence, s.attempt, s.retries, s.requeues, s.losses, \
                    s.conflicts, s.refs, s.scopes, s.fixed, s.ended_at, s.outputs, s.kind, s.details, s.parked, s.begun, \
                    n.state, n.source, n.branches, n.open, n.failed, n.arrived, s.due_at, s.delayed \
                    FROM state s LEFT JOIN unite n ON n.state = s.id WHERE s.run >= $1 AND s.run <= $2 AND ", seen!("s"), " \
                    ORDER BY s.run, s.path, s.id");
    CHECK_STRAY_STATES = "SELECT s.id, s.run FROM state s WHERE NOT EXISTS (SELECT 1 FROM run u WHERE u.id = s.run) ORDER BY s.id";
    CHECK_STRAY_UNITES = "SELECT n.state, n.state FROM unite n WHERE NOT EXISTS (SELECT 1 FROM state s WHERE s.id = n.state) ORDER BY n.state";
    CHECK_STRAY_ENTRIES = "SELECT e.key, e.run FROM entry e WHERE NOT EXISTS (SELECT 1 FROM run u WHERE u.id = e.run) ORDER BY e.run, e.key";
    /// Reads states held by a session that never existed.
    CHECK_STRAY_SESSIONS = "SELECT s.id, s.session, u.uuid FROM state s LEFT JOIN run u ON u.id = s.run WHERE s.status = 'QUEUED' \
                            AND s.session IS NOT NULL AND NOT EXISTS (SELECT 1 FROM session o WHERE o.id = s.session) ORDER BY s.id";
    /// Reads states in the wrong queue: neither that of their run's namespace nor that of a staging
    /// execution of their run.
    CHECK_TURNS = "SELECT s.id, s.namespace, u.uuid FROM state s JOIN run u ON u.id = s.run JOIN namespace n ON n.name = u.namespace \
                   WHERE s.namespace <> n.id AND (s.namespace >= 0 OR s.status NOT IN ('CREATED', 'CANCELLED') \
                   OR NOT EXISTS (SELECT 1 FROM state p WHERE p.id = -s.namespace AND p.run = s.run)) ORDER BY s.id";
    /// Reads states staged for an execution that has not ended and has no staging row.
    CHECK_STRAY_STAGED = "SELECT s.id, s.namespace FROM state s WHERE s.namespace < 0 \
                          AND NOT EXISTS (SELECT 1 FROM state p WHERE p.id = -s.namespace AND p.status = 'SUCCESS') \
                          AND NOT EXISTS (SELECT 1 FROM staged g WHERE g.state = -s.namespace) ORDER BY s.id";
    CHECK_STRAY_STAGES = "SELECT g.state, g.state FROM staged g WHERE NOT EXISTS \
                          (SELECT 1 FROM state s WHERE s.id = g.state AND s.status <> 'SUCCESS' AND s.fence >= g.fence AND s.run = g.run) ORDER BY g.state";
    CHECK_STRAY_FIXED = "SELECT f.state, f.state FROM staged_fixed f WHERE NOT EXISTS \
                         (SELECT 1 FROM state s WHERE s.id = f.state AND s.status = 'SUCCESS') ORDER BY f.state";
    /// Reads states whose stored outputs differ from their output count.
    CHECK_OUTPUT_COUNTS = "SELECT o.state, o.count, o.first, o.last, s.outputs, CASE WHEN s.id IS NULL THEN NULL ELSE COALESCE(u.uuid, '?') END \
                           FROM (SELECT state, COUNT(*) AS count, MIN(number) AS first, MAX(number) AS last FROM output GROUP BY state) o \
                           LEFT JOIN state s ON s.id = o.state LEFT JOIN run u ON u.id = s.run \
                           WHERE (s.outputs IS NULL AND NOT EXISTS (SELECT 1 FROM staged g WHERE g.state = o.state)) \
                           OR s.outputs <> o.count OR (s.outputs IS NOT NULL AND (o.first <> 0 OR o.last <> o.count - 1)) ORDER BY o.state";
    CHECK_MISSING_OUTPUTS = "SELECT s.id, s.outputs, u.uuid FROM state s LEFT JOIN run u ON u.id = s.run WHERE s.outputs > 0 \
                             AND NOT EXISTS (SELECT 1 FROM output o WHERE o.state = s.id) ORDER BY s.id";
    CHECK_OUTPUTS = "SELECT state, number, body FROM output";
    CHECK_ATTEMPTS = "SELECT a.state, a.number, a.outcome, a.kind, a.details, a.logs, s.attempt FROM attempt a LEFT JOIN state s ON s.id = a.state";
}

/// Asks for any answer.
pub(crate) const PING: &str = "SELECT 1";

/// The heartbeat of a host on Postgres. Renews its session and expires overdue ones. Returns
/// whether the session is alive, when the next state is due, and which sessions hold states that
/// have ended, or never existed. A session that was overdue itself expires none: the database may
/// have been unreachable for the other hosts, too.
pub(crate) const BEAT: &str = concat!(
    "WITH RECURSIVE ",
    claimable!(),
    ", clock AS (",
    now!(),
    " AS now), \
     me AS (SELECT expires_at FROM session WHERE id = $1 AND ended_at IS NULL), \
     renewed AS (UPDATE session SET expires_at = clock.now + $2 FROM clock \
                 WHERE id = $1 AND ended_at IS NULL RETURNING id), \
     ended AS (UPDATE session SET ended_at = clock.now FROM clock, me \
               WHERE session.ended_at IS NULL AND session.id <> $1 \
               AND session.expires_at < clock.now AND me.expires_at >= clock.now RETURNING session.id) \
     SELECT clock.now, (SELECT COUNT(*) FROM renewed), \
     (SELECT MIN(due_at) FROM (SELECT due_at FROM ready UNION ALL SELECT due_at FROM delayed) all_due), \
     ARRAY(SELECT DISTINCT s.session FROM state s WHERE s.status = 'QUEUED' \
           AND (s.session IN (SELECT id FROM ended) OR NOT EXISTS \
                (SELECT 1 FROM session WHERE session.id = s.session AND session.ended_at IS NULL))), \
     ARRAY(SELECT id FROM ended) FROM clock"
);

/// The channel of the hosts' notifications.
pub(crate) const CHANNEL: &str = "exosphere";

/// Sends a notification on [`CHANNEL`].
pub(crate) const NOTIFY: &str = "SELECT pg_notify($1, $2)";

/// Reads the settings by which commits may be lost with the machine.
pub(crate) const DURABILITY: &str =
    "SELECT current_setting('synchronous_commit'), current_setting('fsync')";

#[cfg(test)]
mod tests;
