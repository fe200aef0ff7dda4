//! Checks a state's row by itself: each value, and the values against each other. Not here: the
//! state's place in its run.

use std::collections::BTreeMap;

use exosphere_domain::failure::FailureKind;
use exosphere_domain::ids::{NodeIx, StateId};
use exosphere_domain::path::Path;
use exosphere_domain::state::{Counts, Ref, Scope, Status};

use super::cells::{Reading, check_json, json};
use super::report::kind;
use crate::rows::{decode_refs, decode_scopes};
use crate::text::Cells;

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
    pub parked: bool,
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
pub(super) fn run_of(cells: &dyn Cells) -> Option<i64> {
    cells.int(1).ok()
}

impl StateRow {
    pub(super) fn read(row: &mut Reading<'_>) -> Self {
        let id = row.int(0, "id").unwrap_or_default();
        let node = row.count(2, "node").and_then(|node| u32::try_from(node).ok());
        let status = row.parsed(4, "status", Status::parse);
        let requeues = row.count(9, "requeues").unwrap_or_default();
        row.count(10, "losses");
        row.count(11, "conflicts");
        row.int(27, "due_at");
        row.maybe_parsed(14, "fixed", json::<BTreeMap<String, String>>);
        row.maybe_parsed(18, "details", check_json);
        let parked = row.int(19, "parked").unwrap_or_default();
        if !matches!(parked, 0 | 1) {
            row.wrong("parked", format_args!("is {parked}, and only 0 or 1"));
        }
        let delayed = row.int(28, "delayed").unwrap_or_default();
        if !matches!(delayed, 0 | 1) {
            row.wrong("delayed", format_args!("is {delayed}, and only 0 or 1"));
        }
        let state = StateRow {
            id,
            node: node.map(NodeIx),
            path: row.parsed(3, "path", |text| Path::decode(text).ok()),
            status,
            fence: row.count(6, "fence").unwrap_or_default(),
            retries: row.count(8, "retries").unwrap_or_default(),
            requeues,
            refs: row.parsed(12, "refs", |text| decode_refs(text, StateId(id)).ok()),
            scopes: row
                .parsed(13, "scopes", |text| Some(decode_scopes(text, StateId(id)).ok()?.to_vec())),
            outputs: outputs(row),
            kind: row.maybe_parsed(17, "kind", FailureKind::parse),
            parked: parked == 1,
            unite: unite(row),
        };
        state.check_required_columns(row);
        state.check_claim(row);
        state
    }

    /// Checks the columns that a status requires, or must not have.
    fn check_required_columns(&self, row: &mut Reading<'_>) {
        let Some(status) = self.status else { return };
        row.maybe_int(15, "ended_at");
        let of_a_status = [
            (15, "ended_at", status.is_terminal()),
            (16, "outputs", status == Status::Success),
            (17, "kind", status == Status::Errored),
        ];
        for (at, column, wanted) in of_a_status {
            if row.is_there(at) != wanted {
                let is = if wanted { "is missing" } else { "is there" };
                row.wrong(column, format_args!("{is} though it is {status}"));
            }
        }
        if self.parked && !matches!(status, Status::Created | Status::Cancelled) {
            row.wrong("parked", format_args!("is 1 though it is {status}"));
        }
    }

    /// Checks the claim, its session and its fence: invariant 3.
    fn check_claim(&self, row: &mut Reading<'_>) {
        let attempt = row.count(7, "attempt").unwrap_or_default();
        let begun = row.count(20, "begun").unwrap_or_default();
        row.maybe_int(5, "session");
        let held = row.is_there(5);
        let (id, run, fence) = (self.id, row.run, self.fence);
        let findings = &mut *row.findings;
        if attempt > fence {
            let message = format!("is {attempt}, and it was claimed {fence} times");
            findings.note(kind!(Claim, state.attempt), id, run, message);
        }
        if begun > fence {
            let message = format!("is {begun}, and its fence is {fence}");
            findings.note(kind!(Claim, state.begun), id, run, message);
        }
        let Some(status) = self.status else { return };
        if held != (status == Status::Queued) {
            let who = if held { "is there" } else { "is missing" };
            let message = format!("{who} though it is {status}");
            findings.note(kind!(Claim, state.session), id, run, message);
        }
        // An executed state was claimed before; a waiting unite never was.
        let claimed = matches!(status, Status::Queued | Status::Success);
        if claimed && (fence == 0 || attempt == 0) {
            let message = format!("is {fence} (attempt {attempt}) though it is {status}");
            findings.note(kind!(Claim, state.fence), id, run, message);
        }
        if status == Status::Waiting && fence > 0 {
            let message = format!("is {fence} though it is WAITING");
            findings.note(kind!(Claim, state.fence), id, run, message);
        }
    }
}

fn outputs(row: &mut Reading<'_>) -> Option<u32> {
    let outputs = row.maybe_int(16, "outputs")?;
    let count = u32::try_from(outputs).ok();
    if count.is_none() {
        row.wrong("outputs", format_args!("is {outputs}, which is no number of outputs"));
    }
    count
}

/// Reads the unite's columns, from 21 on; all are empty if there is no such row.
fn unite(row: &mut Reading<'_>) -> Option<UniteRow> {
    row.maybe_int(21, "id")?;
    let table = std::mem::replace(&mut row.table, "unite");
    let source = row.int(22, "source");
    let mut count = |at, column| row.count(at, column).unwrap_or_default();
    let branches = count(23, "branches");
    let counts = Counts {
        open: count(24, "open"),
        failed: count(25, "failed"),
        arrived: count(26, "arrived"),
    };
    row.table = table;
    Some(UniteRow { source: source.unwrap_or_default(), branches, counts })
}
