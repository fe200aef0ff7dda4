//! Encrypted secrets, and the check values of the keys that encrypt them.

use crate::dialect::Statement;

statements! {
    SET_SECRET =
        "INSERT INTO secret (namespace, graph, name, sealed, key_id) \
         VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (namespace, graph, name) DO UPDATE SET sealed = excluded.sealed, \
             key_id = excluded.key_id";
    REMOVE_SECRET = "DELETE FROM secret WHERE namespace = $1 AND graph = $2 AND name = $3";
    SECRET_NAMES = "SELECT name FROM secret WHERE namespace = $1 AND graph = $2 ORDER BY name";
    /// Lists the names of a namespace's secrets after a graph and a name.
    SECRET_LIST =
        "SELECT graph, name \
         FROM secret \
         WHERE namespace = $1 AND (graph, name) > ($2, $3) \
         ORDER BY graph, name LIMIT $4";
    SECRETS_OF_GRAPH =
        "SELECT name, sealed, key_id \
         FROM secret \
         WHERE namespace = $1 AND graph = $2 \
         ORDER BY name";
    /// Serializes the transactions that write to `seal`.
    LOCK_KEY_CHECKS = "SELECT 1",
    postgres "SELECT 1 FROM pg_advisory_xact_lock(hashtextextended('exosphere seal', 0))";
    KEY_CHECKS = "SELECT key_id, sealed FROM seal ORDER BY key_id";
    /// Waits for transactions that encrypt under the key.
    SET_KEY_CHECK =
        "INSERT INTO seal (key_id, sealed) \
         VALUES ($1, $2) \
         ON CONFLICT (key_id) DO UPDATE SET sealed = excluded.sealed";
    /// Reads the check value of a key, and locks it against changes until this transaction ends.
    KEY_CHECK = "SELECT key_id, sealed FROM seal WHERE key_id = $1",
    postgres "SELECT key_id, sealed FROM seal WHERE key_id = $1 FOR SHARE";
    REMOVE_OTHER_KEY_CHECKS = "DELETE FROM seal WHERE key_id <> $1";
    COUNT_SECRETS_OF_OTHER_KEYS = "SELECT COUNT(*) FROM secret WHERE key_id <> $1";
    ANY_SECRET = "SELECT namespace, graph, name, sealed, key_id FROM secret LIMIT 1";
    /// Reads a page of secrets, after a key.
    SECRETS =
        "SELECT namespace, graph, name, sealed, key_id \
         FROM secret \
         WHERE (namespace, graph, name) > ($1, $2, $3) \
         ORDER BY namespace, graph, name LIMIT $4";
    /// Reads and locks a page of the secrets under other keys than this one.
    SECRETS_TO_REENCRYPT =
        "SELECT namespace, graph, name, sealed, key_id \
         FROM secret \
         WHERE key_id <> $5 AND (namespace, graph, name) > ($1, $2, $3) \
         ORDER BY namespace, graph, name LIMIT $4",
    postgres
        "SELECT namespace, graph, name, sealed, key_id \
         FROM secret \
         WHERE key_id <> $5 AND (namespace, graph, name) > ($1, $2, $3) \
         ORDER BY namespace, graph, name LIMIT $4 FOR UPDATE";
    REENCRYPT_SECRET =
        "UPDATE secret \
         SET sealed = $4, key_id = $5 \
         WHERE namespace = $1 AND graph = $2 AND name = $3";
    /// Removes a secret, unless it has been set again.
    DELETE_LOST_SECRET =
        "DELETE FROM secret \
         WHERE namespace = $1 AND graph = $2 AND name = $3 AND sealed = $4";
}
