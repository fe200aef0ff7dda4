//! Rows of other tables that belong to a state or a run, and rows without an owner. SQL makes the
//! comparisons of this module.

use exosphere_domain::failure::FailureKind;
use exosphere_domain::outcome::AttemptOutcome;

use super::report::{Findings, Kind, kind};
use super::row_reader::{Columns, JoinedValue, RowReader, check_json, check_json_object};
use super::snapshot::Snapshot;
use crate::dialect::{Row, Statement, params};
use crate::error::StoreError;
use crate::sql;

pub(super) async fn check(
    snapshot: &mut impl Snapshot,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    let orphans = [
        (sql::CHECK_ORPHAN_STATES, kind!(Orphan, state.run)),
        (sql::CHECK_ORPHAN_USES, kind!(Orphan, revision_plugin.revision)),
        (sql::CHECK_ORPHAN_DEADLINES, kind!(Orphan, deadline.run)),
        (sql::CHECK_ORPHAN_PAUSES, kind!(Orphan, paused_run.run)),
        (sql::CHECK_ORPHAN_OWN_PAUSES, kind!(Orphan, run_pause.run)),
        (sql::CHECK_ORPHAN_LABELS, kind!(Orphan, label.run)),
        (sql::CHECK_ORPHAN_INPUTS, kind!(Orphan, run_inputs.run)),
        (sql::CHECK_ORPHAN_START_STORES, kind!(Orphan, run_start_store.run)),
        (sql::CHECK_ORPHAN_UNITES, kind!(Orphan, unite.state)),
        (sql::CHECK_ORPHAN_ENTRIES, kind!(Orphan, entry.run)),
        (sql::CHECK_ORPHAN_STAGED_STATES, kind!(Orphan, state.namespace)),
        (sql::CHECK_ORPHAN_STAGINGS, kind!(Orphan, staged.state)),
        (sql::CHECK_ORPHAN_SNAPSHOTS, kind!(Orphan, staged_snapshot.state)),
    ];
    for (statement, kind) in orphans {
        orphaned(snapshot, findings, statement, kind).await?;
    }
    deleted_runs(snapshot, findings).await?;
    sessions(snapshot, findings).await?;
    namespaces(snapshot, findings).await?;
    counts_of_outputs(snapshot, findings).await?;
    missing_outputs(snapshot, findings).await?;
    outputs(snapshot, findings).await?;
    attempts(snapshot, findings).await
}

/// Reports rows whose owner does not exist: `key, owner`.
async fn orphaned(
    snapshot: &mut impl Snapshot,
    findings: &mut Findings,
    statement: &'static Statement,
    kind: Kind,
) -> Result<(), StoreError> {
    let visit = &mut |row: &dyn Row| {
        let key = |at| row.int(at).map(|key| key.to_string()).or_else(|_| row.text(at));
        let (key, owner) = (key(0).unwrap_or_default(), key(1).unwrap_or_default());
        let message = format!("belongs to {} {owner}, which does not exist", kind.column);
        findings.add(kind, key, None, message);
    };
    snapshot.visit_each(statement, &params![], visit).await
}

/// Reports deleted runs whose row is still there: `run, uuid`.
async fn deleted_runs(
    snapshot: &mut impl Snapshot,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    let visit = &mut |row: &dyn Row| {
        let (id, run) = (row.int(0).unwrap_or_default(), row.text(1).ok());
        let message = "names a run that is still there";
        findings.add(kind!(Orphan, deleted_run.run), id, run.as_deref(), message);
    };
    snapshot.visit_each(sql::CHECK_DELETED_RUNS, &params![], visit).await
}

/// Reports states claimed by a session that never existed: `state, session, run`.
async fn sessions(snapshot: &mut impl Snapshot, findings: &mut Findings) -> Result<(), StoreError> {
    let visit = &mut |row: &dyn Row| {
        let id = row.int(0).unwrap_or_default();
        let session = row.int(1).map_or_else(|_| "?".to_owned(), |session| session.to_string());
        let run = row.maybe_text(2).ok().flatten();
        let message = format!("is {session}, and there is no such session");
        findings.add(kind!(Claim, state.session), id, run.as_deref(), message);
    };
    snapshot.visit_each(sql::CHECK_ORPHAN_CLAIMS, &params![], visit).await
}

/// Reports states with another namespace than their run's: `state, namespace, run`.
async fn namespaces(
    snapshot: &mut impl Snapshot,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    let visit = &mut |row: &dyn Row| {
        let id = row.int(0).unwrap_or_default();
        let namespace = row.int(1).map_or_else(|_| "?".to_owned(), |key| key.to_string());
        let run = row.maybe_text(2).ok().flatten();
        let message = format!("is {namespace}, which is not the namespace of its run");
        findings.add(kind!(Namespace, state.namespace), id, run.as_deref(), message);
    };
    snapshot.visit_each(sql::CHECK_QUEUES, &params![], visit).await
}

/// Reports states whose outputs differ from the state's count:
/// `state, outputs, the first, the last, count of the state, its run`.
async fn counts_of_outputs(
    snapshot: &mut impl Snapshot,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    let visit = &mut |row: &dyn Row| {
        let int = |at| row.int(at).unwrap_or_default();
        let (id, count, first, last) = (int(0), int(1), int(2), int(3));
        let run = row.maybe_text(5).ok().flatten();
        let Some(run) = run else {
            let message = format!("{count} outputs belong to state {id}, which does not exist");
            return findings.add(kind!(Orphan, output.state), id, None, message);
        };
        let recorded = row.maybe_int(4).ok().flatten();
        let stored = recorded.map_or_else(|| "none".to_owned(), |says| says.to_string());
        let message = format!("is {stored}, and it has {count}, from {first} to {last}");
        findings.add(kind!(Outputs, state.outputs), id, Some(&run), message);
    };
    snapshot.visit_each(sql::CHECK_OUTPUT_COUNTS, &params![], visit).await
}

/// Reports states that should have outputs and have none: `state, outputs, run`.
async fn missing_outputs(
    snapshot: &mut impl Snapshot,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    let visit = &mut |row: &dyn Row| {
        let id = row.int(0).unwrap_or_default();
        let run = row.maybe_text(2).ok().flatten();
        let stored = row.int(1).unwrap_or_default();
        let message = format!("is {stored}, and it has none");
        findings.add(kind!(Outputs, state.outputs), id, run.as_deref(), message);
    };
    snapshot.visit_each(sql::CHECK_MISSING_OUTPUTS, &params![], visit).await
}

/// Checks the rows of `output`, one by one.
async fn outputs(snapshot: &mut impl Snapshot, findings: &mut Findings) -> Result<(), StoreError> {
    let visit = &mut |row: &dyn Row| {
        findings.checked.outputs += 1;
        let columns = &["state", "number", "body"];
        part_reader(row, columns, "output", findings).parsed("body", check_json_object);
    };
    snapshot.visit_each(sql::CHECK_OUTPUTS, &params![], visit).await
}

/// Checks the rows of `attempt`, one by one.
async fn attempts(snapshot: &mut impl Snapshot, findings: &mut Findings) -> Result<(), StoreError> {
    let visit = &mut |row: &dyn Row| {
        findings.checked.attempts += 1;
        let columns = &[
            "state",
            "number",
            "outcome",
            "kind",
            "details",
            "logs",
            "log_run",
            "last_attempt",
            "run",
        ];
        attempt(&mut part_reader(row, columns, "attempt", findings));
    };
    snapshot.visit_each(sql::CHECK_ATTEMPTS, &params![], visit).await
}

fn attempt(row: &mut RowReader<'_>) {
    let outcome = row.parsed("outcome", AttemptOutcome::parse);
    let kind = row.maybe_text("kind");
    if outcome.is_some_and(|outcome| (outcome == AttemptOutcome::Errored) != kind.is_some()) {
        row.report_value(
            "kind",
            "is present though the attempt did not fail, or missing though it did",
        );
    }
    row.maybe_parsed("kind", FailureKind::parse);
    row.maybe_parsed("details", check_json);
    row.maybe_parsed("logs", check_json);
    let number = row.int("number");
    match (row.joined_int("last_attempt"), number) {
        (JoinedValue::Missing, _) => {
            let message = "belongs to a state that does not exist";
            row.findings.add(kind!(Orphan, attempt.state), &row.key, None, message);
        }
        (JoinedValue::Value(last), Some(number)) if number < 1 || number > last => {
            row.report_value("number", format_args!("is {number}, and the last attempt is {last}"));
        }
        _ => {}
    }
    log_run(row);
}

/// Checks that an attempt names its run if it has a log, and none else.
fn log_run(row: &mut RowReader<'_>) {
    let (has_logs, named) = (row.maybe_text("logs").is_some(), row.maybe_int("log_run"));
    match row.joined_int("run") {
        JoinedValue::Value(run) if has_logs && named != Some(run) => {
            row.report_value("log_run", format_args!("is {named:?}, and the run is {run}"));
        }
        _ if !has_logs && named.is_some() => {
            row.report_value("log_run", "is present though the attempt has no log");
        }
        _ => {}
    }
}

/// Returns a reader of a row whose key is a state and a number.
fn part_reader<'a>(
    row: &'a dyn Row,
    columns: &'static [&'static str],
    table: &'static str,
    findings: &'a mut Findings,
) -> RowReader<'a> {
    let key = |at| row.int(at).map_or_else(|_| "?".to_owned(), |key| key.to_string());
    let key = format!("{}/{}", key(0), key(1));
    RowReader { row, columns: Columns::new(columns), table, key, run: None, findings }
}
