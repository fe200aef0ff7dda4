//! The labels of runs.

use crate::dialect::Statement;

statements! {
    NEW_LABEL =
        "INSERT INTO label (run, key, value, namespace, created_at) VALUES ($1, $2, $3, $4, $5)",
    postgres concat!(
        "INSERT INTO label (run, key, value, namespace, created_at) \
         SELECT * \
         FROM ",
        arrays!(run: int, key: text, value: text, namespace: text, created_at: int)
    );
    /// Reads the labels of some runs.
    LABELS =
        "SELECT run, key, value \
         FROM label \
         WHERE run IN (SELECT value FROM json_each($1)) \
         ORDER BY run, key",
    postgres
        "SELECT run, key, value \
         FROM label \
         WHERE run IN (SELECT value::BIGINT FROM json_array_elements_text($1::JSON)) \
         ORDER BY run, key";
}
