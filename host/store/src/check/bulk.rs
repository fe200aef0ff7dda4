//! Bulk operations: each row by itself, and the runs of their pages. Not here: the runs that an
//! operation has changed, which are as those that single requests change.

use exosphere_domain::bulk::{BulkAction, BulkOutcome, BulkStatus};
use exosphere_domain::filter::RunFilter;
use exosphere_domain::ids::Name;
use uuid::Uuid;

use super::report::{Findings, kind};
use super::row_reader::{Columns, JoinedValue, RowReader, json};
use super::snapshot::Snapshot;
use crate::dialect::{Row, params};
use crate::error::StoreError;
use crate::reads::run_list::RunPlace;
use crate::sql;

pub(super) async fn check(
    snapshot: &mut impl Snapshot,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    let visit = &mut |row: &dyn Row| {
        let key = row.text(0).unwrap_or_else(|_| "?".to_owned());
        let columns = Columns::new(sql::CHECK_BULKS_COLUMNS);
        bulk(&mut RowReader { row, columns, table: "bulk", key, run: None, findings });
    };
    snapshot.visit_each(sql::CHECK_BULKS, &params![], visit).await?;
    let visit = &mut |row: &dyn Row| {
        let (bulk, run) = (row.text(0).unwrap_or_else(|_| "?".to_owned()), row.int(1));
        let key = format!("{bulk}/{}", run.map_or_else(|_| "?".to_owned(), |run| run.to_string()));
        let columns = Columns::new(sql::CHECK_BULK_RUNS_COLUMNS);
        run_of_page(&mut RowReader { row, columns, table: "bulk_run", key, run: None, findings });
    };
    snapshot.visit_each(sql::CHECK_BULK_RUNS, &params![], visit).await
}

fn bulk(row: &mut RowReader<'_>) {
    row.parsed("id", |id| id.parse::<Uuid>().ok());
    row.parsed("namespace", |name| name.parse::<Name>().ok());
    row.parsed("action", BulkAction::parse);
    row.parsed("filter", |text| json::<RunFilter>(text).filter(|filter| !filter.is_empty()));
    let status = row.parsed("status", BulkStatus::parse);
    row.int("frozen_at");
    let has_ended = row.has_value("ended_at");
    row.maybe_int("ended_at");
    if status.is_some_and(|status| (status == BulkStatus::Running) == has_ended) {
        row.report_value(
            "ended_at",
            "is present though the operation runs, or missing after its end",
        );
    }
    row.flag("is_exact");
    for count in ["expected", "done", "skipped"] {
        row.count(count);
    }
    let failed = row.count("failed");
    if status == Some(BulkStatus::Success) && failed.is_some_and(|failed| failed > 0) {
        row.report_value("status", "is SUCCESS, and the action failed on runs");
    }
    let page = row.count("page");
    let after = row.maybe_parsed("page_after", |text| text.parse::<RunPlace>().ok());
    if page == Some(0) && after.is_some() {
        row.report_value("page_after", "is present though the first page has not ended");
    }
}

fn run_of_page(row: &mut RowReader<'_>) {
    row.int("run");
    row.parsed("outcome", BulkOutcome::parse);
    match row.joined_text("status") {
        JoinedValue::Missing => {
            let message = "belongs to an operation that does not exist";
            row.findings.add(kind!(Orphan, bulk_run.bulk), &row.key, None, message);
        }
        JoinedValue::Value(status)
            if BulkStatus::parse(&status).is_some_and(|status| status != BulkStatus::Running) =>
        {
            row.report_value("bulk", format_args!("is an operation that is over: {status}"));
        }
        JoinedValue::Value(_) | JoinedValue::Unreadable => {}
    }
}
