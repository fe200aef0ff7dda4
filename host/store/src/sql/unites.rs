//! Unites, and the members that they count and gather from.

use crate::dialect::Statement;

statements! {
    NEW_UNITE =
        "INSERT INTO unite (state, source, branches, open, failed, arrived) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    postgres concat!(
        "INSERT INTO unite (state, source, branches, open, failed, arrived) \
         SELECT * \
         FROM ",
        arrays!(state: int, source: int, branches: int, open: int, failed: int, arrived: int)
    );
    COUNT_IN_UNITES =
        "UPDATE unite \
         SET open = open + $2, failed = failed + $3, arrived = arrived + $4 \
         WHERE state = $1 \
         RETURNING state, open, failed, arrived, branches",
    postgres concat!(
        "UPDATE unite \
         SET open = open + n.open_, failed = failed + n.failed_, arrived = arrived + n.arrived_ \
         FROM ",
        unnest!(state_: int, open_: int, failed_: int, arrived_: int),
        " WHERE state = n.state_ \
         RETURNING state, open, failed, arrived, branches"
    );
    WAITING =
        "SELECT id, node, path, refs, scopes, fence, attempt, store_snapshot \
         FROM state \
         WHERE id = $1 AND status = 'WAITING'",
    postgres
        "SELECT id, node, path, refs, scopes, fence, attempt, store_snapshot \
         FROM state \
         WHERE id = ANY($1) AND status = 'WAITING'";
    /// Opens a unite for execution: claimable, or claimed immediately.
    OPEN_UNITE =
        "UPDATE state \
         SET status = $2, due_at = $3, session = $4, fence = fence + $5, attempt = attempt + $5, \
             held_back = $6, last_session = $4, began_at = CASE WHEN $5 > 0 THEN $3 END \
         WHERE id = $1 AND status = 'WAITING'",
    postgres concat!(
        "UPDATE state \
         SET status = n.status, due_at = n.due_at, session = n.session, \
             fence = state.fence + n.claims, attempt = state.attempt + n.claims, \
             held_back = n.held_back, last_session = n.session, \
             began_at = CASE WHEN n.claims > 0 THEN n.due_at END \
         FROM ",
        unnest!(id: int, status: text, due_at: int, session: int, claims: int, held_back: int),
        " WHERE state.id = n.id AND state.status = 'WAITING'"
    );
    END_UNITE =
        "UPDATE state \
         SET status = $2, ended_at = $3, kind = $4, message = $5, details = $6 \
         WHERE id = $1 AND status = 'WAITING'",
    postgres concat!(
        "UPDATE state \
         SET status = n.status, ended_at = n.now, kind = n.kind, message = n.message, \
             details = n.details \
         FROM ",
        unnest!(id: int, status: text, now: int, kind: text, message: text, details: text),
        " WHERE state.id = n.id AND state.status = 'WAITING'"
    );
    UNITE_SOURCE =
        "SELECT u.source, s.path, u.branches \
         FROM unite u \
         JOIN state s ON s.id = u.source \
         WHERE u.state = $1";
    /// Reads failed states below an execution at some nodes, the first in path order.
    FAILED_MEMBERS =
        "SELECT id, node, path, refs, scopes, kind, message \
         FROM state \
         WHERE run = $1 AND path > $2 AND path < $3 AND status = 'ERRORED' \
             AND node IN (SELECT value FROM json_each($4)) \
         ORDER BY path LIMIT $5",
    postgres
        "SELECT id, node, path, refs, scopes, kind, message \
         FROM state \
         WHERE run = $1 AND path > $2 AND path < $3 AND status = 'ERRORED' \
             AND node IN (SELECT value::BIGINT FROM json_array_elements_text($4::JSON)) \
         ORDER BY path LIMIT $5";
    /// Reads the states that a unite gathers from: the ended ones below an execution at some nodes.
    MEMBERS =
        "SELECT id, node, path, status, outputs, kind, message \
         FROM state \
         WHERE run = $1 AND path > $2 AND path < $3 AND status IN ('SUCCESS', 'ERRORED') \
             AND node IN (SELECT value FROM json_each($4)) \
         ORDER BY path",
    postgres
        "SELECT id, node, path, status, outputs, kind, message \
         FROM state \
         WHERE run = $1 AND path > $2 AND path < $3 AND status IN ('SUCCESS', 'ERRORED') \
             AND node IN (SELECT value::BIGINT FROM json_array_elements_text($4::JSON)) \
         ORDER BY path";
    MEMBER_BYTES =
        "SELECT COALESCE(SUM(octet_length(o.body)), 0) \
         FROM state s \
         JOIN output o ON o.state = s.id \
         WHERE s.run = $1 AND s.path > $2 AND s.path < $3 AND s.status = 'SUCCESS' \
             AND s.node IN (SELECT value FROM json_each($4))",
    postgres
        "SELECT COALESCE(SUM(octet_length(o.body)), 0)::BIGINT \
         FROM state s \
         JOIN output o ON o.state = s.id \
         WHERE s.run = $1 AND s.path > $2 AND s.path < $3 AND s.status = 'SUCCESS' \
             AND s.node IN (SELECT value::BIGINT FROM json_array_elements_text($4::JSON))";
    MEMBER_OUTPUTS =
        "SELECT o.state, o.body \
         FROM state s \
         JOIN output o ON o.state = s.id \
         WHERE s.run = $1 AND s.path > $2 AND s.path < $3 AND s.status = 'SUCCESS' \
             AND s.node IN (SELECT value FROM json_each($4)) \
         ORDER BY s.path, o.number",
    postgres
        "SELECT o.state, o.body \
         FROM state s \
         JOIN output o ON o.state = s.id \
         WHERE s.run = $1 AND s.path > $2 AND s.path < $3 AND s.status = 'SUCCESS' \
             AND s.node IN (SELECT value::BIGINT FROM json_array_elements_text($4::JSON)) \
         ORDER BY s.path, o.number";
    MEMBER_SIZES =
        "SELECT o.state, o.number, octet_length(o.body) \
         FROM state s \
         JOIN output o ON o.state = s.id \
         WHERE s.run = $1 AND s.path > $2 AND s.path < $3 AND s.status = 'SUCCESS' \
             AND s.node IN (SELECT value FROM json_each($4)) \
         ORDER BY s.path, o.number",
    postgres
        "SELECT o.state, o.number, octet_length(o.body)::BIGINT \
         FROM state s \
         JOIN output o ON o.state = s.id \
         WHERE s.run = $1 AND s.path > $2 AND s.path < $3 AND s.status = 'SUCCESS' \
             AND s.node IN (SELECT value::BIGINT FROM json_array_elements_text($4::JSON)) \
         ORDER BY s.path, o.number";
}
