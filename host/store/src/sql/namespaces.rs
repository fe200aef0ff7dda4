//! Namespaces and the grants of their plugins.

use crate::dialect::Statement;

statements! {
    /// Creates a missing namespace. The check avoids that Postgres uses up a number for each conflict.
    NEW_NAMESPACE =
        "INSERT INTO namespace (name) \
         SELECT $1 \
         WHERE NOT EXISTS (SELECT 1 FROM namespace n WHERE n.name = $1) \
         ON CONFLICT (name) DO NOTHING";
    NAMESPACE = "SELECT id, name, limits, slots FROM namespace WHERE name = $1";
    /// Returns a row if a namespace has settings, graphs, plugins or grants.
    NAMESPACE_IN_USE =
        "SELECT 1 \
         WHERE EXISTS (SELECT 1 FROM namespace n WHERE n.name = $1) \
             OR EXISTS (SELECT 1 FROM plugin p WHERE p.namespace = $1) \
             OR EXISTS (SELECT 1 FROM capability c WHERE c.namespace = $1)",
    postgres
        "SELECT 1::BIGINT \
         WHERE EXISTS (SELECT 1 FROM namespace n WHERE n.name = $1) \
             OR EXISTS (SELECT 1 FROM plugin p WHERE p.namespace = $1) \
             OR EXISTS (SELECT 1 FROM capability c WHERE c.namespace = $1)";
    /// Reads and locks a namespace, so that no other transaction configures it.
    LOCK_NAMESPACE = "SELECT id, name, limits, slots FROM namespace WHERE name = $1",
    postgres "SELECT id, name, limits, slots FROM namespace WHERE name = $1 FOR NO KEY UPDATE";
    NAMESPACE_LIST =
        "SELECT id, name, limits, slots \
         FROM namespace \
         WHERE name > $1 \
         ORDER BY name LIMIT $2";
    SET_NAMESPACE = "UPDATE namespace SET limits = $2, slots = $3 WHERE name = $1";
    QUOTAS = "SELECT quotas FROM namespace WHERE name = $1";
    /// Reads and locks the quotas of a namespace.
    LOCK_QUOTAS = "SELECT quotas FROM namespace WHERE name = $1",
    postgres "SELECT quotas FROM namespace WHERE name = $1 FOR NO KEY UPDATE";
    SET_QUOTAS = "UPDATE namespace SET quotas = $2 WHERE name = $1";
    COUNT_PLUGINS = "SELECT COUNT(DISTINCT name) FROM plugin WHERE namespace = $1";
    COUNT_PLUGIN_BYTES =
        "SELECT CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM plugin WHERE namespace = $1";
    COUNT_GRAPHS = "SELECT COUNT(*) FROM graph WHERE namespace = $1 AND number > 0";
    /// Revisions of a graph are numbered from 1.
    COUNT_REVISIONS =
        "SELECT CAST(COALESCE(SUM(number), 0) AS BIGINT) FROM graph WHERE namespace = $1";
    COUNT_OPEN_STATES =
        "SELECT CAST(COALESCE(SUM(states - succeeded - pruned - errored - cancelled), 0) AS BIGINT) \
         FROM run \
         WHERE namespace = $1 AND status = 'RUNNING'";
    SET_GRANTS =
        "INSERT INTO capability (namespace, plugin, grants, updated_at) \
         VALUES ($1, $2, $3, $4) \
         ON CONFLICT (namespace, plugin) DO UPDATE SET grants = excluded.grants, \
             updated_at = excluded.updated_at";
    REMOVE_GRANTS = "DELETE FROM capability WHERE namespace = $1 AND plugin = $2";
    GRANTS_OF = "SELECT plugin, grants FROM capability WHERE namespace = $1 AND plugin = $2";
    /// Lists grants after a plugin name, with limits on the rows and on their bytes.
    GRANT_LIST =
        "SELECT plugin, grants, bytes \
         FROM (SELECT page.*, SUM(bytes) OVER (ORDER BY plugin) - bytes AS bytes_ahead \
             FROM (SELECT plugin, grants, CAST(octet_length(grants) AS BIGINT) AS bytes \
                 FROM capability \
                 WHERE namespace = $1 AND plugin > $2 \
                 ORDER BY plugin LIMIT $3) page) counted \
         WHERE bytes_ahead < $4 \
         ORDER BY plugin";
    GRANTS = "SELECT plugin, grants FROM capability WHERE namespace = $1 ORDER BY plugin";
}
