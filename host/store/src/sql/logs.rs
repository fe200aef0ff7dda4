//! The logs of a run's attempts, in the order in which the attempts ended.
//!
//! Not here: the logs of one state, which are read with its attempts (`states`).

use crate::dialect::Statement;

/// The logs of a run after an attempt, or of one of its states. Paths are read for the page alone.
macro_rules! run_logs {
    ($state:literal) => {
        concat!(
            "SELECT sized.ended_at, sized.state, sized.number, s.path, s.node, outcome, logs \
             FROM (SELECT page.*, SUM(octet_length(logs)) OVER (ORDER BY ended_at, state, number) \
                     - octet_length(logs) AS bytes_ahead \
                 FROM (SELECT ended_at, state, number, outcome, logs \
                     FROM attempt \
                     WHERE log_run = $1 AND (ended_at, state, number) > ($2, $3, $4) \
                         AND (",
            $state,
            " IS NULL OR state = $5) \
                     ORDER BY ended_at, state, number LIMIT $6) page) sized \
             JOIN state s ON s.id = sized.state \
             WHERE bytes_ahead < $7 \
             ORDER BY sized.ended_at, sized.state, sized.number"
        )
    };
}

statements! {
    /// Reads logs of a run after an attempt, or of one of its states, up to a number and to bytes.
    /// The first one is read in any case.
    RUN_LOGS = run_logs!("$5"),
    postgres run_logs!("$5::BIGINT");
}
