//! Checks a state's row by itself: each value, and the values against each other. Not here: the
//! state's place in its run.

use std::collections::BTreeMap;

use exosphere_domain::failure::FailureKind;
use exosphere_domain::ids::{NodeIx, StateId};
use exosphere_domain::path::Path;
use exosphere_domain::state::{Counts, Ref, Scope, Status};

use super::report::kind;
use super::row_reader::{RowReader, check_json, json};
use crate::codec::{decode_refs, decode_scopes};
use crate::dialect::Row;

/// A state, with the valid values of its row.
pub(super) struct StateRow {
    pub id: i64,
    pub node: Option<NodeIx>,
    pub path: Option<Path>,
    pub status: Option<Status>,
    pub fence: i64,
    pub retries: i64,
    pub requeues: i64,
    pub refs: Option<Vec<Ref>>,
    pub scopes: Option<Vec<Scope>>,
    /// The number of outputs of a SUCCESS state.
    pub outputs: Option<u32>,
    pub kind: Option<FailureKind>,
    pub held_back: bool,
    /// The CPU time of the last attempt, in microseconds.
    pub cpu_us: i64,
    /// The memory of the last attempt, in bytes.
    pub memory_bytes: i64,
    /// The state's row in `unite`.
    pub unite: Option<UniteRow>,
}

/// A row of `unite`.
#[derive(Debug, Clone, Copy)]
pub(super) struct UniteRow {
    pub source: i64,
    pub branches: i64,
    pub counts: Counts,
}

/// Returns the run of a row of [`crate::sql::CHECK_STATES`].
pub(super) fn run_of(row: &dyn Row) -> Option<i64> {
    row.int(1).ok()
}

impl StateRow {
    pub(super) fn read(row: &mut RowReader<'_>) -> Self {
        let id = row.int("id").unwrap_or_default();
        let node = row.count("node").and_then(|node| u32::try_from(node).ok());
        let status = row.parsed("status", Status::parse);
        let requeues = row.count("requeues").unwrap_or_default();
        row.count("losses");
        row.count("conflicts");
        row.int("due_at");
        row.maybe_parsed("store_snapshot", json::<BTreeMap<String, String>>);
        row.maybe_parsed("details", check_json);
        let held_back = row.flag("held_back");
        row.flag("delayed");
        let state = StateRow {
            id,
            node: node.map(NodeIx),
            path: row.parsed("path", |text| Path::decode(text).ok()),
            status,
            fence: row.count("fence").unwrap_or_default(),
            retries: row.count("retries").unwrap_or_default(),
            requeues,
            refs: row.parsed("refs", |text| decode_refs(text, StateId(id)).ok()),
            scopes: row
                .parsed("scopes", |text| Some(decode_scopes(text, StateId(id)).ok()?.to_vec())),
            outputs: outputs(row),
            kind: row.maybe_parsed("kind", FailureKind::parse),
            held_back,
            cpu_us: row.maybe_int("cpu_us").unwrap_or_default(),
            memory_bytes: row.maybe_int("memory_bytes").unwrap_or_default(),
            unite: unite(row),
        };
        state.check_required_columns(row);
        state.check_claim(row);
        state
    }

    /// Checks the columns that a status requires, or must not have.
    fn check_required_columns(&self, row: &mut RowReader<'_>) {
        let Some(status) = self.status else { return };
        row.maybe_int("ended_at");
        let of_a_status = [
            ("ended_at", status.is_terminal()),
            ("outputs", status == Status::Success),
            ("kind", status == Status::Errored),
        ];
        for (column, required) in of_a_status {
            if row.has_value(column) != required {
                let is = if required { "is missing" } else { "is present" };
                row.report_value(column, format_args!("{is} though it is {status}"));
            }
        }
        if self.held_back && !matches!(status, Status::Created | Status::Cancelled) {
            row.report_value("held_back", format_args!("is 1 though it is {status}"));
        }
    }

    /// Checks the claim, its session and its fence: invariant 3.
    fn check_claim(&self, row: &mut RowReader<'_>) {
        let attempt = row.count("attempt");
        let begun_fence = row.count("begun_fence").unwrap_or_default();
        let session = row.maybe_int("session");
        let last_session = row.maybe_int("last_session");
        let held = row.has_value("session");
        let (id, run, fence) = (self.id, row.run, self.fence);
        let findings = &mut *row.findings;
        if let Some(attempt) = attempt
            && attempt > fence
        {
            let message = format!("is {attempt}, and it was claimed {fence} times");
            findings.add(kind!(Claim, state.attempt), id, run, message);
        }
        if begun_fence > fence {
            let message = format!("is {begun_fence}, and its fence is {fence}");
            findings.add(kind!(Claim, state.begun_fence), id, run, message);
        }
        let Some(status) = self.status else { return };
        if held != (status == Status::Queued) {
            let presence = if held { "is present" } else { "is missing" };
            let message = format!("{presence} though it is {status}");
            findings.add(kind!(Claim, state.session), id, run, message);
        }
        if held && session != last_session {
            let message = "is not the session that holds the state";
            findings.add(kind!(Claim, state.last_session), id, run, message);
        }
        // An executed state was claimed before; a waiting unite never was.
        let claimed = matches!(status, Status::Queued | Status::Success);
        if claimed && (fence == 0 || attempt == Some(0)) {
            let attempt = attempt.map(|attempt| format!(" (attempt {attempt})"));
            let attempt = attempt.unwrap_or_default();
            let message = format!("is {fence}{attempt} though it is {status}");
            findings.add(kind!(Claim, state.fence), id, run, message);
        }
        if status == Status::Waiting && fence > 0 {
            let message = format!("is {fence} though it is WAITING");
            findings.add(kind!(Claim, state.fence), id, run, message);
        }
    }
}

fn outputs(row: &mut RowReader<'_>) -> Option<u32> {
    let outputs = row.maybe_int("outputs")?;
    let count = u32::try_from(outputs).ok();
    if count.is_none() {
        row.report_value("outputs", format_args!("is {outputs}, which is not a number of outputs"));
    }
    count
}

/// Reads the unite's columns; all are empty if there is no such row.
fn unite(row: &mut RowReader<'_>) -> Option<UniteRow> {
    row.maybe_int("unite")?;
    let table = std::mem::replace(&mut row.table, "unite");
    let source = row.int("source");
    let mut count = |column| row.count(column).unwrap_or_default();
    let branches = count("branches");
    let counts = Counts { open: count("open"), failed: count("failed"), arrived: count("arrived") };
    row.table = table;
    Some(UniteRow { source: source.unwrap_or_default(), branches, counts })
}
