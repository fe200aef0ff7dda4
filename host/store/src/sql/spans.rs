//! Reads of ended attempts for their spans, and of the states around them.

use super::states::usage_columns;
use crate::dialect::Statement;

/// The ranges of states of a JSON list, each with its first and last number, as rows `w`.
macro_rules! ranges {
    (sqlite $state:literal) => {
        concat!("json_each($1) w JOIN ", $state, " BETWEEN w.value ->> 0 AND w.value ->> 1")
    };
    (postgres $state:literal) => {
        concat!(
            "json_array_elements($1::JSON) w JOIN ",
            $state,
            " BETWEEN (w ->> 0)::BIGINT AND (w ->> 1)::BIGINT"
        )
    };
}

/// The states in `$1` whose last attempt a session executed, the latest ends first.
macro_rules! ended_states {
    ($ranges:expr) => {
        concat!(
            "SELECT s.id, s.attempt, s.run, s.node, s.path, s.began_at, s.ended_at, s.status, s.kind, \
                 CASE WHEN s.kind = 'host-lost' THEN s.details END, ",
            usage_columns!(names),
            " FROM ",
            $ranges,
            " WHERE s.last_session = $2 AND s.ended_at IS NOT NULL \
             ORDER BY s.ended_at DESC, s.id LIMIT $3"
        )
    };
}

/// The attempts at the states in `$1` that a session executed, the latest ends first.
macro_rules! ended_attempts {
    ($ranges:expr) => {
        concat!(
            "SELECT a.state, a.number, (SELECT s.run FROM state s WHERE s.id = a.state), \
                 (SELECT s.node FROM state s WHERE s.id = a.state), \
                 (SELECT s.path FROM state s WHERE s.id = a.state), \
                 a.began_at, a.ended_at, a.outcome, a.kind, \
                 CASE WHEN a.kind = 'host-lost' THEN a.details END, ",
            usage_columns!(names),
            " FROM ",
            $ranges,
            " WHERE a.session = $2 \
             ORDER BY a.ended_at DESC, a.state, a.number LIMIT $3"
        )
    };
}

statements! {
    /// Reads states whose last attempt a session executed.
    ENDED_STATES = ended_states!(ranges!(sqlite "state s ON s.id")),
    postgres ended_states!(ranges!(postgres "state s ON s.id"));
    /// Reads attempts that a session executed.
    ENDED_ATTEMPTS = ended_attempts!(ranges!(sqlite "attempt a ON a.state")),
    postgres ended_attempts!(ranges!(postgres "attempt a ON a.state"));
    /// Returns the numbers of the first and the last one of the newest `$1` states. Hosts take
    /// numbers in blocks, so that the numbers between them are many more.
    NEWEST_STATES =
        "SELECT COALESCE(MIN(id), 0), COALESCE(MAX(id), 0) \
         FROM (SELECT id FROM state ORDER BY id DESC LIMIT $1) newest";
    /// Reads the numbers of the latest attempts at states, by run and path.
    ATTEMPTS_AT =
        "SELECT s.run, s.path, s.attempt \
         FROM json_each($1) w \
         JOIN state s ON s.run = w.value ->> 0 AND s.path = w.value ->> 1",
    postgres
        "SELECT s.run, s.path, s.attempt \
         FROM json_array_elements($1::JSON) w \
         JOIN state s ON s.run = (w ->> 0)::BIGINT AND s.path = w ->> 1";
    /// Reads the first `$5` of the succeeded states of some nodes between two paths, of which it
    /// examines the first `$6`.
    SUCCESSES_BELOW =
        "SELECT path, attempt \
         FROM (SELECT path, attempt, node, status FROM state \
             WHERE run = $1 AND path > $2 AND path < $3 \
             ORDER BY path LIMIT $6) examined \
         WHERE status = 'SUCCESS' AND node IN (SELECT value FROM json_each($4)) \
         ORDER BY path LIMIT $5",
    postgres
        "SELECT path, attempt \
         FROM (SELECT path, attempt, node, status FROM state \
             WHERE run = $1 AND path > $2 AND path < $3 \
             ORDER BY path LIMIT $6) examined \
         WHERE status = 'SUCCESS' AND node IN \
             (SELECT value::BIGINT FROM json_array_elements_text($4::JSON)) \
         ORDER BY path LIMIT $5";
    /// Reads a session of a host and those before it, the newest first.
    SESSIONS_UP_TO =
        "SELECT b.id, b.started_at, b.ended_at \
         FROM session s \
         JOIN session b ON b.host = s.host AND b.id <= s.id \
         WHERE s.id = $1 \
         ORDER BY b.id DESC LIMIT $2";
}
