//! Corruption cases: SQL statements, each with its expected violations.

use crate::attempt_cases::ATTEMPTS;
use crate::bulk_cases::BULKS;

/// A statement, and the expected violations: the rule, the table and column, the row. `<fan>` is
/// the id of that run, `<fan:00>` of the state at that path, `<+1>` the next unused state id. See
/// [`runs::fan`] for its paths.
pub struct Case(pub &'static str, pub &'static [&'static str]);

pub const CHILDREN: &[Case] = &[
    Case("DELETE FROM output WHERE state = <fan:0000>", &["outputs state.outputs <fan:0000>"]),
    Case("INSERT INTO output VALUES (<fan:0000>, 1, '{}')", &["outputs state.outputs <fan:0000>"]),
    Case(
        "UPDATE output SET number = 5 WHERE state = <fan:0000>",
        &["outputs state.outputs <fan:0000>"],
    ),
    Case(
        "UPDATE state SET outputs = 2 WHERE id = <fan:0000>",
        &["outputs state.outputs <fan:0000>", "count unite.arrived <fan:00~3>"],
    ),
    Case(
        "UPDATE state SET outputs = 4 WHERE id = <fan:00>",
        &[
            "outputs state.outputs <fan:00>",
            "children state.path <fan:00>",
            "unite unite.branches <fan:00~3>",
        ],
    ),
    // A leaf is deleted.
    Case(
        "DELETE FROM state WHERE id = <fan:00~300>",
        &[
            "children state.path <fan:00~3>",
            "orphan output.state <fan:00~300>",
            "total run.states <fan>",
            "total run.succeeded <fan>",
            "total run.node_counts <fan>",
        ],
    ),
    // A branch is missing in the middle.
    Case(
        "DELETE FROM output WHERE state = <fan:0010>; DELETE FROM state WHERE id = <fan:0010>",
        &[
            "children state.path <fan:00>",
            "count unite.arrived <fan:00~3>",
            "total run.states <fan>",
            "total run.succeeded <fan>",
            "total run.node_counts <fan>",
        ],
    ),
    // A unite is deleted, and its descendants have no ancestor.
    Case(
        "DELETE FROM state WHERE id = <fan:00~3>",
        &[
            "children state.path <fan:00>",
            "parent state.path <fan:00~300>",
            "orphan unite.state <fan:00~3>",
            "orphan output.state <fan:00~3>",
            "total run.states <fan>",
            "total run.succeeded <fan>",
            "total run.node_counts <fan>",
        ],
    ),
    // The root is deleted.
    Case(
        "DELETE FROM state WHERE id = <fan:>",
        &[
            "children run.states <fan>",
            "parent state.path <fan:00>",
            "orphan output.state <fan:>",
            "total run.states <fan>",
            "total run.succeeded <fan>",
            "total run.node_counts <fan>",
        ],
    ),
    // A state comes from an output that does not exist.
    Case(
        "UPDATE state SET path = '0090' WHERE id = <fan:0000>",
        &[
            "parent state.path <fan:0000>",
            "children state.path <fan:00>",
            "reference state.refs <fan:0000>",
        ],
    ),
    // A state comes from an edge that does not exist.
    Case(
        "UPDATE state SET path = '0001' WHERE id = <fan:0000>",
        &["parent state.path <fan:0000>", "children state.path <fan:00>"],
    ),
    // The same path is written in another way.
    Case(
        "UPDATE state SET path = '00{000' WHERE id = <fan:0000>",
        &["parent state.path <fan:0000>", "children state.path <fan:00>"],
    ),
    Case(
        "UPDATE state SET node = 4 WHERE id = <fan:0000>",
        &["parent state.node <fan:0000>", "total run.node_counts <fan>"],
    ),
    Case(
        "UPDATE state SET node = 77 WHERE id = <fan:0000>",
        &["parent state.node <fan:0000>", "total run.node_counts <fan>"],
    ),
    // A state has descendants, and no outputs.
    Case(
        "UPDATE state SET status = 'PRUNED', outputs = NULL WHERE id = <fan:00>",
        &[
            "parent state.path <fan:0000>",
            "parent state.path <fan:0010>",
            "parent state.path <fan:0020>",
            "parent state.path <fan:00~3>",
            "outputs state.outputs <fan:00>",
            "total run.succeeded <fan>",
            "total run.pruned <fan>",
            "total run.node_counts <fan>",
        ],
    ),
];

pub const UNITES: &[Case] = &[
    // A path occurs twice.
    Case(
        "DROP INDEX state_path; \
         INSERT INTO state (id, run, node, path, status, due_at, fence, attempt, retries, requeues, losses, conflicts, \
         refs, scopes, created_at, ended_at, namespace) SELECT <+1>, run, node, path, 'PRUNED', due_at, fence, \
         attempt, retries, \
         requeues, losses, conflicts, refs, scopes, created_at, ended_at, namespace FROM state WHERE id = <fan:00~3>",
        &[
            "once state.path <+1>",
            "total run.states <fan>",
            "total run.pruned <fan>",
            "total run.node_counts <fan>",
        ],
    ),
    Case("DELETE FROM unite WHERE state = <fan:00~3>", &["unite unite.state <fan:00~3>"]),
    Case(
        "INSERT INTO unite VALUES (<fan:0000>, <fan:>, 1, 0, 0, 0)",
        &["unite unite.state <fan:0000>"],
    ),
    Case(
        "UPDATE unite SET source = <fan:> WHERE state = <fan:00~3>",
        &["unite unite.source <fan:00~3>"],
    ),
    Case(
        "UPDATE unite SET branches = 7 WHERE state = <fan:00~3>",
        &["unite unite.branches <fan:00~3>"],
    ),
    // A unite without open members is still waiting.
    Case(
        "UPDATE unite SET open = 0 WHERE state = <open:00~3>",
        &["unite unite.open <open:00~3>", "count unite.open <open:00~3>"],
    ),
    // A unite ran too early.
    Case(
        "UPDATE unite SET open = 1 WHERE state = <fan:00~3>",
        &["unite unite.open <fan:00~3>", "count unite.open <fan:00~3>"],
    ),
    // A unite ran although a member failed.
    Case(
        "UPDATE unite SET failed = 1 WHERE state = <fan:00~3>",
        &["unite state.status <fan:00~3>", "count unite.failed <fan:00~3>"],
    ),
    // A unite is blocked without a cause.
    Case(
        "UPDATE unite SET failed = 0 WHERE state = <failed:00~3>",
        &["unite state.status <failed:00~3>", "count unite.failed <failed:00~3>"],
    ),
    Case(
        "UPDATE state SET status = 'WAITING' WHERE id = <open:0020>",
        &[
            "unite state.status <open:0020>",
            "claim state.fence <open:0020>",
            "total run.node_counts <open>",
        ],
    ),
    Case(
        "UPDATE state SET kind = 'blocked' WHERE id = <failed:0010>",
        &["unite state.kind <failed:0010>"],
    ),
];

pub const CLAIMS: &[Case] = &[
    Case(
        "UPDATE state SET session = NULL WHERE id = <open:0010>",
        &["claim state.session <open:0010>"],
    ),
    Case("UPDATE state SET session = 1 WHERE id = <fan:0000>", &["claim state.session <fan:0000>"]),
    Case(
        "UPDATE state SET session = 999 WHERE id = <open:0010>",
        &["claim state.session <open:0010>", "claim state.last_session <open:0010>"],
    ),
    Case(
        "UPDATE state SET fence = 0, attempt = 0, begun_fence = 0 WHERE id = <open:0010>",
        &["claim state.fence <open:0010>"],
    ),
    Case("UPDATE state SET attempt = 0 WHERE id = <fan:0000>", &["claim state.fence <fan:0000>"]),
    Case(
        "UPDATE state SET attempt = 9 WHERE id = <open:0010>",
        &["claim state.attempt <open:0010>"],
    ),
    Case(
        "UPDATE state SET begun_fence = 9 WHERE id = <open:0010>",
        &["claim state.begun_fence <open:0010>"],
    ),
    Case("UPDATE state SET fence = 1 WHERE id = <open:00~3>", &["claim state.fence <open:00~3>"]),
    Case("DELETE FROM session", &["claim state.session *"]),
];

pub const ENDS: &[Case] = &[
    // A finished run with open states, by its counts and by its rows.
    Case(
        "UPDATE run SET status = 'SUCCESS', ended_at = 5 WHERE id = <open>",
        &["end run.status <open>", "end run.status <open>"],
    ),
    Case(
        "UPDATE run SET status = 'RUNNING', ended_at = NULL WHERE id = <fan>",
        &["end run.status <fan>", "end run.status <fan>"],
    ),
    // Consistent counts that differ from the states.
    Case(
        "UPDATE run SET status = 'RUNNING', ended_at = NULL, open = 1 WHERE id = <fan>",
        &["end run.status <fan>", "count run.open <fan>"],
    ),
    Case(
        "UPDATE run SET status = 'SUCCESS', ended_at = 5, open = 0 WHERE id = <open>",
        &["end run.status <open>", "count run.open <open>"],
    ),
    Case("UPDATE run SET status = 'FAILED' WHERE id = <fan>", &["end run.status <fan>"]),
    Case(
        "UPDATE state SET status = 'CANCELLED', ended_at = 5 WHERE id = <open:0020>",
        &[
            "end state.status <open:0020>",
            "count unite.open <open:00~3>",
            "total run.cancelled <open>",
            "total run.node_counts <open>",
        ],
    ),
    // The run was swept, but not to its end.
    Case(
        "UPDATE state SET status = 'CREATED', ended_at = NULL WHERE id = <cancelled:0020>",
        &[
            "end run.status <cancelled>",
            "total run.cancelled <cancelled>",
            "total run.node_counts <cancelled>",
        ],
    ),
    Case(
        "UPDATE run SET sweep_event = 0 WHERE id = <half-swept>",
        &["end run.status <half-swept>", "count run.open <half-swept>"],
    ),
    Case("UPDATE run SET ended_at = NULL WHERE id = <fan>", &["value run.ended_at <fan>"]),
    Case("UPDATE run SET ended_at = 5 WHERE id = <open>", &["value run.ended_at <open>"]),
];

pub const COUNTS: &[Case] = &[
    Case("UPDATE unite SET open = 9 WHERE state = <open:00~3>", &["count unite.open <open:00~3>"]),
    Case(
        "UPDATE unite SET failed = 1 WHERE state = <open:00~3>",
        &["count unite.failed <open:00~3>"],
    ),
    Case(
        "UPDATE unite SET arrived = 2 WHERE state = <fan:00~3>",
        &["count unite.arrived <fan:00~3>"],
    ),
    // Counted in E, which lies in D: only the inner one is wrong.
    Case(
        "UPDATE unite SET open = open + 1 WHERE state = \
         (SELECT MIN(n.state) FROM unite n JOIN state s ON s.id = n.state \
         WHERE s.run = <reopened> AND s.status = 'WAITING')",
        &["count unite.open *"],
    ),
    Case("UPDATE run SET open = 5 WHERE id = <open>", &["count run.open <open>"]),
    Case("UPDATE run SET failed = 2 WHERE id = <failed>", &["count run.failed <failed>"]),
    Case("UPDATE run SET open = 1 WHERE id = <cancelled>", &["count run.open <cancelled>"]),
    Case("UPDATE run SET states = 9 WHERE id = <fan>", &["total run.states <fan>"]),
    Case("UPDATE run SET succeeded = 9 WHERE id = <fan>", &["total run.succeeded <fan>"]),
    Case("UPDATE run SET pruned = 9 WHERE id = <fan>", &["total run.pruned <fan>"]),
    Case("UPDATE run SET errored = 9 WHERE id = <fan>", &["total run.errored <fan>"]),
    Case(
        "UPDATE run SET cancelled = 9 WHERE id = <cancelled>",
        &["total run.cancelled <cancelled>"],
    ),
    Case("UPDATE run SET requeues = 9 WHERE id = <again>", &["total run.requeues <again>"]),
    Case("UPDATE run SET retries = 0 WHERE id = <again>", &["total run.retries <again>"]),
    Case("UPDATE state SET cpu_us = 7 WHERE id = <fan:00>", &["total run.cpu_us <fan>"]),
    Case(
        "UPDATE state SET memory_bytes = 7 WHERE id = <fan:00>",
        &["total run.memory_bytes <fan>"],
    ),
    Case("UPDATE run SET store_keys = 9 WHERE id = <kept>", &["store run.store_keys <kept>"]),
    Case("UPDATE run SET store_bytes = 9 WHERE id = <kept>", &["store run.store_bytes <kept>"]),
    Case("UPDATE run SET store_version = 0 WHERE id = <kept>", &["store run.store_version <kept>"]),
    Case(
        "DELETE FROM entry WHERE run = <kept>",
        &["store run.store_keys <kept>", "store run.store_bytes <kept>"],
    ),
    Case(
        "INSERT INTO entry VALUES (<fan>, 'k', 'v', 0); \
         UPDATE run SET store_keys = 1, store_bytes = 2 WHERE id = <fan>",
        &["store entry.run <fan>"],
    ),
    Case(
        "UPDATE state SET held_back = 1 WHERE id = <open:0020>",
        &["held-back state.held_back <open:0020>"],
    ),
    Case(
        "UPDATE state SET held_back = 0 WHERE id = <paused:0000>",
        &["held-back state.held_back <paused:0000>"],
    ),
    Case(
        "UPDATE state SET held_back = 1 WHERE id = <open:0010>",
        &["value state.held_back <open:0010>"],
    ),
    Case("UPDATE number SET next = 1 WHERE name = 'run'", &["number number.next -"]),
];

pub const NAMESPACES: &[Case] = &[
    Case("UPDATE run SET namespace = 'other' WHERE id = <fan>", &["namespace run.namespace <fan>"]),
    // The run names a revision of another graph of the same shape.
    Case(
        "UPDATE run SET revision = (SELECT revision FROM run WHERE id = <tolerant>) WHERE id = <fan>",
        &["namespace run.revision <fan>"],
    ),
    Case(
        "UPDATE run SET graph = 99 WHERE id = <fan>",
        &["orphan run.graph <fan>", "namespace run.revision <fan>"],
    ),
    Case("UPDATE run SET revision = 99 WHERE id = <fan>", &["orphan run.revision <fan>"]),
    Case("UPDATE graph SET current = 0 WHERE name = 'fan'", &["orphan graph.current -"]),
    // The rows name states of another run.
    Case(
        "UPDATE state SET refs = '[[1,<open:00>,0]]' WHERE id = <fan:0000>",
        &["reference state.refs <fan:0000>"],
    ),
    Case(
        "UPDATE state SET scopes = '[[3,<open:00~3>]]' WHERE id = <fan:0000>",
        &["reference state.scopes <fan:0000>"],
    ),
    Case(
        "UPDATE state SET refs = '[[1,<fan:00>,2]]' WHERE id = <fan:0000>",
        &["reference state.refs <fan:0000>"],
    ),
    Case(
        "UPDATE state SET refs = '[]' WHERE id = <fan:0000>",
        &["reference state.refs <fan:0000>"],
    ),
    Case(
        "UPDATE state SET scopes = '[]' WHERE id = <fan:0020>",
        &["reference state.scopes <fan:0020>"],
    ),
    // After a unite, the ancestors of a state are those of the unite's source.
    Case(
        "UPDATE state SET refs = '[[0,<fan:00>,0]]' WHERE id = <fan:00~300>",
        &["reference state.refs <fan:00~300>"],
    ),
    Case(
        "UPDATE state SET run = 999999 WHERE id = <fan:00~300>",
        &[
            "orphan state.run <fan:00~300>",
            "children state.path <fan:00~3>",
            "total run.states <fan>",
            "total run.succeeded <fan>",
            "total run.node_counts <fan>",
        ],
    ),
    Case("INSERT INTO unite VALUES (999999, 1, 1, 0, 0, 0)", &["orphan unite.state -"]),
    Case("INSERT INTO output VALUES (999999, 0, '{}')", &["orphan output.state -"]),
    Case("INSERT INTO entry VALUES (999999, 'k', 'v', 1)", &["orphan entry.run -"]),
    Case(
        "INSERT INTO attempt (state, number, ended_at, outcome) VALUES (999999, 1, 1, 'SUCCESS')",
        &["orphan attempt.state -"],
    ),
    Case("INSERT INTO staged VALUES (999999, 1, 1, 1)", &["orphan staged.state -"]),
    Case("INSERT INTO staged VALUES (<fan:00>, <fan>, 1, 1)", &["orphan staged.state -"]),
    Case(
        "INSERT INTO staged_snapshot VALUES (999999, 0, '{}')",
        &["orphan staged_snapshot.state -"],
    ),
    Case(
        "UPDATE state SET namespace = -<fan:00> WHERE id = <fan:0000>",
        &["namespace state.namespace <fan:0000>"],
    ),
    Case("DELETE FROM component", &["orphan exported.digest *", "orphan plugin.digest *"]),
    Case("DELETE FROM exported", &["value component.nodes -"]),
    Case(
        "UPDATE state SET namespace = 77 WHERE id = <fan:00>",
        &["namespace state.namespace <fan:00>"],
    ),
];

pub const VALUES: &[Case] = &[
    Case(
        "UPDATE state SET status = 'DONE' WHERE id = <fan:0000>",
        &["value state.status <fan:0000>"],
    ),
    Case("UPDATE run SET status = 'DONE' WHERE id = <fan>", &["value run.status <fan>"]),
    Case(
        "UPDATE state SET path = '!!' WHERE id = <fan:00~300>",
        &["value state.path <fan:00~300>", "children state.path <fan:00~3>"],
    ),
    Case("UPDATE state SET refs = 'x' WHERE id = <fan:0000>", &["value state.refs <fan:0000>"]),
    Case(
        "UPDATE state SET scopes = '[[1]]' WHERE id = <fan:0000>",
        &["value state.scopes <fan:0000>"],
    ),
    Case(
        "UPDATE state SET store_snapshot = '[1]' WHERE id = <fan:0000>",
        &["value state.store_snapshot <fan:0000>"],
    ),
    Case(
        "UPDATE state SET details = '{' WHERE id = <pruned:0000>",
        &["value state.details <pruned:0000>"],
    ),
    Case(
        "UPDATE state SET kind = 'odd' WHERE id = <failed:0010>",
        &["value state.kind <failed:0010>"],
    ),
    Case(
        "UPDATE state SET kind = NULL WHERE id = <failed:0010>",
        &["value state.kind <failed:0010>"],
    ),
    Case(
        "UPDATE state SET ended_at = NULL WHERE id = <fan:0000>",
        &["value state.ended_at <fan:0000>"],
    ),
    Case("UPDATE state SET losses = -1 WHERE id = <fan:0000>", &["value state.losses <fan:0000>"]),
    Case("UPDATE run SET node_counts = '0-0:x' WHERE id = <fan>", &["value run.node_counts <fan>"]),
    Case("UPDATE run SET node_counts = '' WHERE id = <fan>", &["total run.node_counts <fan>"]),
    Case(
        "INSERT INTO label (run, key, value, namespace, created_at) VALUES (999999, 'k', 'v', 'n', 0)",
        &["orphan label.run k"],
    ),
    Case(
        "INSERT INTO deleted_run (run, deleted_at) VALUES (<fan>, 1)",
        &["orphan deleted_run.run <fan>"],
    ),
    Case(
        "INSERT INTO deadline (run, kind, due_at) VALUES (999999, 'deadline', 1)",
        &["orphan deadline.run deadline"],
    ),
    Case(
        "INSERT INTO deadline (run, kind, due_at, missed_at) VALUES (<fan>, 'deadline', 1, 1)",
        &["end run.status <fan>"],
    ),
    Case(
        "INSERT INTO paused_run (run, graph) VALUES (999999, 1)",
        &["orphan paused_run.run 999999"],
    ),
    Case(
        "INSERT INTO run_pause (run, paused_at) VALUES (999999, 1)",
        &["orphan run_pause.run 999999"],
    ),
    Case(
        "INSERT INTO revision_plugin (revision, plugin, digest) VALUES (999999, 'p', 'd')",
        &["orphan revision_plugin.revision d"],
    ),
    Case(
        "DELETE FROM revision_plugin \
         WHERE revision = (SELECT revision FROM run WHERE id = <fan>)",
        &["value revision.body -"],
    ),
    Case("UPDATE label SET key = 'a:b' WHERE run = <forks>", &["value label.key <forks>/a:b"]),
    Case(
        "UPDATE label SET value = 'a\nb' WHERE run = <forks>",
        &["value label.value <forks>/team"],
    ),
    Case(
        "UPDATE label SET created_at = 5 WHERE run = <forks>",
        &["value label.created_at <forks>/team"],
    ),
    Case(
        "UPDATE label SET namespace = 'x' WHERE run = <forks>",
        &["namespace label.namespace <forks>/team"],
    ),
    Case(
        "INSERT INTO label (run, key, value, namespace, created_at) \
         SELECT l.run, 'k' || CAST(s.id AS TEXT), '', l.namespace, l.created_at \
         FROM label l CROSS JOIN (SELECT id FROM state ORDER BY id LIMIT 16) s",
        &["value label.run <forks>/team"],
    ),
    Case(
        "INSERT INTO run_inputs (run, inputs) VALUES (999999, '{}')",
        &["orphan run_inputs.run 999999"],
    ),
    Case("UPDATE run SET inputs = '' WHERE id = <fan>", &["value run.inputs <fan>"]),
    Case(
        "INSERT INTO run_start_store (run, store) VALUES (999999, '{}')",
        &["orphan run_start_store.run 999999"],
    ),
    Case(
        "UPDATE state SET held_back = 2 WHERE id = <cancelled:0000>",
        &["value state.held_back <cancelled:0000>"],
    ),
    Case(
        "UPDATE state SET delayed = 2 WHERE id = <cancelled:0000>",
        &["value state.delayed <cancelled:0000>"],
    ),
    Case("UPDATE run SET uuid = 'x' WHERE id = <fan>", &["value run.uuid <fan>"]),
    Case(
        "UPDATE run SET namespace = '' WHERE id = <fan>",
        &["value run.namespace <fan>", "namespace run.namespace <fan>"],
    ),
    Case("UPDATE run SET inputs = '[]' WHERE id = <fan>", &["value run.inputs <fan>"]),
    Case("UPDATE run SET redrive = 999 WHERE id = <fan>", &["value run.redrive <fan>"]),
    Case("UPDATE run SET sweep_event = 999 WHERE id = <fan>", &["value run.sweep_event <fan>"]),
    Case("UPDATE run SET start_key = '' WHERE id = <fan>", &["value run.start_key <fan>"]),
    Case("UPDATE run SET start_digest = 'x' WHERE id = <fan>", &["value run.start_digest <fan>"]),
    Case("UPDATE run SET start_store = '[]' WHERE id = <fan>", &["value run.start_store <fan>"]),
    Case("UPDATE run SET open = -1 WHERE id = <fan>", &["value run.open <fan>"]),
    Case(
        "UPDATE unite SET open = -1 WHERE state = <open:00~3>",
        &[
            "value unite.open <open:00~3>",
            "unite unite.open <open:00~3>",
            "count unite.open <open:00~3>",
        ],
    ),
    Case("UPDATE output SET body = '[1]' WHERE state = <fan:0000>", &["value output.body -"]),
    Case("UPDATE output SET body = '{' WHERE state = <fan:0000>", &["value output.body -"]),
    Case(
        "UPDATE revision SET digest = 'd' WHERE id = (SELECT revision FROM run WHERE id = <fan>)",
        &["value revision.digest -"],
    ),
    Case(
        "UPDATE revision SET body = '{}' WHERE id = (SELECT revision FROM run WHERE id = <forks>)",
        &["value revision.body -", "value revision.digest -"],
    ),
    Case("UPDATE graph SET name = ' ' WHERE name = 'fan'", &["value graph.name -"]),
    Case("UPDATE component SET nodes = '{}'", &["value component.nodes *"]),
    Case(
        "INSERT INTO secret (namespace, graph, name, sealed, key_id) VALUES ('n', 'g', ' ', '', 'short')",
        &["value secret.name -", "value secret.key_id -"],
    ),
    Case("UPDATE seal SET key_id = ''", &["value seal.key_id -"]),
    Case("INSERT INTO namespace (name) VALUES ('..')", &["value namespace.name -"]),
    Case(
        "INSERT INTO namespace (name, quotas) VALUES ('q', '{\"other\":1}')",
        &["value namespace.quotas -"],
    ),
    Case(
        "INSERT INTO api_key (id, digest, role, namespaces, payloads, label, created_at) \
         VALUES ('not an id...', 'x' || '012345678901234567890123456789012345678901234567890123456789012', \
         'viewer', 'a,', 0, '', 0)",
        &["value api_key.id -", "value api_key.digest -", "value api_key.namespaces -"],
    ),
    Case("INSERT INTO capability VALUES ('n', 'p', '[]', 1)", &["value capability.grants -"]),
    Case("UPDATE component SET size = 7", &["value component.size *"]),
];

/// Values of a wrong type, which only SQLite stores.
pub const TYPES: &[Case] = &[
    Case(
        "UPDATE state SET losses = 'many' WHERE id = <fan:0000>",
        &["value state.losses <fan:0000>"],
    ),
    Case(
        "UPDATE state SET due_at = 'soon' WHERE id = <fan:0000>",
        &["value state.due_at <fan:0000>"],
    ),
    Case(
        "UPDATE state SET ended_at = 'late' WHERE id = <fan:0000>",
        &["value state.ended_at <fan:0000>"],
    ),
    Case("UPDATE run SET version = 1.5 WHERE id = <fan>", &["value run.version <fan>"]),
    // Columns that the checks of other tables join: each is reported once, by its own table.
    Case(
        "UPDATE graph SET namespace = x'ff' WHERE id = (SELECT graph FROM run WHERE id = <fan>)",
        &["value graph.namespace -"],
    ),
    Case(
        "UPDATE revision SET graph = 'one' WHERE id = (SELECT revision FROM run WHERE id = <fan>)",
        &["value revision.graph -"],
    ),
    Case(
        "UPDATE state SET attempt = 'many' WHERE id = (SELECT MIN(state) FROM attempt)",
        &["value state.attempt -"],
    ),
    Case("UPDATE exported SET node = x'ff'", &["value exported.node ?"]),
    Case(
        "UPDATE state SET path = x'ff' WHERE id = <fan:00~300>",
        &["value state.path <fan:00~300>", "children state.path <fan:00~3>"],
    ),
    Case(
        "UPDATE state SET run = 'one' WHERE id = <fan:00~300>",
        &[
            "orphan state.run <fan:00~300>",
            "children state.path <fan:00~3>",
            "total run.states <fan>",
            "total run.succeeded <fan>",
            "total run.node_counts <fan>",
        ],
    ),
];

pub const ALL: [&[Case]; 9] =
    [CHILDREN, UNITES, CLAIMS, ENDS, COUNTS, NAMESPACES, VALUES, BULKS, ATTEMPTS];
