//! Reads over all states of a run, and over the runs of a graph: times, failures and costs. Each
//! goes along an index or a range of the run's own rows, and is bounded.
//!
//! Not here: lists of runs and states, which are read in pages.

use crate::dialect::Statement;

/// The condition of an even sample: one of `$2` states. The number of a state is scrambled, because
/// the states of two nodes may take turns in the order of numbers. SQLite finds the number in the
/// index, and reads only the rows of the sample.
macro_rules! sampled {
    () => {
        "($2 = 1 OR id % 1048576 * 2654435761 / 4096 % 1048576 % $2 = 0)"
    };
}

/// The runs of a graph with one status within `$2..` and `$4..`, the newest `$6` of them.
macro_rules! costs_of_status {
    ($status:literal) => {
        concat!(
            "SELECT * FROM (SELECT status, created_at, due_at, ended_at, cpu_us, memory_bytes, id \
             FROM run WHERE graph = (SELECT g.id FROM graph g WHERE g.namespace = $1 \
                 AND g.name = $7) AND status = '",
            $status,
            "' AND (created_at, id) >= ($2, $3) AND (created_at, id) < ($4, $5) \
             ORDER BY created_at DESC, id DESC LIMIT $6) of_status"
        )
    };
}

statements! {
    /// Reads the times of a sample of a run's states, `$3` at most.
    STATE_TIMES = concat!(
        "SELECT id, node, last_session, status, due_at, began_at, ended_at, attempt, retries \
         FROM state WHERE run = $1 AND ",
        sampled!(),
        " AND ",
        seen!("state"),
        " LIMIT $3"
    );
    /// Reads the times of the attempts of some states, `$2` at most.
    ATTEMPT_TIMES =
        "SELECT state, number, session, began_at, ended_at, outcome FROM attempt \
         WHERE state IN (SELECT value FROM json_each($1)) LIMIT $2",
    postgres
        "SELECT state, number, session, began_at, ended_at, outcome FROM attempt \
         WHERE state = ANY (ARRAY(SELECT value::BIGINT FROM json_array_elements_text($1::JSON))) \
         LIMIT $2";
    /// Reads a sample of a run's failed states along their own index, `$3` at most, with the first
    /// `$4` characters of their messages.
    FAILED_STATE_TIMES = concat!(
        "SELECT id, kind, CASE WHEN $4 > 0 THEN substr(COALESCE(message, ''), 1, $4) END, ended_at \
         FROM state INDEXED BY state_errored WHERE run = $1 AND status = 'ERRORED' AND ",
        sampled!(),
        " AND ",
        seen!("state"),
        " LIMIT $3"
    ),
    postgres concat!(
        "SELECT id, kind, \
             CASE WHEN $4 > 0 THEN substr(COALESCE(message, ''), 1, $4::INT) END, ended_at \
         FROM state WHERE run = $1 AND status = 'ERRORED' AND ",
        sampled!(),
        " AND ",
        seen!("state"),
        " LIMIT $3"
    );
    /// Reads the paths of states by their numbers.
    STATE_PATHS =
        "SELECT id, path FROM state WHERE id IN (SELECT value FROM json_each($1))",
    postgres
        "SELECT id, path FROM state \
         WHERE id = ANY (ARRAY(SELECT value::BIGINT FROM json_array_elements_text($1::JSON)))";
    /// Reads the numbers of the hosts of sessions.
    SESSION_HOSTS =
        "SELECT l.id, h.id FROM session l JOIN host h ON h.folder = l.host \
         WHERE l.id IN (SELECT value FROM json_each($1))",
    postgres
        "SELECT l.id, h.id FROM session l JOIN host h ON h.folder = l.host \
         WHERE l.id = ANY (ARRAY(SELECT value::BIGINT FROM json_array_elements_text($1::JSON)))";
    /// Reads the newest runs of a graph within an interval, `$6` at most, for its statistics.
    RUN_COSTS = concat!(
        "SELECT status, created_at, due_at, ended_at, cpu_us, memory_bytes FROM (",
        costs_of_status!("RUNNING"),
        " UNION ALL ",
        costs_of_status!("SUCCESS"),
        " UNION ALL ",
        costs_of_status!("FAILED"),
        " UNION ALL ",
        costs_of_status!("CANCELLED"),
        ") listed ORDER BY created_at DESC, id DESC LIMIT $6"
    );
    /// Finds the newest successful runs of the graph of a run that were started before it, `$2` at
    /// most.
    EARLIER_SUCCESSES =
        "SELECT u.id, u.uuid FROM run u \
         WHERE u.graph = (SELECT graph FROM run WHERE id = $1) AND u.status = 'SUCCESS' \
             AND (u.created_at, u.id) < ((SELECT created_at FROM run WHERE id = $1), $1) \
         ORDER BY u.created_at DESC, u.id DESC LIMIT $2";
}
