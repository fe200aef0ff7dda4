//! The entries of a run's store.

use crate::dialect::Statement;

statements! {
    ENTRY_OF = "SELECT run, key, value, version FROM entry WHERE run = $1 AND key = $2",
    postgres concat!(
        "SELECT e.run, e.key, e.value, e.version \
         FROM ",
        unnest!(run: int, key: text),
        " JOIN entry e ON e.run = n.run AND e.key = n.key"
    );
    SET_ENTRY =
        "INSERT INTO entry (run, key, value, version) \
         VALUES ($1, $2, $3, $4) \
         ON CONFLICT (run, key) DO UPDATE SET value = excluded.value, version = excluded.version",
    postgres concat!(
        "INSERT INTO entry (run, key, value, version) \
         SELECT * \
         FROM ",
        arrays!(run: int, key: text, value: text, version: int),
        " ON CONFLICT (run, key) DO UPDATE SET value = excluded.value, version = excluded.version"
    );
    REMOVE_ENTRY = "DELETE FROM entry WHERE run = $1 AND key = $2",
    postgres concat!(
        "DELETE FROM entry USING ",
        unnest!(run: int, key: text),
        " WHERE entry.run = n.run AND entry.key = n.key"
    );
    CLEAR_ENTRIES = "DELETE FROM entry WHERE run = $1";
    ENTRY = "SELECT value, version FROM entry WHERE run = $1 AND key = $2";
    ENTRIES = "SELECT key, value, version FROM entry WHERE run = $1 ORDER BY key";
    /// Reads the size of a run's store, in bytes.
    STORE_SIZE =
        "SELECT COALESCE(SUM(octet_length(key) + octet_length(value)), 0) \
         FROM entry \
         WHERE run = $1",
    postgres
        "SELECT COALESCE(SUM(octet_length(key) + octet_length(value)), 0)::BIGINT \
         FROM entry \
         WHERE run = $1";
}
