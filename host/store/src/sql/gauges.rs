//! Figures of the whole database, for the metrics of a host. Each is bounded: it reads at most so
//! many index entries, whatever the database holds.

use crate::dialect::Statement;

/// The number of due states, and the time from which on the first of them is due; then the other
/// figures. States of paused runs and namespaces are left out. At most `$2` ready states are counted,
/// and the delayed ones that `$delayed` selects.
macro_rules! due_states {
    ($now:expr, $hosts:expr, $bytes:expr, $delayed:expr) => {
        concat!(
            "SELECT CAST(COALESCE(SUM(d.states), 0) AS BIGINT), MIN(d.due_at), ",
            $now,
            ", ",
            $hosts,
            ", ",
            $bytes,
            " FROM (SELECT q.states, q.due_at FROM (SELECT g.states, g.due_at, ",
            owner_of_queue!("g"),
            " AS owner FROM (SELECT r.namespace, COUNT(*) AS states, MIN(r.due_at) AS due_at \
             FROM (SELECT s.namespace, s.due_at FROM state s WHERE ",
            ready!(),
            " LIMIT $2) r GROUP BY r.namespace) g) q \
             WHERE (SELECT COUNT(*) FROM namespace n \
                 WHERE n.id = q.owner AND n.paused_at IS NULL) = 1 \
             UNION ALL SELECT 1, x.due_at FROM (",
            $delayed,
            " LIMIT $2) x) d"
        )
    };
}

statements! {
    /// Reads the number of due states, since when the first of them is due, the present time, the
    /// number of hosts that are alive, and the size of the database in bytes. On Postgres the
    /// database's own clock counts.
    DATABASE_GAUGES = due_states!(
        "$1",
        "1",
        "(SELECT c.page_count * s.page_size FROM pragma_page_count c, pragma_page_size s)",
        // A cross join keeps the order, so that each namespace takes a range of the index.
        concat!(
            "SELECT s.due_at FROM namespace n CROSS JOIN state s WHERE n.paused_at IS NULL AND ",
            delayed!(),
            " AND s.namespace = n.id AND s.due_at <= $1"
        )
    ),
    postgres due_states!(
        concat!("GREATEST($1::BIGINT, (", now!(), "))"),
        concat!(
            "(SELECT COUNT(*) FROM session WHERE ended_at IS NULL AND expires_at >= (",
            now!(),
            "))"
        ),
        "pg_database_size(current_database())",
        concat!(
            "SELECT s.due_at FROM namespace n CROSS JOIN LATERAL (SELECT s.due_at FROM state s WHERE ",
            delayed!(),
            " AND s.namespace = n.id AND s.due_at <= GREATEST($1::BIGINT, (",
            now!(),
            ")) ORDER BY s.due_at LIMIT $2) s WHERE n.paused_at IS NULL"
        )
    );
}
