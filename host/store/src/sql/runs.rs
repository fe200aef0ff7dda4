//! Runs. Their columns are in lists, `run_counters!`, `run_progress!` and `run_columns!`; the struct of a
//! row, its reader and the texts of all statements come from these.
//!
//! CONTRIBUTING.md lists what belongs to a new counter. `commit::run_row` counts for
//! the other modules there.

use exosphere_domain::ids::{Millis, RunKey};
use exosphere_domain::node_counts::NodeCounts;
use exosphere_domain::state::RunStatus;

use crate::dialect::{Column, ParamRows, Row, Statement, WrittenColumn, row_struct};
use crate::error::StoreError;

/// The counters of a run that users see; 0 when it starts.
macro_rules! run_counters {
    ($then:ident $($args:tt)*) => {
        $then! { $($args)*
            /// The number of states so far.
            states: int i64,
            /// The number of states that succeeded.
            succeeded: int i64,
            /// The number of states that were pruned.
            pruned: int i64,
            /// The number of states that failed.
            errored: int i64,
            /// The number of states that were cancelled.
            cancelled: int i64,
            /// The number of failed attempts that another attempt followed.
            retries: int i64,
            /// The number of attempts that requeued their state.
            requeues: int i64,
            /// The number of keys in the run's store.
            store_keys: int i64,
            /// The CPU time of all attempts, in microseconds; executions that a cancel stopped do not
            /// count.
            cpu_us: int i64,
            /// The largest memory of an attempt, in bytes.
            memory_bytes: int i64,
        }
    };
}
pub(crate) use run_counters;

/// The columns of a run that each of its commits writes.
macro_rules! run_progress {
    ($then:ident $($args:tt)*) => {
        run_counters! { $then $($args)*
            /// The number of the run's latest event.
            version: int i64,
            /// The open states of the outermost scope.
            open: int i64,
            /// The failed states of the outermost scope.
            failed: int i64,
            /// The bytes of the run's store.
            store_bytes: int i64,
            /// The number of the latest write to the run's store.
            store_version: int i64,
            /// The states of each node.
            node_counts: text NodeCounts,
        }
    };
}

/// The columns of a run that a commit writes: those that each one writes, and those of its life
/// cycle, which are in indexes. SQLite writes an index whenever a statement sets one of its columns.
macro_rules! run_columns {
    ($then:ident $($args:tt)*) => {
        run_progress! { $then $($args)*
            /// The status of the run.
            status: text RunStatus,
            /// Set if the run is paused: none of its states is claimed.
            paused: int bool,
            /// The number of the event for which the run's states are still to be swept; 0 if none.
            sweep_event: int i64,
            /// The number of the event by which a redrive in parts began; 0 if none is under way.
            redrive: int i64,
            /// The time at which the run ended.
            ended_at: int Option<i64>,
        }
    };
}

/// The columns of a run that a commit reads: those that it writes, and three that never change.
macro_rules! run_row {
    ($then:ident $($args:tt)*) => {
        run_columns! { $then $($args)*
            id: int RunKey,
            created_at: int Millis,
            /// The time at which the root was due first; `None` for runs of before.
            due_at: int Option<i64>,
        }
    };
}

run_row! { row_struct [
    /// The mutable columns of a run's row.
    #[derive(Debug, Clone)]
    pub(crate) struct RunRow of "run"
] }

/// Adds columns to the parameters of a statement for many rows.
macro_rules! add_columns {
    ($rows:ident $all:ident $($(#[$doc:meta])* $name:ident: $sql:ident $type:ty),* $(,)?) => {
        $(let $rows = <$type as WrittenColumn>::add($rows, $all.iter().map(|row| &row.$name));)*
    };
}

/// The columns of a run's life cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LifeCycle {
    pub status: RunStatus,
    pub paused: bool,
    sweep_event: i64,
    redrive: i64,
    ended_at: Option<i64>,
}

impl RunRow {
    /// Returns the life cycle of the run.
    pub(crate) fn life_cycle(&self) -> LifeCycle {
        let RunRow { status, paused, sweep_event, redrive, ended_at, .. } = *self;
        LifeCycle { status, paused, sweep_event, redrive, ended_at }
    }

    /// Returns the parameters of [`SAVE_RUN`].
    pub(crate) fn params(all: &[RunRow]) -> ParamRows<'static> {
        let rows = ParamRows::default().ints(all.iter().map(|row| row.id.0));
        run_columns!(add_columns rows all);
        rows
    }

    /// Returns the parameters of [`SAVE_RUN_PROGRESS`].
    pub(crate) fn progress_params(all: &[RunRow]) -> ParamRows<'static> {
        let rows = ParamRows::default().ints(all.iter().map(|row| row.id.0));
        run_progress!(add_columns rows all);
        rows
    }
}

impl Column for RunKey {
    fn read(row: &dyn Row, at: usize) -> Result<Option<Self>, StoreError> {
        Ok(Some(RunKey(row.int(at)?)))
    }
}

/// The columns of a run as people see it, in the order in which `RunView` reads them.
macro_rules! run_view {
    ($node_counts:literal) => {
        concat!(
            "SELECT u.id, u.uuid, g.name, r.number, u.status, u.paused, u.version, \
                 u.created_at, u.due_at, u.ended_at, \
                 (SELECT d.kind FROM deadline d \
                     WHERE d.run = u.id AND d.missed_at IS NOT NULL LIMIT 1), \
                 (SELECT d.due_at FROM deadline d WHERE d.run = u.id AND d.kind = 'deadline'), \
                 (SELECT d.due_at FROM deadline d WHERE d.run = u.id AND d.kind = 'start-by'), ",
            $node_counts,
            ", ",
            run_counters!(names_of_u),
            " FROM run u \
             JOIN graph g ON g.id = u.graph \
             JOIN revision r ON r.id = u.revision"
        )
    };
}

/// Counts of no nodes, of the length that they have with a few nodes: `NodeCounts::encode`.
macro_rules! empty_node_counts {
    () => {
        ";;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;"
    };
}

statements! {
    /// Inserts runs of current or pinned revisions one after the other, in the given order. That order
    /// decides which start is first with a key, and which transaction waits for which. (A join
    /// alone does not keep an order.) The lock of the graph is that of the run's reference to it;
    /// a start that waits for the deletion of its graph inserts nothing.
    /// The run of a paused graph is born paused.
    NEW_RUN = concat!(
        "INSERT INTO run (id, uuid, namespace, graph, revision, status, version, inputs, \
             created_at, open, failed, ",
        run_counters!(names),
        ", store_bytes, store_version, start_key, start_digest, paused, due_at, start_store, \
             started_by, node_counts) \
         SELECT $1, $2, $3, r.graph, r.id, 'RUNNING', 0, $5, $6, 1, 0, ",
        run_counters!(zeros),
        ", 0, 0, $7, $8, CASE WHEN g.paused_at IS NULL THEN 0 ELSE 1 END, $10, $11, $12, '",
        empty_node_counts!(),
        "' \
         FROM revision r \
         JOIN graph g ON g.id = r.graph AND (g.current = r.id OR $9 = 1) \
         WHERE r.id = $4 \
         ON CONFLICT DO NOTHING \
         RETURNING id"
    ),
    postgres concat!(
        "INSERT INTO run (id, uuid, namespace, graph, revision, status, version, inputs, \
             created_at, open, failed, ",
        run_counters!(names),
        ", store_bytes, store_version, start_key, start_digest, paused, due_at, start_store, \
             started_by, node_counts) \
         SELECT n.id, n.uuid, n.namespace, r.graph, r.id, 'RUNNING', 0, n.inputs, n.now, 1, 0, ",
        run_counters!(zeros),
        ", 0, 0, n.start_key, n.start_digest, \
             CASE WHEN g.paused_at IS NULL THEN 0 ELSE 1 END, n.due_at, n.start_store, \
             n.started_by, '",
        empty_node_counts!(),
        "' \
         FROM ",
        arrays!(
            id: int, uuid: text, namespace: text, revision: int, inputs: text, now: int,
            start_key: text, start_digest: text, is_pinned: int, due_at: int, start_store: text,
            started_by: text
        ),
        " WITH ORDINALITY \
             AS n (id, uuid, namespace, revision, inputs, now, start_key, start_digest, \
                 is_pinned, due_at, start_store, started_by, at) \
         JOIN revision r ON r.id = n.revision \
         JOIN graph g ON g.id = r.graph AND (g.current = r.id OR n.is_pinned = 1) \
         ORDER BY n.at \
         FOR KEY SHARE OF g \
         ON CONFLICT DO NOTHING \
         RETURNING id"
    );
    /// Inserts the large inputs of a run.
    NEW_INPUTS = "INSERT INTO run_inputs (run, inputs) VALUES ($1, $2)",
    postgres concat!(
        "INSERT INTO run_inputs (run, inputs) \
         SELECT * \
         FROM ",
        arrays!(run: int, inputs: text)
    );
    /// Inserts the large store of a start.
    NEW_START_STORE = "INSERT INTO run_start_store (run, store) VALUES ($1, $2)",
    postgres concat!(
        "INSERT INTO run_start_store (run, store) \
         SELECT * \
         FROM ",
        arrays!(run: int, store: text)
    );
    /// Reads the run that prevents a new one: it has the same id, or the same idempotency key.
    CONFLICTING_RUN =
        "SELECT u.uuid, g.name, u.start_digest \
         FROM run u \
         JOIN graph g ON g.id = u.graph \
         WHERE u.uuid = $1 OR (u.namespace = $2 AND u.start_key = $3) \
         ORDER BY u.id LIMIT 1";
    /// Reads the run that an idempotency key has started.
    STARTED_WITH =
        "SELECT u.uuid, g.name, u.start_digest \
         FROM run u \
         JOIN graph g ON g.id = u.graph \
         WHERE u.namespace = $1 AND u.start_key = $2";
    /// Reads the mutable columns of a run. On Postgres this locks the row, and every transaction
    /// that writes below a run has locked it here.
    RUN_ROW = concat!("SELECT ", run_row!(names), " FROM run WHERE id = $1"),
    postgres concat!(
        "SELECT ",
        run_row!(names),
        " FROM run \
         WHERE id = ANY($1) \
         ORDER BY id FOR UPDATE"
    );
    SAVE_RUN = concat!("UPDATE run SET ", run_columns!(sets_from_2), " WHERE id = $1"),
    postgres concat!(
        "UPDATE run \
         SET ",
        run_columns!(sets_from_n),
        " FROM ",
        run_columns!(unnest id: int,),
        " WHERE run.id = n.id"
    );
    /// Writes the row of a run whose life cycle has not changed.
    SAVE_RUN_PROGRESS =
        concat!("UPDATE run SET ", run_progress!(sets_from_2), " WHERE id = $1"),
    postgres concat!(
        "UPDATE run \
         SET ",
        run_progress!(sets_from_n),
        " FROM ",
        run_progress!(unnest id: int,),
        " WHERE run.id = n.id"
    );
    PENDING_SWEEPS =
        "SELECT id, sweep_event, redrive FROM run WHERE sweep_event > 0 \
         UNION SELECT id, sweep_event, redrive FROM run WHERE redrive > 0";
    RUN_INFO =
        "SELECT u.uuid, u.namespace, g.name, r.number, r.body, COALESCE(i.inputs, u.inputs), \
             r.id, n.id \
         FROM run u \
         JOIN graph g ON g.id = u.graph \
         JOIN revision r ON r.id = u.revision \
         JOIN namespace n ON n.name = u.namespace \
         LEFT JOIN run_inputs i ON i.run = u.id \
         WHERE u.id = $1";
    /// Reads what a run was started with, beside its inputs.
    RUN_START =
        "SELECT COALESCE(s.store, u.start_store), u.start_key, u.created_at, u.due_at, u.started_by \
         FROM run u \
         LEFT JOIN run_start_store s ON s.run = u.id \
         WHERE u.id = $1";
    RUN_START_SIZE =
        "SELECT CAST(octet_length(COALESCE(i.inputs, u.inputs)) \
             + COALESCE(octet_length(s.store), octet_length(u.start_store), 0) AS BIGINT) \
         FROM run u \
         LEFT JOIN run_inputs i ON i.run = u.id \
         LEFT JOIN run_start_store s ON s.run = u.id \
         WHERE u.id = $1";
    /// Reads the key of a run of a namespace.
    RUN_KEY = "SELECT u.id FROM run u WHERE u.uuid = $2 AND u.namespace = $1";
    /// Reads the ids of runs by their keys, the newest first.
    RUN_IDS =
        "SELECT u.uuid \
         FROM run u \
         WHERE u.id IN (SELECT value FROM json_each($1)) \
         ORDER BY u.created_at DESC, u.id DESC",
    postgres
        "SELECT u.uuid \
         FROM run u \
         WHERE u.id = ANY (ARRAY(SELECT value::BIGINT FROM json_array_elements_text($1::JSON))) \
         ORDER BY u.created_at DESC, u.id DESC";
    /// Reads the statuses of several runs.
    RUN_STATUSES =
        "SELECT id, version, status, paused, \
             (SELECT COUNT(*) FROM deadline d WHERE d.run = run.id AND d.missed_at IS NOT NULL) \
         FROM run \
         WHERE id IN (SELECT value FROM json_each($1))",
    postgres
        "SELECT id, version, status, paused, \
             (SELECT COUNT(*) FROM deadline d WHERE d.run = run.id AND d.missed_at IS NOT NULL) \
         FROM run \
         WHERE id IN (SELECT value::BIGINT FROM json_array_elements_text($1::JSON))";
    /// Reads runs by their keys, the newest first, without counts of nodes. Hosts take run numbers
    /// in blocks, so that a larger number is not always a later run's.
    RUN_VIEWS = concat!(
        run_view!("''"),
        " WHERE u.id IN (SELECT value FROM json_each($1)) \
         ORDER BY u.created_at DESC, u.id DESC"
    ),
    postgres concat!(
        run_view!("''"),
        " WHERE u.id = ANY (ARRAY(SELECT value::BIGINT FROM json_array_elements_text($1::JSON))) \
         ORDER BY u.created_at DESC, u.id DESC"
    );
    /// Reads a run. (`IS NOT DISTINCT FROM` stops the planner from choosing the index of a
    /// namespace's runs while it has no statistics.)
    RUN = concat!(
        run_view!("u.node_counts"),
        " WHERE u.uuid = $2 AND u.namespace IS NOT DISTINCT FROM $1"
    );
}

#[cfg(test)]
mod tests {
    use exosphere_domain::node_counts::NodeCounts;

    #[test]
    fn a_new_run_has_padded_counts() {
        assert_eq!(NodeCounts::default().encode(), empty_node_counts!());
    }
}
