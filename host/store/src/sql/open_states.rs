//! States that have not ended, with what tells why: their host, and their last attempt.
//!
//! A run may have millions of states: each statement goes along an index of a few of them. `+ 0`
//! keeps a planner from the index of all states of the run.
//!
//! Not here: the decision on a reason (the orchestrator).

use crate::dialect::Statement;

/// An open state `s`, with its session, host and last attempt.
macro_rules! open_state {
    ($alive:expr, $where:literal) => {
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
}

/// The test whether a session is alive on SQLite, where no host sends a heartbeat.
macro_rules! alive_on_sqlite {
    () => {
        "CASE WHEN x.id IS NOT NULL AND x.ended_at IS NULL THEN 1 ELSE 0 END"
    };
}

macro_rules! alive_on_postgres {
    () => {
        concat!(
            "CASE WHEN x.ended_at IS NULL AND x.expires_at >= (",
            now!(),
            ") THEN 1::BIGINT ELSE 0 END"
        )
    };
}

statements! {
    /// One state of a run.
    OPEN_STATE = open_state!(alive_on_sqlite!(), "s.id = $1"),
    postgres open_state!(alive_on_postgres!(), "s.id = $1");
    /// The states of a run that hosts have claimed: those of all runs are few.
    QUEUED_STATES = open_state!(
        alive_on_sqlite!(),
        "s.status = 'QUEUED' AND s.session > 0 AND s.run + 0 = $1 LIMIT $2"
    ),
    postgres open_state!(
        alive_on_postgres!(),
        "s.status = 'QUEUED' AND s.session > 0 AND s.run + 0 = $1 LIMIT $2"
    );
    /// The first states of a run that wait for a time.
    DELAYED_STATES = open_state!(
        alive_on_sqlite!(),
        "s.run = $1 AND s.status = 'CREATED' AND s.delayed = 1 ORDER BY s.due_at, s.id LIMIT $2"
    ),
    postgres open_state!(
        alive_on_postgres!(),
        "s.run = $1 AND s.status = 'CREATED' AND s.delayed = 1 ORDER BY s.due_at, s.id LIMIT $2"
    );
    /// The number of states of a run that wait for a time.
    DELAYED_COUNT =
        "SELECT COUNT(*) FROM state WHERE run = $1 AND status = 'CREATED' AND delayed = 1";
    /// The first ready states of a run of the namespace `$3`.
    READY_STATES = open_state!(
        alive_on_sqlite!(),
        "s.namespace = $3 AND s.run = $1 AND s.status = 'CREATED' AND s.held_back = 0 \
             AND s.delayed = 0 ORDER BY s.due_at, s.id LIMIT $2"
    ),
    postgres open_state!(
        alive_on_postgres!(),
        "s.namespace = $3 AND s.run = $1 AND s.status = 'CREATED' AND s.held_back = 0 \
             AND s.delayed = 0 ORDER BY s.due_at, s.id LIMIT $2"
    );
    /// The number of ready states of a namespace, at most `$2`.
    READY_COUNT =
        "SELECT COUNT(*) FROM (SELECT 1 FROM state \
         WHERE namespace = $1 AND status = 'CREATED' AND held_back = 0 AND delayed = 0 \
         LIMIT $2) ready";
    /// The counters of a unite.
    UNITE_COUNTS = "SELECT open, failed, arrived FROM unite WHERE state = $1";
}
