//! States that have not ended, with what tells why: their host, and their last attempt.
//!
//! A run may have millions of states: each statement goes along an index of a few of them. `+ 0`
//! keeps a planner from the index of all states of the run.
//!
//! Not here: the decision on a reason (the orchestrator).

use crate::dialect::Statement;

/// States `s`, with their sessions, hosts and last attempts; the first argument tells whether the
/// session `x` is alive.
macro_rules! open_states {
    (@ $alive:expr, $where:expr) => {
        concat!(
            "SELECT s.id, s.node, s.path, s.status, s.created_at, s.due_at, s.retries, s.delayed, \
                 s.held_back, s.scopes, s.session, s.began_at, h.name, x.ended_at, ",
            $alive,
            ", a.outcome, a.kind \
             FROM state s \
             LEFT JOIN session x ON x.id = s.session \
             LEFT JOIN host h ON h.folder = x.host \
             LEFT JOIN attempt a ON a.state = s.id AND a.number = s.attempt \
             WHERE ",
            $where
        )
    };
    // On SQLite no host sends a heartbeat.
    (sqlite $where:expr) => {
        open_states!(@ "CASE WHEN x.id IS NOT NULL AND x.ended_at IS NULL THEN 1 ELSE 0 END", $where)
    };
    (postgres $where:expr) => {
        open_states!(
            @ concat!(
                "CASE WHEN x.ended_at IS NULL AND x.expires_at >= (",
                now!(),
                ") THEN 1::BIGINT ELSE 0 END"
            ),
            $where
        )
    };
}

/// The claimed states of a run: those of all runs are few.
macro_rules! queued_of_run {
    () => {
        "s.status = 'QUEUED' AND s.session > 0 AND s.run + 0 = $1 LIMIT $2"
    };
}

/// The states of a run that wait for a time, held back or not.
macro_rules! delayed_of_run {
    () => {
        "s.run = $1 AND s.status = 'CREATED' AND s.delayed = 1 ORDER BY s.due_at, s.id LIMIT $2"
    };
}

/// The states of a paused run that would be ready otherwise.
macro_rules! held_back_of_run {
    () => {
        "s.run = $1 AND s.status = 'CREATED' AND s.held_back = 1 AND s.delayed = 0 \
         ORDER BY s.due_at, s.id LIMIT $2"
    };
}

/// The ready states of a run of the namespace `$3`.
macro_rules! ready_of_run {
    () => {
        concat!(
            "s.namespace = $3 AND s.run = $1 AND ",
            ready!(),
            " ORDER BY s.due_at, s.id LIMIT $2"
        )
    };
}

statements! {
    /// States by their numbers.
    OPEN_STATES = open_states!(sqlite "s.id IN (SELECT value FROM json_each($1))"),
    postgres open_states!(
        postgres "s.id = ANY (ARRAY(SELECT value::BIGINT FROM json_array_elements_text($1::JSON)))"
    );
    /// The claimed states of a run.
    QUEUED_STATES = open_states!(sqlite queued_of_run!()),
    postgres open_states!(postgres queued_of_run!());
    /// The first states of a run that wait for a time.
    DELAYED_STATES = open_states!(sqlite delayed_of_run!()),
    postgres open_states!(postgres delayed_of_run!());
    /// The first states of a paused run that would be ready otherwise.
    HELD_BACK_STATES = open_states!(sqlite held_back_of_run!()),
    postgres open_states!(postgres held_back_of_run!());
    /// The number of states of a run that wait for a time.
    DELAYED_COUNT =
        "SELECT COUNT(*) FROM state WHERE run = $1 AND status = 'CREATED' AND delayed = 1";
    /// The first ready states of a run.
    READY_STATES = open_states!(sqlite ready_of_run!()),
    postgres open_states!(postgres ready_of_run!());
    /// The number of ready states of a namespace, at most `$2`.
    READY_COUNT = concat!(
        "SELECT COUNT(*) FROM (SELECT 1 FROM state s WHERE s.namespace = $1 AND ",
        ready!(),
        " LIMIT $2) ready"
    );
    /// The counters of unites.
    UNITE_COUNTS =
        "SELECT state, open, failed, arrived FROM unite \
         WHERE state IN (SELECT value FROM json_each($1))",
    postgres
        "SELECT state, open, failed, arrived FROM unite \
         WHERE state = ANY (ARRAY(SELECT value::BIGINT FROM json_array_elements_text($1::JSON)))";
}
