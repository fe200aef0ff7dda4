//! The logs of a run's attempts, in the order in which the attempts ended.
//!
//! Not here: the logs of one state, which are read with its attempts (`states`).

use crate::dialect::Statement;

statements! {
    /// Reads logs of a run after an attempt, or of one of its states, up to a number and to bytes.
    /// The first one is read in any case.
    RUN_LOGS =
        "SELECT ended_at, state, number, path, node, outcome, logs \
         FROM (SELECT page.*, SUM(octet_length(logs)) OVER (ORDER BY ended_at, state, number) \
                 - octet_length(logs) AS bytes_ahead \
             FROM (SELECT a.ended_at, a.state, a.number, s.path, s.node, a.outcome, a.logs \
                 FROM attempt a JOIN state s ON s.id = a.state \
                 WHERE a.log_run = $1 AND (a.ended_at, a.state, a.number) > ($2, $3, $4) \
                     AND ($5 IS NULL OR a.state = $5) \
                 ORDER BY a.ended_at, a.state, a.number LIMIT $6) page) sized \
         WHERE bytes_ahead < $7 \
         ORDER BY ended_at, state, number",
    postgres
        "SELECT ended_at, state, number, path, node, outcome, logs \
         FROM (SELECT page.*, SUM(octet_length(logs)) OVER (ORDER BY ended_at, state, number) \
                 - octet_length(logs) AS bytes_ahead \
             FROM (SELECT a.ended_at, a.state, a.number, s.path, s.node, a.outcome, a.logs \
                 FROM attempt a JOIN state s ON s.id = a.state \
                 WHERE a.log_run = $1 AND (a.ended_at, a.state, a.number) > ($2, $3, $4) \
                     AND ($5::BIGINT IS NULL OR a.state = $5) \
                 ORDER BY a.ended_at, a.state, a.number LIMIT $6) page) sized \
         WHERE bytes_ahead < $7 \
         ORDER BY ended_at, state, number";
}
