//! The row of a run: each value, and the values against each other. Not here: its states.

use exosphere_domain::ids::{Name, RunId};
use exosphere_domain::node_counts::NodeCounts;
use exosphere_domain::start_digest::StartDigest;
use exosphere_domain::state::RunStatus;

use super::report::{Findings, kind};
use super::row_reader::{Columns, JoinedValue, RowReader, check_json_object};
use crate::dialect::Row;
use crate::sql::{self, run_counters};

/// A run, with the valid values of its row.
#[derive(Debug, Default)]
pub(super) struct RunRow {
    pub id: i64,
    pub uuid: String,
    pub status: Option<RunStatus>,
    pub paused: bool,
    pub revision: i64,
    pub version: i64,
    pub open: i64,
    pub failed: i64,
    pub store_bytes: i64,
    pub store_version: i64,
    pub sweep_event: i64,
    pub redrive: i64,
    /// The number of deadlines that it has missed: the sweep of such a run ends its states.
    pub missed: i64,
    pub counters: Counters,
    /// The states of each node; `None` if the value is not valid.
    pub node_counts: Option<NodeCounts>,
}

/// Declares [`Counters`] from the list of counters.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident: $sql:ident $type:ty),* $(,)?) => {
        /// The counters of a run that users see.
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub $name: $type,)*
        }

        impl Counters {
            fn read(mut count: impl FnMut(&'static str) -> i64) -> Self {
                Counters { $($name: count(stringify!($name)),)* }
            }
        }
    };
}
run_counters!(counters);

impl RunRow {
    pub(super) fn read(row: &dyn Row, findings: &mut Findings) -> Self {
        findings.checked.runs += 1;
        let id = row.int(0).unwrap_or_default();
        let uuid = row.text(1).unwrap_or_default();
        let (key, columns) = (id.to_string(), sql::CHECK_RUNS_COLUMNS);
        let reader = &mut RowReader {
            row,
            columns: Columns::new(columns),
            table: "run",
            key,
            run: Some(&uuid),
            findings,
        };
        let read = RunRow::read_columns(reader);
        read.check_status(reader);
        check_owners(reader);
        RunRow { id, uuid, ..read }
    }

    fn read_columns(row: &mut RowReader<'_>) -> Self {
        row.parsed("uuid", |text| Some(RunId(text.parse().ok()?)));
        row.parsed("namespace", |text| text.parse::<Name>().ok());
        row.parsed("inputs", check_json_object);
        row.maybe_parsed("start_key", |text| (!text.is_empty()).then_some(()));
        row.maybe_parsed("start_digest", |text| text.parse::<StartDigest>().ok());
        row.maybe_parsed("start_store", check_json_object);
        let paused = row.flag("paused");
        let status = row.parsed("status", RunStatus::parse);
        let node_counts = row.parsed("node_counts", NodeCounts::decode);
        let mut count = |column| row.count(column).unwrap_or_default();
        RunRow {
            status,
            node_counts,
            paused,
            revision: count("revision"),
            version: count("version"),
            open: count("open"),
            failed: count("failed"),
            store_bytes: count("store_bytes"),
            store_version: count("store_version"),
            sweep_event: count("sweep_event"),
            redrive: count("redrive"),
            missed: count("missed"),
            counters: Counters::read(count),
            ..RunRow::default()
        }
    }

    /// Checks a run's status against its own counts: invariant 4.
    fn check_status(&self, row: &mut RowReader<'_>) {
        let version = self.version;
        for (column, event) in [("sweep_event", self.sweep_event), ("redrive", self.redrive)] {
            if event > version {
                row.report_value(
                    column,
                    format_args!("is {event}, an event that never was: the last is {version}"),
                );
            }
        }
        let Some(status) = self.status else { return };
        row.maybe_int("ended_at");
        if row.has_value("ended_at") == (status == RunStatus::Running) {
            let is = if row.has_value("ended_at") { "is present" } else { "is missing" };
            row.report_value("ended_at", format_args!("{is} though it is {status}"));
        }
        let by_counts = RunStatus::from_counts(self.open, self.failed);
        if self.missed > 0 && status != RunStatus::Failed {
            let message = format!("is {status}, and it has missed a deadline");
            row.findings.add(kind!(End, run.status), &row.key, row.run, message);
        }
        if status != RunStatus::Cancelled && status != by_counts {
            let (open, failed) = (self.open, self.failed);
            let message =
                format!("is {status}, and with {open} open and {failed} failed it is {by_counts}");
            row.findings.add(kind!(End, run.status), &row.key, row.run, message);
        }
    }

    /// Returns whether the run ended although states of it were open, so that outcomes and counts
    /// no longer matter.
    pub(super) fn is_stopped(&self) -> bool {
        self.status == Some(RunStatus::Cancelled) || self.missed > 0
    }
}

/// Checks that the rows that a run names exist and are of its namespace.
fn check_owners(row: &mut RowReader<'_>) {
    let (graph, revision) = (row.int("graph"), row.int("revision"));
    let (id, run) = (row.key.clone(), row.run);
    match (row.joined_text("graph_namespace"), row.row.text(2)) {
        (JoinedValue::Missing, _) => {
            let message = "names a graph that does not exist";
            row.findings.add(kind!(Orphan, run.graph), &id, run, message);
        }
        (JoinedValue::Value(other), Ok(namespace)) if other != namespace => {
            let message = format!("is {namespace:?}, and that of its graph is {other:?}");
            row.findings.add(kind!(Namespace, run.namespace), &id, run, message);
        }
        _ => {}
    }
    match (row.joined_int("revision_graph"), graph, revision) {
        (JoinedValue::Missing, ..) => {
            let message = "names a revision that does not exist";
            row.findings.add(kind!(Orphan, run.revision), &id, run, message);
        }
        (JoinedValue::Value(other), Some(graph), Some(revision)) if other != graph => {
            let message = format!("is {revision}, which is of graph {other} and not of {graph}");
            row.findings.add(kind!(Namespace, run.revision), &id, run, message);
        }
        _ => {}
    }
}
