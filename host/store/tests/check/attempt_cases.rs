//! Corruption cases of attempts. One names its run if it has a log, and else none.

use crate::corruption_cases::Case;

pub const ATTEMPTS: &[Case] = &[
    Case(
        "UPDATE attempt SET log_run = 999 WHERE state = <again:0000> AND number = 2",
        &["value attempt.log_run -"],
    ),
    Case(
        "UPDATE attempt \
         SET logs = '{', log_run = (SELECT run FROM state s WHERE s.id = attempt.state) \
         WHERE state = <again:0000> AND number = 1",
        &["value attempt.logs -"],
    ),
    Case(
        "UPDATE attempt SET outcome = 'LOST' WHERE state = <again:0000> AND number = 2",
        &["value attempt.outcome -"],
    ),
    Case(
        "UPDATE attempt SET kind = 'odd' WHERE state = <again:0000> AND number = 1",
        &["value attempt.kind -"],
    ),
    Case(
        "UPDATE attempt SET kind = NULL WHERE state = <again:0000> AND number = 1",
        &["value attempt.kind -"],
    ),
    Case(
        "UPDATE attempt SET number = 50 WHERE state = <again:0000> AND number = 1",
        &["value attempt.number -"],
    ),
];
