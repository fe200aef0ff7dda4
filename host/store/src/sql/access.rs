//! Keys of the API, and the audit log.

use crate::dialect::Statement;

/// The columns of a key, in the order in which they are read.
macro_rules! api_key {
    () => {
        "id, digest, role, namespaces, payloads, label, requests_per_second, created_at, \
         expires_at, used_at, revoked_at"
    };
}

/// The condition that a row of the audit log matches a filter, whose parts are all or nothing.
macro_rules! audited {
    () => {
        "id < $1 AND ($2 = '' OR key = $2) AND ($3 = '' OR namespace = $3) \
         AND ($4 = '' OR action = $4)"
    };
}

statements! {
    API_KEY = concat!("SELECT ", api_key!(), " FROM api_key WHERE id = $1");
    API_KEYS = concat!("SELECT ", api_key!(), " FROM api_key WHERE id > $1 ORDER BY id LIMIT $2");
    COUNT_API_KEYS = "SELECT COUNT(*) FROM api_key";
    /// Counts the other keys that can create keys.
    OTHER_ADMIN_KEYS =
        "SELECT COUNT(*) \
         FROM api_key \
         WHERE id <> $1 AND role = 'admin' AND namespaces IS NULL AND revoked_at IS NULL \
             AND (expires_at IS NULL OR expires_at > $2)";
    NEW_API_KEY =
        "INSERT INTO api_key (id, digest, role, namespaces, payloads, label, \
             requests_per_second, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    REVOKE_API_KEY = "UPDATE api_key SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL";
    /// Deletes the keys that have been refused since before a time.
    EXPIRE_API_KEYS =
        "DELETE FROM api_key WHERE revoked_at < $1 OR (revoked_at IS NULL AND expires_at < $1)";
    /// Records the last use of keys. Another host may have recorded a later one.
    USE_API_KEYS =
        "UPDATE api_key SET used_at = $2 WHERE id = $1 AND COALESCE(used_at, 0) < $2",
    postgres concat!(
        "UPDATE api_key SET used_at = n.used_at FROM ",
        unnest!(id: text, used_at: int),
        " WHERE api_key.id = n.id AND COALESCE(api_key.used_at, 0) < n.used_at"
    );
    AUDIT =
        "INSERT INTO audit (at, key, address, action, namespace, object, before, after) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    /// Lists the audit log, the newest first.
    AUDIT_LIST = concat!(
        "SELECT id, at, key, address, action, namespace, object, before, after \
         FROM audit \
         WHERE ",
        audited!(),
        " ORDER BY id DESC LIMIT $5"
    );
    /// Deletes some of the rows before a time.
    EXPIRE_AUDIT =
        "DELETE FROM audit \
         WHERE id IN (SELECT id FROM audit WHERE at < $1 ORDER BY at LIMIT $2)";
}
