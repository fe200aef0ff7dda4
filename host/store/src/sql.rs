//! Every statement there is. A test prepares all of them, so that none rests
//! on a table or column that is not there.
//!
//! Parameters are written `?1`: numbered, whatever order they stand in. (`$1`
//! is a name to SQLite, numbered by where it stands first.)

/// Makes one constant for each statement and [`ALL`] of them.
macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $text:expr;)*) => {
        $($(#[$doc])* pub(crate) const $name: &str = $text;)*
        #[cfg(test)]
        pub(crate) const ALL: &[(&str, &str)] = &[$((stringify!($name), $name)),*];
    };
}

statements! {
    // Sessions.
    LAST_STATE = "SELECT COALESCE(MAX(id), 0) FROM state";
    LAST_RUN = "SELECT COALESCE(MAX(id), 0) FROM run";
    BEGIN_SESSION = "INSERT INTO session (id, started_at) SELECT COALESCE(MAX(id), 0) + 1, ?1 FROM session RETURNING id";
    END_SESSIONS = "UPDATE session SET ended_at = ?1 WHERE ended_at IS NULL";
    END_SESSION = "UPDATE session SET ended_at = ?2 WHERE id = ?1";

    // The street, in the order in which a commit uses them.
    RUN_ROW = "SELECT status, version, open, failed, states, succeeded, pruned, errored, cancelled, retries, requeues, \
               store_keys, store_bytes, store_version, ended_at FROM run WHERE id = ?1";
    NEW_RUN = "INSERT INTO run (id, uuid, namespace, graph, revision, status, version, inputs, created_at, open, failed, \
               states, succeeded, pruned, errored, cancelled, retries, requeues, store_keys, store_bytes, store_version) \
               SELECT ?1, ?2, ?3, graph, id, 'RUNNING', 0, ?5, ?6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 FROM revision WHERE id = ?4";
    SAVE_RUN = "UPDATE run SET status = ?2, version = ?3, open = ?4, failed = ?5, states = ?6, succeeded = ?7, pruned = ?8, \
                errored = ?9, cancelled = ?10, retries = ?11, requeues = ?12, store_keys = ?13, store_bytes = ?14, \
                store_version = ?15, ended_at = ?16 WHERE id = ?1";
    /// Creates a state, held by a session or not.
    NEW_STATE = "INSERT INTO state (id, run, node, path, status, due_at, session, fence, attempt, retries, requeues, losses, \
                 conflicts, refs, scopes, fixed, created_at) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8, 0, 0, 0, 0, ?9, ?10, ?11, ?6)";
    /// The end of an execution. Its guard is the fence: invariant 3.
    FINISH = "UPDATE state SET status = ?4, session = NULL, ended_at = ?5, outputs = ?6, kind = ?7, message = ?8, details = ?9, \
              cpu_us = ?10, memory_bytes = ?11, host_calls = ?12, output_bytes = ?13 \
              WHERE id = ?1 AND status = 'QUEUED' AND session = ?2 AND fence = ?3";
    /// The end of an execution that is to be repeated, under the same guard.
    REPEAT = "UPDATE state SET status = 'CREATED', session = NULL, due_at = ?4, attempt = ?5, retries = ?6, requeues = ?7, \
              losses = ?8, conflicts = ?9 \
              WHERE id = ?1 AND status = 'QUEUED' AND session = ?2 AND fence = ?3";
    NEW_OUTPUT = "INSERT INTO output (state, number, body) VALUES (?1, ?2, ?3)";
    NEW_ATTEMPT = "INSERT INTO attempt (state, number, ended_at, outcome, kind, message, details, logs, cpu_us, memory_bytes, host_calls, output_bytes) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
    OLD_ATTEMPTS = "DELETE FROM attempt WHERE state = ?1 AND number <= ?2";
    NEW_UNITE = "INSERT INTO unite (state, source, branches, open, failed, arrived) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    COUNT = "UPDATE unite SET open = open + ?2, failed = failed + ?3, arrived = arrived + ?4 WHERE state = ?1 \
             RETURNING open, failed, arrived, branches";
    WAITING = "SELECT run, node, path, refs, scopes, fence, fixed FROM state WHERE id = ?1 AND status = 'WAITING'";
    /// A unite that may run: free to be claimed, or claimed at once.
    OPEN_UNITE = "UPDATE state SET status = ?2, due_at = ?3, session = ?4, fence = fence + ?5, attempt = attempt + ?5 \
                  WHERE id = ?1 AND status = 'WAITING' RETURNING attempt, fence";
    END_UNITE = "UPDATE state SET status = ?2, ended_at = ?3, kind = ?4, message = ?5, details = ?6 \
                 WHERE id = ?1 AND status = 'WAITING'";
    /// Failed members of a unite, in path order.
    FAILED_MEMBERS = "SELECT id, node, path, refs, scopes, kind, message FROM state \
                      WHERE run = ?1 AND path > ?2 AND path < ?3 AND status = 'ERRORED' ORDER BY path";
    DUE = "SELECT id FROM state WHERE status = 'CREATED' AND due_at <= ?1 ORDER BY due_at, id LIMIT ?2";
    /// Claims one state. The status is asked for here, where it changes, too:
    /// what another claimed since it was found due stays theirs.
    TAKE = "UPDATE state SET status = 'QUEUED', session = ?2, fence = fence + 1, attempt = attempt + 1 \
            WHERE id = ?1 AND status = 'CREATED' \
            RETURNING id, run, node, path, refs, scopes, attempt, retries, requeues, losses, conflicts, session, fence, fixed";
    NEXT_DUE = "SELECT MIN(due_at) FROM state WHERE status = 'CREATED' AND due_at > ?1";
    CANCEL_SOME = "SELECT id, path, status FROM state WHERE run = ?1 AND path >= ?2 ORDER BY path LIMIT ?3";
    CANCEL_STATE = "UPDATE state SET status = 'CANCELLED', session = NULL, ended_at = ?2 WHERE id = ?1";
    FAILED_STATE = "SELECT status, kind, node, path, refs, scopes FROM state WHERE id = ?1 AND run = ?2";
    REOPEN_STATE = "UPDATE state SET status = ?2, due_at = ?3, ended_at = NULL, kind = NULL, message = NULL, details = NULL, \
                    retries = 0, losses = 0, conflicts = 0 WHERE id = ?1 AND status = 'ERRORED'";

    // The store of a run.
    ENTRY = "SELECT value, version FROM entry WHERE run = ?1 AND key = ?2";
    SET_ENTRY = "INSERT INTO entry (run, key, value, version) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT (run, key) DO UPDATE SET value = excluded.value, version = excluded.version";
    REMOVE_ENTRY = "DELETE FROM entry WHERE run = ?1 AND key = ?2";
    CLEAR_ENTRIES = "DELETE FROM entry WHERE run = ?1";
    ENTRIES = "SELECT key, value, version FROM entry WHERE run = ?1 ORDER BY key";

    // Recovery.
    /// States of live runs that other sessions than this one hold, some at a
    /// time.
    HELD = "SELECT id, run, node, path, refs, scopes, attempt, retries, requeues, losses, conflicts, session, fence FROM state \
            WHERE status = 'QUEUED' AND session <> ?1 \
            AND EXISTS (SELECT 1 FROM run WHERE run.id = state.run AND run.status = 'RUNNING') LIMIT ?2";
    UNSWEPT = "SELECT id FROM run WHERE status = 'CANCELLED' AND open > 0";

    // Plugins, graphs, secrets.
    COMPONENT = "INSERT INTO component (digest, bytes, size, nodes, imports, compile_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
                 ON CONFLICT (digest) DO NOTHING";
    PUSH = "INSERT INTO plugin (namespace, name, version, digest, uploaded_at) VALUES (?1, ?2, ?3, ?4, ?5) \
            ON CONFLICT (namespace, name, digest) DO UPDATE SET version = excluded.version, uploaded_at = excluded.uploaded_at";
    KNOWN_PLUGIN = "SELECT 1 FROM plugin WHERE namespace = ?1 AND name = ?2 AND digest = ?3";
    COMPONENT_BYTES = "SELECT bytes FROM component WHERE digest = ?1";
    COMPONENT_NODES = "SELECT nodes FROM component WHERE digest = ?1";
    /// The newest upload of each plugin.
    PLUGINS = "SELECT p.name, p.version, p.digest, p.uploaded_at, c.size, c.nodes, c.imports, c.compile_ms \
               FROM plugin p JOIN component c ON c.digest = p.digest WHERE p.namespace = ?1 \
               AND p.id = (SELECT q.id FROM plugin q WHERE q.namespace = p.namespace AND q.name = p.name \
                           ORDER BY q.uploaded_at DESC, q.id DESC LIMIT 1) ORDER BY p.name";
    PLUGIN = "SELECT p.name, p.version, p.digest, p.uploaded_at, c.size, c.nodes, c.imports, c.compile_ms \
              FROM plugin p JOIN component c ON c.digest = p.digest WHERE p.namespace = ?1 AND (p.name = ?2 OR p.digest = ?2) \
              ORDER BY p.uploaded_at DESC, p.id DESC LIMIT 1";
    CURRENT = "SELECT g.id, g.current, r.number, r.digest FROM graph g JOIN revision r ON r.id = g.current \
               WHERE g.namespace = ?1 AND g.name = ?2";
    NEW_GRAPH = "INSERT INTO graph (namespace, name, current) VALUES (?1, ?2, 0) RETURNING id";
    NEW_REVISION = "INSERT INTO revision (graph, number, digest, body, created_at) VALUES (?1, ?2, ?3, ?4, ?5) RETURNING id";
    SET_CURRENT = "UPDATE graph SET current = ?2 WHERE id = ?1";
    GRAPHS = "SELECT g.name, r.id, r.number, r.digest, r.body, r.created_at FROM graph g JOIN revision r ON r.id = g.current \
              WHERE g.namespace = ?1 ORDER BY g.name";
    GRAPH = "SELECT g.name, r.id, r.number, r.digest, r.body, r.created_at FROM graph g JOIN revision r ON r.id = g.current \
             WHERE g.namespace = ?1 AND g.name = ?2";
    SET_SECRET = "INSERT INTO secret (namespace, graph, name, sealed) VALUES (?1, ?2, ?3, ?4) \
                  ON CONFLICT (namespace, graph, name) DO UPDATE SET sealed = excluded.sealed";
    SECRET_NAMES = "SELECT name FROM secret WHERE namespace = ?1 AND graph = ?2 ORDER BY name";
    SECRET = "SELECT sealed FROM secret WHERE namespace = ?1 AND graph = ?2 AND name = ?3";

    // What executions read.
    RUN_INFO = "SELECT u.uuid, u.namespace, g.name, r.number, r.body, u.inputs, r.id FROM run u \
                JOIN graph g ON g.id = u.graph JOIN revision r ON r.id = u.revision WHERE u.id = ?1";
    OUTPUTS_AT = "SELECT o.state, o.number, o.body FROM json_each(?1) w \
                  JOIN output o ON o.state = json_extract(w.value, '$[0]') AND o.number = json_extract(w.value, '$[1]')";
    UNITE_SOURCE = "SELECT u.source, s.path, u.branches FROM unite u JOIN state s ON s.id = u.source WHERE u.state = ?1";
    /// What a unite gathers from: the ends below an execution at some nodes.
    MEMBERS = "SELECT id, node, path, status, outputs, kind, message FROM state \
               WHERE run = ?1 AND path > ?2 AND path < ?3 AND status IN ('SUCCESS', 'ERRORED') \
               AND node IN (SELECT value FROM json_each(?4)) ORDER BY path";
    MEMBER_BYTES = "SELECT COALESCE(SUM(length(CAST(o.body AS BLOB))), 0) FROM state s JOIN output o ON o.state = s.id \
                    WHERE s.run = ?1 AND s.path > ?2 AND s.path < ?3 AND s.status = 'SUCCESS' \
                    AND s.node IN (SELECT value FROM json_each(?4))";
    MEMBER_OUTPUTS = "SELECT o.state, o.body FROM state s JOIN output o ON o.state = s.id \
                      WHERE s.run = ?1 AND s.path > ?2 AND s.path < ?3 AND s.status = 'SUCCESS' \
                      AND s.node IN (SELECT value FROM json_each(?4)) ORDER BY s.path, o.number";
    OUTPUTS = "SELECT body FROM output WHERE state = ?1 ORDER BY number";
    OUTPUT_BYTES = "SELECT COALESCE(SUM(length(CAST(body AS BLOB))), 0) FROM output WHERE state = ?1";

    // What people read.
    RUNS = "SELECT u.id, u.uuid, g.name, r.number, u.status, u.version, u.created_at, u.ended_at, u.states, u.succeeded, u.pruned, \
            u.errored, u.cancelled, u.retries, u.requeues, r.id FROM run u JOIN graph g ON g.id = u.graph JOIN revision r ON r.id = u.revision \
            WHERE u.namespace = ?1 AND (?2 IS NULL OR g.name = ?2) AND (?3 IS NULL OR u.status = ?3) AND (?4 IS NULL OR u.id < ?4) \
            ORDER BY u.id DESC LIMIT ?5";
    RUN = "SELECT u.id, u.uuid, g.name, r.number, u.status, u.version, u.created_at, u.ended_at, u.states, u.succeeded, u.pruned, \
           u.errored, u.cancelled, u.retries, u.requeues, r.id FROM run u JOIN graph g ON g.id = u.graph JOIN revision r ON r.id = u.revision \
           WHERE u.namespace = ?1 AND u.uuid = ?2";
    STATES = "SELECT id, node, path, status, attempt, retries, requeues, created_at, ended_at, outputs, kind, message, details, \
              cpu_us, memory_bytes, host_calls, output_bytes FROM state \
              WHERE run = ?1 AND (?2 IS NULL OR node IN (SELECT value FROM json_each(?2))) AND (?3 IS NULL OR status = ?3) \
              AND path > ?4 ORDER BY path LIMIT ?5";
    FIRST_STATES = "SELECT id, node, path, status, attempt, retries, requeues, created_at, ended_at, outputs, kind, message, details, \
              cpu_us, memory_bytes, host_calls, output_bytes FROM state \
              WHERE run = ?1 AND (?2 IS NULL OR node IN (SELECT value FROM json_each(?2))) AND (?3 IS NULL OR status = ?3) \
              AND path >= ?4 ORDER BY path LIMIT ?5";
    STATE = "SELECT id, node, path, status, attempt, retries, requeues, created_at, ended_at, outputs, kind, message, details, \
             cpu_us, memory_bytes, host_calls, output_bytes FROM state WHERE run = ?1 AND id = ?2";
    OUTPUTS_PAGE = "SELECT body FROM output WHERE state = ?1 AND number >= ?2 ORDER BY number LIMIT ?3";
    ATTEMPTS = "SELECT number, ended_at, outcome, kind, message, details, logs, cpu_us, memory_bytes, host_calls, output_bytes \
                FROM attempt WHERE state = ?1 ORDER BY number";
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    #[test]
    fn every_statement_can_be_prepared() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        connection
            .execute_batch(include_str!("../../../migrations/sqlite/0001_street.sql"))
            .unwrap();
        for (name, text) in super::ALL {
            if let Err(error) = connection.prepare(text) {
                panic!("{name}: {error}");
            }
        }
    }
}
