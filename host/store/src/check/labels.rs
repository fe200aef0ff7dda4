//! The labels of runs: each row by itself, and against its run. Not here: labels without a run
//! (`orphans`).

use exosphere_domain::label::{Label, MAX_LABELS};

use super::report::{Findings, kind};
use super::row_reader::{Columns, RowReader};
use super::snapshot::Snapshot;
use crate::dialect::{Row, params};
use crate::error::StoreError;
use crate::sql;

pub(super) async fn check(
    snapshot: &mut impl Snapshot,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    let mut count = (0, 0);
    let visit = &mut |row: &dyn Row| {
        let run = row.int(0).unwrap_or_default();
        let key = row.text(1).unwrap_or_else(|_| "?".to_owned());
        let uuid = row.text(2).ok();
        let columns = Columns::new(sql::CHECK_LABELS_COLUMNS);
        let (table, key) = ("label", format!("{run}/{key}"));
        let reader = &mut RowReader { row, columns, table, key, run: uuid.as_deref(), findings };
        label(reader);
        count = if count.0 == run { (run, count.1 + 1) } else { (run, 1) };
        if count.1 == MAX_LABELS + 1 {
            reader.report_value("run", format_args!("has more than {MAX_LABELS} labels"));
        }
    };
    snapshot.visit_each(sql::CHECK_LABELS, &params![], visit).await
}

fn label(row: &mut RowReader<'_>) {
    row.parsed("key", |key| Label::new(key, "").ok());
    row.parsed("value", |value| Label::new("key", value).ok());
    let (namespace, of_run) = (row.text("namespace"), row.text("run_namespace"));
    if namespace != of_run {
        let message = format!(
            "is {:?}, and that of its run is {:?}",
            namespace.unwrap_or_default(),
            of_run.unwrap_or_default()
        );
        row.findings.add(kind!(Namespace, label.namespace), &row.key, row.run, message);
    }
    let (created_at, of_run) = (row.int("created_at"), row.int("run_created_at"));
    if let (Some(created_at), Some(of_run)) = (created_at, of_run)
        && created_at != of_run
    {
        row.report_value(
            "created_at",
            format_args!("is {created_at}, and its run was started at {of_run}"),
        );
    }
}
