//! Plugins and graphs.

use crate::dialect::Statement;

/// The condition that an upload is the newest of its plugin.
macro_rules! newest_upload {
    () => {
        "p.id = (SELECT q.id FROM plugin q \
             WHERE q.namespace = p.namespace AND q.name = p.name \
             ORDER BY q.uploaded_at DESC, q.id DESC LIMIT 1)"
    };
}

statements! {
    /// Stores a component, unless it is there. On Postgres this locks its row, so that it is not
    /// removed before the upload is visible.
    NEW_COMPONENT =
        "INSERT INTO component (digest, bytes, size, nodes, imports, compile_ms) \
         VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (digest) DO NOTHING",
    postgres
        "INSERT INTO component (digest, bytes, size, nodes, imports, compile_ms) \
         VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (digest) DO UPDATE SET compile_ms = component.compile_ms";
    PUSH_PLUGIN =
        "INSERT INTO plugin (namespace, name, version, digest, uploaded_at, size, node_names) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) \
         ON CONFLICT (namespace, name, digest) DO UPDATE SET version = excluded.version, \
             uploaded_at = excluded.uploaded_at";
    KNOWN_PLUGIN = "SELECT id FROM plugin WHERE namespace = $1 AND name = $2 AND digest = $3";
    PLUGIN_NAMED = "SELECT id FROM plugin WHERE namespace = $1 AND name = $2 LIMIT 1";
    COMPONENT_BYTES = "SELECT bytes FROM component WHERE digest = $1";
    COMPONENT_IMPORTS = "SELECT imports FROM component WHERE digest = $1";
    COMPONENT_NODES = "SELECT nodes FROM component WHERE digest = $1";
    /// Lists the newest upload of each plugin after a name, with limits on the rows and on the
    /// bytes of node names.
    PLUGIN_LIST = concat!(
        "SELECT name, version, digest, uploaded_at, size, node_names FROM (\
             SELECT page.*, SUM(octet_length(node_names)) OVER (ORDER BY name) \
                 - octet_length(node_names) AS bytes_ahead FROM (\
                 SELECT p.name, p.version, p.digest, p.uploaded_at, p.size, p.node_names \
                 FROM plugin p \
                 WHERE p.namespace = $1 AND p.name > $2 AND ",
        newest_upload!(),
        " ORDER BY p.name LIMIT $3) page) counted \
         WHERE bytes_ahead < $4 \
         ORDER BY name"
    );
    NEW_EXPORTED =
        "INSERT INTO exported (digest, node) \
         SELECT $1, w.value \
         FROM json_each($2) w \
         WHERE TRUE \
         ON CONFLICT (digest, node) DO NOTHING",
    postgres
        "INSERT INTO exported (digest, node) \
         SELECT $1, w \
         FROM json_array_elements_text($2::JSON) w \
         ON CONFLICT (digest, node) DO NOTHING";
    /// Reads the newest uploads that export nodes with these names.
    EXPORTERS = concat!(
        "SELECT e.node, p.name, p.digest, c.imports \
         FROM plugin p \
         JOIN exported e ON e.digest = p.digest \
         JOIN component c ON c.digest = p.digest \
         WHERE p.namespace = $1 AND e.node IN (SELECT w.value FROM json_each($2) w) AND ",
        newest_upload!(),
        " ORDER BY e.node, p.name"
    ),
    postgres concat!(
        "SELECT e.node, p.name, p.digest, c.imports \
         FROM plugin p \
         JOIN exported e ON e.digest = p.digest \
         JOIN component c ON c.digest = p.digest \
         WHERE p.namespace = $1 \
             AND e.node IN (SELECT w FROM json_array_elements_text($2::JSON) w) AND ",
        newest_upload!(),
        " ORDER BY e.node, p.name"
    );
    /// Lists graphs of a namespace, by name, whose current revision uses an older upload of a plugin
    /// than the given one. The names of plugins and their digests are texts that need no escapes in
    /// the body. It reads the first bodies up to `$5` bytes, and compares the newest uploads.
    GRAPHS_OF_OLDER_UPLOADS =
        "SELECT name FROM (\
             SELECT page.*, SUM(octet_length(body)) OVER (ORDER BY name) AS bytes FROM (\
                 SELECT g.name, r.body \
                 FROM graph g \
                 JOIN revision r ON r.id = g.current \
                 WHERE g.namespace = $1 \
                 ORDER BY g.name LIMIT 1000) page) bounded \
         WHERE bytes <= $5 AND instr(body, '\"plugin\":\"' || $2 || '\"') > 0 AND EXISTS (\
             SELECT 1 FROM (SELECT p.digest FROM plugin p \
                 WHERE p.namespace = $1 AND p.name = $2 AND p.digest <> $3 \
                 ORDER BY p.uploaded_at DESC, p.id DESC LIMIT 100) older \
             WHERE instr(body, older.digest) > 0) \
         ORDER BY name LIMIT $4",
    postgres
        "SELECT name FROM (\
             SELECT page.*, SUM(octet_length(body)) OVER (ORDER BY name) AS bytes FROM (\
                 SELECT g.name, r.body \
                 FROM graph g \
                 JOIN revision r ON r.id = g.current \
                 WHERE g.namespace = $1 \
                 ORDER BY g.name LIMIT 1000) page) bounded \
         WHERE bytes <= $5 AND strpos(body, '\"plugin\":\"' || $2::TEXT || '\"') > 0 AND EXISTS (\
             SELECT 1 FROM (SELECT p.digest FROM plugin p \
                 WHERE p.namespace = $1 AND p.name = $2 AND p.digest <> $3 \
                 ORDER BY p.uploaded_at DESC, p.id DESC LIMIT 100) older \
             WHERE strpos(body, older.digest) > 0) \
         ORDER BY name LIMIT $4";
    /// Reads the names of nodes that the newest uploads export, for suggestions.
    NODE_NAMES = concat!(
        "SELECT DISTINCT e.node \
         FROM plugin p \
         JOIN exported e ON e.digest = p.digest \
         WHERE p.namespace = $1 AND ",
        newest_upload!(),
        " ORDER BY e.node LIMIT $2"
    );
    /// Reads the newest upload of each plugin.
    PLUGINS = concat!(
        "SELECT p.name, p.version, p.digest, p.uploaded_at, c.size, c.nodes, c.imports, \
             c.compile_ms \
         FROM plugin p \
         JOIN component c ON c.digest = p.digest \
         WHERE p.namespace = $1 AND ",
        newest_upload!(),
        " ORDER BY p.name"
    );
    PLUGIN =
        "SELECT p.name, p.version, p.digest, p.uploaded_at, c.size, c.nodes, c.imports, \
             c.compile_ms \
         FROM plugin p \
         JOIN component c ON c.digest = p.digest \
         WHERE p.namespace = $1 AND (p.name = $2 OR p.digest = $2) \
         ORDER BY p.uploaded_at DESC, p.id DESC LIMIT 1";
    /// Finds or creates a graph. Either way the row is locked, so that revisions of one graph come
    /// one after the other.
    GRAPH_ROW =
        "INSERT INTO graph (namespace, name, current) \
         VALUES ($1, $2, 0) \
         ON CONFLICT (namespace, name) DO UPDATE SET current = graph.current \
         RETURNING id, current";
    REVISION = "SELECT id, number, digest FROM revision WHERE id = $1";
    NEW_REVISION =
        "INSERT INTO revision (id, graph, number, digest, body, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6)";
    SET_CURRENT =
        "UPDATE graph \
         SET current = $2, number = $3, nodes = $4, applied_at = $5 \
         WHERE id = $1";
    /// Lists graphs after a name.
    GRAPH_LIST =
        "SELECT name, number, applied_at, nodes \
         FROM graph \
         WHERE namespace = $1 AND name > $2 \
         ORDER BY name LIMIT $3";
    /// Lists the revisions of a graph before a number, the newest first.
    REVISION_LIST =
        "SELECT r.number, r.digest, r.created_at, \
             CAST(CASE WHEN g.current = r.id THEN 1 ELSE 0 END AS BIGINT) \
         FROM graph g \
         JOIN revision r ON r.graph = g.id \
         WHERE g.namespace = $1 AND g.name = $2 \
             AND (CAST($3 AS BIGINT) IS NULL OR r.number < $3) \
         ORDER BY r.number DESC LIMIT $4";
    REVISION_SIZE =
        "SELECT CAST(octet_length(r.body) AS BIGINT) \
         FROM graph g \
         JOIN revision r ON r.graph = g.id \
         WHERE g.namespace = $1 AND g.name = $2 AND r.number = $3";
    GRAPH_REVISION =
        "SELECT g.name, r.id, r.number, r.digest, r.body, r.created_at, n.id \
         FROM graph g \
         JOIN revision r ON r.graph = g.id \
         JOIN namespace n ON n.name = g.namespace \
         WHERE g.namespace = $1 AND g.name = $2 AND r.number = $3";
    GRAPH_SIZE =
        "SELECT CAST(octet_length(r.body) AS BIGINT) \
         FROM graph g \
         JOIN revision r ON r.id = g.current \
         WHERE g.namespace = $1 AND g.name = $2";
    GRAPH =
        "SELECT g.name, r.id, r.number, r.digest, r.body, r.created_at, n.id \
         FROM graph g \
         JOIN revision r ON r.id = g.current \
         JOIN namespace n ON n.name = g.namespace \
         WHERE g.namespace = $1 AND g.name = $2";
}
