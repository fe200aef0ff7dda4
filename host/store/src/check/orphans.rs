//! Rows of other tables that belong to a state or a run, and rows without an owner. SQL makes the
//! comparisons of this module.

use exosphere_domain::failure::FailureKind;

use super::cells::{Reading, check_json, check_json_object};
use super::report::{Findings, Kind, kind};
use super::snapshot::Snapshot;
use crate::error::StoreError;
use crate::sql;
use crate::text::{Cells, Text, values};

pub(super) async fn check(
    snapshot: &mut impl Snapshot,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    let strays = [
        (sql::CHECK_STRAY_STATES, kind!(Stray, state.run)),
        (sql::CHECK_STRAY_UNITES, kind!(Stray, unite.state)),
        (sql::CHECK_STRAY_ENTRIES, kind!(Stray, entry.run)),
        (sql::CHECK_STRAY_STAGED, kind!(Stray, state.namespace)),
        (sql::CHECK_STRAY_STAGES, kind!(Stray, staged.state)),
        (sql::CHECK_STRAY_FIXED, kind!(Stray, staged_fixed.state)),
    ];
    for (text, kind) in strays {
        stray(snapshot, findings, text, kind).await?;
    }
    sessions(snapshot, findings).await?;
    namespaces(snapshot, findings).await?;
    counts_of_outputs(snapshot, findings).await?;
    missing_outputs(snapshot, findings).await?;
    outputs(snapshot, findings).await?;
    attempts(snapshot, findings).await
}

/// Reports rows whose owner does not exist: `key, owner`.
async fn stray(
    snapshot: &mut impl Snapshot,
    findings: &mut Findings,
    text: &'static Text,
    kind: Kind,
) -> Result<(), StoreError> {
    let see = &mut |cells: &dyn Cells| {
        let key = |at| cells.int(at).map(|key| key.to_string()).or_else(|_| cells.text(at));
        let (row, owner) = (key(0).unwrap_or_default(), key(1).unwrap_or_default());
        let message = format!("belongs to {} {owner}, which is not there", kind.column);
        findings.note(kind, row, None, message);
    };
    snapshot.each(text, &values![], see).await
}

/// Reports states claimed by a session that never existed: `state, session, run`.
async fn sessions(snapshot: &mut impl Snapshot, findings: &mut Findings) -> Result<(), StoreError> {
    let see = &mut |cells: &dyn Cells| {
        let id = cells.int(0).unwrap_or_default();
        let session = cells.int(1).map_or_else(|_| "?".to_owned(), |session| session.to_string());
        let run = cells.maybe_text(2).ok().flatten();
        let message = format!("is {session}, and there is no such session");
        findings.note(kind!(Claim, state.session), id, run.as_deref(), message);
    };
    snapshot.each(sql::CHECK_STRAY_SESSIONS, &values![], see).await
}

/// Reports states with another namespace than their run's: `state, namespace, run`.
async fn namespaces(
    snapshot: &mut impl Snapshot,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    let see = &mut |cells: &dyn Cells| {
        let id = cells.int(0).unwrap_or_default();
        let namespace = cells.int(1).map_or_else(|_| "?".to_owned(), |key| key.to_string());
        let run = cells.maybe_text(2).ok().flatten();
        let message = format!("is {namespace}, which is not the namespace of its run");
        findings.note(kind!(Namespace, state.namespace), id, run.as_deref(), message);
    };
    snapshot.each(sql::CHECK_TURNS, &values![], see).await
}

/// Reports states whose outputs differ from the state's count:
/// `state, outputs, the first, the last, count of the state, its run`.
async fn counts_of_outputs(
    snapshot: &mut impl Snapshot,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    let see = &mut |cells: &dyn Cells| {
        let int = |at| cells.int(at).unwrap_or_default();
        let (id, count, first, last) = (int(0), int(1), int(2), int(3));
        let run = cells.maybe_text(5).ok().flatten();
        let Some(run) = run else {
            let message = format!("{count} outputs belong to state {id}, which is not there");
            return findings.note(kind!(Stray, output.state), id, None, message);
        };
        let says = cells.maybe_int(4).ok().flatten();
        let says = says.map_or_else(|| "none".to_owned(), |says| says.to_string());
        let message = format!("is {says}, and it has {count}, from {first} to {last}");
        findings.note(kind!(Outputs, state.outputs), id, Some(&run), message);
    };
    snapshot.each(sql::CHECK_OUTPUT_COUNTS, &values![], see).await
}

/// Reports states that should have outputs and have none: `state, outputs, run`.
async fn missing_outputs(
    snapshot: &mut impl Snapshot,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    let see = &mut |cells: &dyn Cells| {
        let id = cells.int(0).unwrap_or_default();
        let run = cells.maybe_text(2).ok().flatten();
        let says = cells.int(1).unwrap_or_default();
        let message = format!("is {says}, and it has none");
        findings.note(kind!(Outputs, state.outputs), id, run.as_deref(), message);
    };
    snapshot.each(sql::CHECK_MISSING_OUTPUTS, &values![], see).await
}

/// Checks outputs: `state, number, body`.
async fn outputs(snapshot: &mut impl Snapshot, findings: &mut Findings) -> Result<(), StoreError> {
    let see = &mut |cells: &dyn Cells| {
        findings.checked.outputs += 1;
        let mut row = part(cells, "output", findings);
        row.parsed(2, "body", check_json_object);
    };
    snapshot.each(sql::CHECK_OUTPUTS, &values![], see).await
}

/// Checks attempts: `state, number, outcome, kind, details, logs, attempt of the state`.
async fn attempts(snapshot: &mut impl Snapshot, findings: &mut Findings) -> Result<(), StoreError> {
    let see = &mut |cells: &dyn Cells| {
        findings.checked.attempts += 1;
        attempt(&mut part(cells, "attempt", findings));
    };
    snapshot.each(sql::CHECK_ATTEMPTS, &values![], see).await
}

fn attempt(row: &mut Reading<'_>) {
    let is_outcome = |text: &str| match text {
        "SUCCESS" | "PRUNED" | "REQUEUED" => Some(false),
        "FAILED" => Some(true),
        _ => None,
    };
    let failed = row.parsed(2, "outcome", is_outcome);
    let kind = row.maybe_text(3, "kind");
    if failed.is_some_and(|failed| failed != kind.is_some()) {
        row.wrong("kind", "is there where it did not fail, or missing where it did");
    }
    row.maybe_parsed(3, "kind", FailureKind::parse);
    row.maybe_parsed(4, "details", check_json);
    row.maybe_parsed(5, "logs", check_json);
    let number = row.int(1, "number");
    match (row.maybe_int(6, "number"), number) {
        (None, _) => {
            let message = "belongs to a state that is not there";
            row.findings.note(kind!(Stray, attempt.state), &row.row, None, message);
        }
        (Some(last), Some(number)) if number < 1 || number > last => {
            row.wrong("number", format_args!("is {number}, and the last attempt is {last}"));
        }
        _ => {}
    }
}

/// Returns a reader of a row whose key is a state and a number.
fn part<'a>(cells: &'a dyn Cells, table: &'static str, findings: &'a mut Findings) -> Reading<'a> {
    let key = |at| cells.int(at).map_or_else(|_| "?".to_owned(), |key| key.to_string());
    let row = format!("{}/{}", key(0), key(1));
    Reading { cells, table, row, run: None, findings }
}
