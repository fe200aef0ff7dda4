//! Reads of a check, all in one snapshot.

use super::runs::run_counters;
use crate::dialect::Statement;

/// The columns of a run that is checked, each with its source.
macro_rules! check_run {
    ($then:ident) => {
        run_counters! { checked_columns $then
            id = "u.id",
            uuid = "u.uuid",
            namespace = "u.namespace",
            graph = "u.graph",
            revision = "u.revision",
            status = "u.status",
            version = "u.version",
            inputs = "COALESCE(i.inputs, u.inputs)",
            ended_at = "u.ended_at",
            open = "u.open",
            failed = "u.failed",
            store_bytes = "u.store_bytes",
            store_version = "u.store_version",
            paused = "u.paused",
            sweep_event = "u.sweep_event",
            redrive = "u.redrive",
            node_counts = "u.node_counts",
            missed = "(SELECT COUNT(*) FROM deadline d \
WHERE d.run = u.id AND d.missed_at IS NOT NULL)",
            start_key = "u.start_key",
            start_digest = "u.start_digest",
            start_store = "COALESCE(s.store, u.start_store)",
            graph_namespace = "g.namespace",
            revision_graph = "r.graph";
        }
    };
}

/// The columns of a state that is checked, each with its source; the unite's are NULL if the
/// state is not a unite.
macro_rules! check_state {
    ($then:ident) => {
        $then! {
            id = "s.id",
            run = "s.run",
            node = "s.node",
            path = "s.path",
            status = "s.status",
            session = "s.session",
            fence = "s.fence",
            attempt = "s.attempt",
            retries = "s.retries",
            requeues = "s.requeues",
            losses = "s.losses",
            conflicts = "s.conflicts",
            refs = "s.refs",
            scopes = "s.scopes",
            store_snapshot = "s.store_snapshot",
            due_at = "s.due_at",
            delayed = "s.delayed",
            ended_at = "s.ended_at",
            outputs = "s.outputs",
            kind = "s.kind",
            details = "s.details",
            held_back = "s.held_back",
            begun_fence = "s.begun_fence",
            last_session = "s.last_session",
            cpu_us = "s.cpu_us",
            memory_bytes = "s.memory_bytes",
            unite = "n.state",
            source = "n.source",
            branches = "n.branches",
            open = "n.open",
            failed = "n.failed",
            arrived = "n.arrived",
        }
    };
}

/// Expands to the column names of a `name = source` list.
macro_rules! names_of_sources {
    ($($name:ident = $source:expr),* $(,)?) => {
        &[$(stringify!($name)),*]
    };
}

/// The columns of [`CHECK_RUNS`].
pub(crate) const CHECK_RUNS_COLUMNS: &[&str] = check_run!(names_of_sources);

/// The columns of [`CHECK_LABELS`].
pub(crate) const CHECK_LABELS_COLUMNS: &[&str] =
    &["run", "key", "uuid", "value", "namespace", "run_namespace", "created_at", "run_created_at"];

/// The columns of [`CHECK_BULKS`].
pub(crate) const CHECK_BULKS_COLUMNS: &[&str] = &[
    "id",
    "namespace",
    "action",
    "filter",
    "status",
    "frozen_at",
    "ended_at",
    "is_exact",
    "expected",
    "done",
    "skipped",
    "failed",
    "page",
    "page_after",
];

/// The columns of [`CHECK_BULK_RUNS`].
pub(crate) const CHECK_BULK_RUNS_COLUMNS: &[&str] = &["bulk", "run", "outcome", "status"];

/// The columns of [`CHECK_STATES`].
pub(crate) const CHECK_STATES_COLUMNS: &[&str] = check_state!(names_of_sources);

statements! {
    MIGRATED =
        "SELECT COUNT(*) \
         FROM sqlite_master \
         WHERE type = 'table' AND name = '_sqlx_migrations'",
    postgres "SELECT COUNT(*) FROM pg_class WHERE oid = to_regclass('_sqlx_migrations')";
    MIGRATIONS =
        "SELECT version, checksum, CAST(CASE WHEN success THEN 1 ELSE 0 END AS BIGINT) \
         FROM _sqlx_migrations \
         ORDER BY version";
    CHECK_COMPONENTS =
        "SELECT c.digest, c.nodes, c.imports, c.size, CAST(octet_length(c.bytes) AS BIGINT), \
             (SELECT group_concat(e.node, ',') \
                 FROM (SELECT node FROM exported WHERE digest = c.digest ORDER BY node) e) \
         FROM component c",
    postgres
        "SELECT c.digest, c.nodes, c.imports, c.size, CAST(octet_length(c.bytes) AS BIGINT), \
             (SELECT string_agg(e.node, ',' ORDER BY e.node) \
                 FROM exported e WHERE e.digest = c.digest) \
         FROM component c";
    CHECK_EXPORTED =
        "SELECT e.digest || '/' || e.node, e.node, c.digest \
         FROM exported e \
         LEFT JOIN component c ON c.digest = e.digest";
    CHECK_PLUGINS =
        "SELECT p.id, p.namespace, p.name, p.digest, c.digest \
         FROM plugin p \
         LEFT JOIN component c ON c.digest = p.digest";
    CHECK_GRAPHS =
        "SELECT g.id, g.namespace, g.name, g.current, r.graph \
         FROM graph g \
         LEFT JOIN revision r ON r.id = g.current";
    CHECK_REVISIONS =
        "SELECT r.id, r.graph, r.number, r.digest, r.body, g.id, \
             (SELECT group_concat(x.plugin || '/' || x.digest, ',') \
                 FROM (SELECT plugin, digest FROM revision_plugin WHERE revision = r.id \
                     ORDER BY plugin, digest) x) \
         FROM revision r \
         LEFT JOIN graph g ON g.id = r.graph",
    postgres
        "SELECT r.id, r.graph, r.number, r.digest, r.body, g.id, \
             (SELECT string_agg(x.plugin || '/' || x.digest, ',' ORDER BY x.plugin, x.digest) \
                 FROM revision_plugin x WHERE x.revision = r.id) \
         FROM revision r \
         LEFT JOIN graph g ON g.id = r.graph";
    /// Encrypted values are not checked, because only a host has the keys.
    CHECK_SECRETS =
        "SELECT namespace || '/' || graph || '/' || name, namespace, graph, name, key_id \
         FROM secret";
    CHECK_KEY_CHECKS = "SELECT key_id, key_id FROM seal";
    CHECK_NAMESPACES = "SELECT id, name, quotas FROM namespace";
    CHECK_API_KEYS = "SELECT id, digest, namespaces FROM api_key";
    CHECK_CAPABILITIES =
        "SELECT namespace || '/' || plugin, namespace, plugin, grants \
         FROM capability";
    CHECK_NUMBERS =
        "SELECT name, next, CASE name \
             WHEN 'state' THEN COALESCE((SELECT MAX(id) FROM state), 0) \
             WHEN 'run' THEN COALESCE((SELECT MAX(id) FROM run), 0) \
             WHEN 'revision' THEN COALESCE((SELECT MAX(id) FROM revision), 0) \
             ELSE COALESCE((SELECT MAX(id) FROM session), 0) END \
         FROM number \
         WHERE name IN ('state', 'run', 'revision', 'session')";
    /// Reads a page of runs by number, each with the rows that it refers to.
    CHECK_RUNS = concat!(
        "SELECT ",
        check_run!(sources),
        " FROM run u \
         LEFT JOIN graph g ON g.id = u.graph \
         LEFT JOIN revision r ON r.id = u.revision \
         LEFT JOIN run_inputs i ON i.run = u.id \
         LEFT JOIN run_start_store s ON s.run = u.id \
         WHERE u.id > $1 \
         ORDER BY u.id LIMIT $2"
    );
    /// Reads the graphs of some runs.
    CHECK_RUN_GRAPHS =
        "SELECT id, body \
         FROM revision \
         WHERE id IN (SELECT revision FROM run WHERE id >= $1 AND id <= $2)";
    /// Returns the sizes of some runs' stores. On Postgres a text may be longer than the original:
    /// see `backend/arguments.rs`.
    CHECK_STORES =
        "SELECT run, COUNT(*), SUM(octet_length(key) + octet_length(value)), MAX(version) \
         FROM entry \
         WHERE run >= $1 AND run <= $2 \
         GROUP BY run",
    postgres
        "SELECT run, COUNT(*), SUM(octet_length(key) + octet_length(value) \
             - length(key || value) + length(replace(key || value, chr(1), '')))::BIGINT, \
             MAX(version) \
         FROM entry \
         WHERE run >= $1 AND run <= $2 \
         GROUP BY run";
    /// Reads the states of some runs in the order in which the check walks a run, each with its
    /// counts if it is a unite.
    CHECK_STATES = concat!(
        "SELECT ",
        check_state!(sources),
        " FROM state s \
         LEFT JOIN unite n ON n.state = s.id \
         WHERE s.run >= $1 AND s.run <= $2 AND ",
        seen!("s"),
        " ORDER BY s.run, s.path, s.id"
    );
    CHECK_ORPHAN_STATES =
        "SELECT s.id, s.run \
         FROM state s \
         WHERE NOT EXISTS (SELECT 1 FROM run u WHERE u.id = s.run) \
             AND NOT EXISTS (SELECT 1 FROM deleted_run d WHERE d.run = s.run) \
         ORDER BY s.id";
    /// Reads the labels of runs, each with its run.
    CHECK_LABELS =
        "SELECT l.run, l.key, u.uuid, l.value, l.namespace, u.namespace, l.created_at, \
             u.created_at \
         FROM label l \
         JOIN run u ON u.id = l.run \
         ORDER BY l.run, l.key";
    CHECK_BULKS =
        "SELECT id, namespace, action, filter, status, frozen_at, ended_at, is_exact, expected, \
             done, skipped, failed, page, page_after \
         FROM bulk \
         ORDER BY id";
    /// Reads the runs of the pages of operations, each with the status of its operation.
    CHECK_BULK_RUNS =
        "SELECT r.bulk, r.run, r.outcome, b.status \
         FROM bulk_run r \
         LEFT JOIN bulk b ON b.id = r.bulk \
         ORDER BY r.bulk, r.run";
    CHECK_ORPHAN_DEADLINES =
        "SELECT d.kind, d.run \
         FROM deadline d \
         WHERE NOT EXISTS (SELECT 1 FROM run u WHERE u.id = d.run) \
         ORDER BY d.run, d.kind";
    CHECK_ORPHAN_PAUSES =
        "SELECT p.run, p.run \
         FROM paused_run p \
         WHERE NOT EXISTS (SELECT 1 FROM run u WHERE u.id = p.run AND u.graph = p.graph) \
             AND NOT EXISTS (SELECT 1 FROM deleted_run x WHERE x.run = p.run) \
         ORDER BY p.run";
    CHECK_ORPHAN_OWN_PAUSES =
        "SELECT p.run, p.run \
         FROM run_pause p \
         WHERE NOT EXISTS (SELECT 1 FROM run u WHERE u.id = p.run) \
             AND NOT EXISTS (SELECT 1 FROM deleted_run x WHERE x.run = p.run) \
         ORDER BY p.run";
    CHECK_ORPHAN_LABELS =
        "SELECT l.key, l.run \
         FROM label l \
         WHERE NOT EXISTS (SELECT 1 FROM run u WHERE u.id = l.run) \
             AND NOT EXISTS (SELECT 1 FROM deleted_run d WHERE d.run = l.run) \
         ORDER BY l.run, l.key";
    CHECK_ORPHAN_INPUTS =
        "SELECT i.run, i.run \
         FROM run_inputs i \
         WHERE NOT EXISTS (SELECT 1 FROM run u WHERE u.id = i.run) \
             AND NOT EXISTS (SELECT 1 FROM deleted_run d WHERE d.run = i.run) \
         ORDER BY i.run";
    CHECK_ORPHAN_START_STORES =
        "SELECT s.run, s.run \
         FROM run_start_store s \
         WHERE NOT EXISTS (SELECT 1 FROM run u WHERE u.id = s.run) \
             AND NOT EXISTS (SELECT 1 FROM deleted_run d WHERE d.run = s.run) \
         ORDER BY s.run";
    /// Reads deleted runs whose row is still there.
    CHECK_DELETED_RUNS =
        "SELECT d.run, u.uuid \
         FROM deleted_run d \
         JOIN run u ON u.id = d.run \
         ORDER BY d.run";
    CHECK_ORPHAN_USES =
        "SELECT x.digest, x.revision \
         FROM revision_plugin x \
         WHERE NOT EXISTS (SELECT 1 FROM revision r WHERE r.id = x.revision) \
         ORDER BY x.revision, x.digest";
    CHECK_ORPHAN_UNITES =
        "SELECT n.state, n.state \
         FROM unite n \
         WHERE NOT EXISTS (SELECT 1 FROM state s WHERE s.id = n.state) \
         ORDER BY n.state";
    CHECK_ORPHAN_ENTRIES =
        "SELECT e.key, e.run \
         FROM entry e \
         WHERE NOT EXISTS (SELECT 1 FROM run u WHERE u.id = e.run) \
             AND NOT EXISTS (SELECT 1 FROM deleted_run d WHERE d.run = e.run) \
         ORDER BY e.run, e.key";
    /// Reads states held by a session that never existed.
    CHECK_ORPHAN_CLAIMS =
        "SELECT s.id, s.session, u.uuid \
         FROM state s \
         LEFT JOIN run u ON u.id = s.run \
         WHERE s.status = 'QUEUED' AND s.session IS NOT NULL \
             AND NOT EXISTS (SELECT 1 FROM session o WHERE o.id = s.session) \
         ORDER BY s.id";
    /// Reads states in the wrong queue: neither that of their run's namespace nor that of a staging
    /// execution of their run.
    CHECK_QUEUES =
        "SELECT s.id, s.namespace, u.uuid \
         FROM state s \
         JOIN run u ON u.id = s.run \
         JOIN namespace n ON n.name = u.namespace \
         WHERE s.namespace <> n.id \
             AND (s.namespace >= 0 OR s.status NOT IN ('CREATED', 'CANCELLED') \
             OR NOT EXISTS (SELECT 1 FROM state p WHERE p.id = -s.namespace AND p.run = s.run)) \
         ORDER BY s.id";
    /// Reads states staged for an execution that has not ended and has no staging row.
    CHECK_ORPHAN_STAGED_STATES =
        "SELECT s.id, s.namespace \
         FROM state s \
         WHERE s.namespace < 0 \
             AND NOT EXISTS \
                 (SELECT 1 FROM state p WHERE p.id = -s.namespace AND p.status = 'SUCCESS') \
             AND NOT EXISTS (SELECT 1 FROM staged g WHERE g.state = -s.namespace) \
             AND NOT EXISTS (SELECT 1 FROM deleted_run d WHERE d.run = s.run) \
         ORDER BY s.id";
    CHECK_ORPHAN_STAGINGS =
        "SELECT g.state, g.state \
         FROM staged g \
         WHERE NOT EXISTS (SELECT 1 FROM state s WHERE s.id = g.state \
             AND s.status <> 'SUCCESS' AND s.fence >= g.fence AND s.run = g.run) \
         ORDER BY g.state";
    CHECK_ORPHAN_SNAPSHOTS =
        "SELECT f.state, f.state \
         FROM staged_snapshot f \
         WHERE NOT EXISTS (SELECT 1 FROM state s WHERE s.id = f.state AND s.status = 'SUCCESS') \
         ORDER BY f.state";
    /// Reads states whose stored outputs differ from their output count.
    CHECK_OUTPUT_COUNTS =
        "SELECT o.state, o.count, o.first, o.last, s.outputs, \
             CASE WHEN s.id IS NULL THEN NULL ELSE COALESCE(u.uuid, '?') END \
         FROM (SELECT state, COUNT(*) AS count, MIN(number) AS first, MAX(number) AS last \
             FROM output GROUP BY state) o \
         LEFT JOIN state s ON s.id = o.state \
         LEFT JOIN run u ON u.id = s.run \
         WHERE ((s.outputs IS NULL \
                 AND NOT EXISTS (SELECT 1 FROM staged g WHERE g.state = o.state)) \
             OR s.outputs <> o.count \
             OR (s.outputs IS NOT NULL AND (o.first <> 0 OR o.last <> o.count - 1))) \
             AND NOT EXISTS (SELECT 1 FROM deleted_run d WHERE d.run = s.run) \
         ORDER BY o.state";
    CHECK_MISSING_OUTPUTS =
        "SELECT s.id, s.outputs, u.uuid \
         FROM state s \
         LEFT JOIN run u ON u.id = s.run \
         WHERE s.outputs > 0 AND NOT EXISTS (SELECT 1 FROM output o WHERE o.state = s.id) \
             AND NOT EXISTS (SELECT 1 FROM deleted_run d WHERE d.run = s.run) \
         ORDER BY s.id";
    CHECK_OUTPUTS = "SELECT state, number, body FROM output";
    CHECK_ATTEMPTS =
        "SELECT a.state, a.number, a.outcome, a.kind, a.details, a.logs, a.log_run, s.attempt, s.run \
         FROM attempt a \
         LEFT JOIN state s ON s.id = a.state";
}
