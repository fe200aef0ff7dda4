//! Bulk operations: their rows, the hosts that carry them out, and the pages of their runs.
//!
//! A page is a number of runs after a place in the list of those that meet the filter. The
//! transaction that changes a run also records it in `bulk_run`, unless it is recorded already or
//! the page is over. The end of a page counts and removes these records, and moves the place. So a
//! page that several hosts work on, or that is begun again after a crash, changes each run once,
//! and counts it once.
//!
//! Not here: the change of a run (`commit::bulk`), and the task that goes from page to page
//! (`exosphere_orchestrator`, `bulk`).

use exosphere_domain::bulk::{BulkAction, BulkStatus, frozen};
use exosphere_domain::filter::RunFilter;
use exosphere_domain::ids::{BulkId, Millis, Name, RunKey, SessionId};

use crate::audit::{self, AuditEntry};
use crate::codec::{parse_json, read_int, read_text, to_json, to_name};
use crate::dialect::{Cursor, Row, Tx, params};
use crate::error::{StoreError, corrupt_row};
use crate::reads::run_list::RunPlace;
use crate::reads::views::Page;
use crate::{Store, in_transaction, sql};

/// The maximum number of operations of a namespace that are not over.
pub const MAX_RUNNING_BULKS: i64 = 10;

/// A text after every id, in the order of ids.
const AFTER_IDS: &str = "g";

/// The places of the dashes in an id.
const DASHES: [usize; 4] = [8, 13, 18, 23];

/// A bulk operation to begin.
#[derive(Debug, Clone)]
pub struct NewBulk {
    /// The id of the operation.
    pub id: BulkId,
    /// The namespace of its runs.
    pub namespace: Name,
    /// The action.
    pub action: BulkAction,
    /// The filter, as the caller gave it.
    pub filter: RunFilter,
    /// The reason, for people.
    pub reason: String,
    /// The caller, if that is known.
    pub created_by: Option<String>,
    /// The number of runs that met the filter.
    pub expected: RunCount,
    /// The idempotency key: a second request with this key returns the first operation.
    pub key: Option<String>,
}

/// The number of runs that meet a filter, counted up to a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunCount {
    /// The number that was counted.
    pub runs: u64,
    /// Set if there are no more.
    pub is_exact: bool,
}

/// The result of a request to begin an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BulkBegin {
    /// The operation has begun.
    Begun,
    /// The idempotency key has begun this one before.
    Existing(Box<BulkView>),
    /// The namespace has [`MAX_RUNNING_BULKS`] operations that are not over.
    TooMany,
}

/// The result of a request to cancel an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BulkCancel {
    /// The operation was cancelled.
    Cancelled,
    /// It was over already.
    Over(BulkStatus),
    /// It does not exist.
    Missing,
}

/// A bulk operation, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BulkView {
    /// The id of the operation.
    pub id: BulkId,
    /// The action.
    pub action: BulkAction,
    /// The filter, as the caller gave it.
    pub filter: RunFilter,
    /// The reason; may be empty.
    pub reason: String,
    /// The caller, if that is known.
    pub created_by: Option<String>,
    /// The status of the operation.
    pub status: BulkStatus,
    /// The time at which it began, and for which the filter holds.
    pub frozen_at: Millis,
    /// The time at which it ended.
    pub ended_at: Option<Millis>,
    /// The number of runs that met the filter at the beginning.
    pub expected: RunCount,
    /// The number of runs that the action has changed.
    pub done: u64,
    /// The number of runs that it has left alone.
    pub skipped: u64,
    /// The number of runs on which it failed.
    pub failed: u64,
}

/// The page of an operation that is carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BulkPage {
    /// The id of the operation.
    pub id: BulkId,
    /// The namespace of its runs.
    pub namespace: Name,
    /// The action.
    pub action: BulkAction,
    /// The time for which the filter holds.
    pub frozen_at: Millis,
    /// The number of the page.
    pub page: i64,
    /// Set if the session has claimed the operation.
    pub is_claimed: bool,
    /// The filter, as its column has it.
    pub filter: String,
    /// The run after which the page begins, as its column has it.
    pub after: Option<String>,
}

impl Store {
    /// Begins an operation. Its id must be new.
    pub async fn begin_bulk(&self, new: &NewBulk, now: Millis) -> Result<BulkBegin, StoreError> {
        let new = new.clone();
        let action = match new.action {
            BulkAction::Cancel => "bulk cancel",
            BulkAction::Redrive => "bulk redrive",
            BulkAction::Delete => "bulk delete",
        };
        let entry = self.audit_entry(action, Some(&new.namespace), new.id);
        in_transaction!(self, now, |tx| begin(tx, &new, entry.as_ref()))
    }

    /// Reads an operation.
    pub async fn bulk(&self, namespace: &Name, id: BulkId) -> Result<Option<BulkView>, StoreError> {
        let id = id.to_string();
        self.reader.row(sql::BULK, &params![namespace.as_str(), &id], view).await
    }

    /// Reads the operation that an idempotency key has begun.
    pub async fn bulk_by_key(
        &self,
        namespace: &Name,
        key: &str,
    ) -> Result<Option<BulkView>, StoreError> {
        self.reader.row(sql::BULK_OF_KEY, &params![namespace.as_str(), key], view).await
    }

    /// Lists operations of a namespace before one, the newest first.
    pub async fn bulks(
        &self,
        namespace: &Name,
        after: Option<BulkId>,
        limit: u32,
    ) -> Result<Page<BulkView>, StoreError> {
        let before = after.map_or_else(|| AFTER_IDS.to_owned(), |id| id.to_string());
        let page = params![namespace.as_str(), &before, limit];
        let items = self.reader.rows(sql::BULKS, &page, view).await?;
        let is_full = items.len() as u64 >= u64::from(limit);
        let next = items.last().filter(|_| is_full).map(|last| last.id.to_string());
        Ok(Page { items, next })
    }

    /// Lists the ids of operations that begin with some hexadecimal digits, the newest first.
    pub async fn bulk_ids(
        &self,
        namespace: &Name,
        digits: &str,
        limit: u32,
    ) -> Result<Vec<BulkId>, StoreError> {
        let from = dashed(digits);
        let to = format!("{from}{AFTER_IDS}");
        let range = params![namespace.as_str(), &from, &to, limit];
        let ids = self.reader.rows(sql::BULK_IDS, &range, read_text).await?;
        ids.into_iter().map(to_id).collect()
    }

    /// Cancels an operation. What it has done stays.
    pub async fn cancel_bulk(
        &self,
        namespace: &Name,
        id: BulkId,
        now: Millis,
    ) -> Result<BulkCancel, StoreError> {
        let entry = self.audit_entry("bulk stop", Some(namespace), id);
        let namespace = namespace.clone();
        in_transaction!(self, now, |tx| cancel(tx, &namespace, id, entry.as_ref()))
    }

    /// Reads the pages of operations that a session may carry out, in the order of namespaces after
    /// one. Each must be claimed, unless it is.
    pub async fn running_bulks(
        &self,
        session: SessionId,
        after: &str,
        limit: u32,
    ) -> Result<Vec<BulkPage>, StoreError> {
        let page = params![after, session.0, limit];
        self.reader.rows(sql::RUNNING_BULKS, &page, read_page).await
    }

    /// Claims an operation for a session. Returns `false` if another session has it, or it is over.
    pub async fn claim_bulk(
        &self,
        session: SessionId,
        id: BulkId,
        now: Millis,
    ) -> Result<bool, StoreError> {
        in_transaction!(self, now, |tx| claim(tx, session, id))
    }

    /// Finds the runs of a page, up to `limit`, and the place after them; `None` after the last.
    ///
    /// # Errors
    ///
    /// [`StoreError::Data`] if the operation's row is corrupt.
    pub async fn runs_of_bulk(
        &self,
        page: &BulkPage,
        limit: u32,
    ) -> Result<(Vec<RunKey>, Option<RunPlace>), StoreError> {
        let filter: RunFilter = parse_json(&page.filter, "bulk", "filter", page.id)?;
        let filter = frozen(page.action, &filter, page.frozen_at);
        let after = page.after.as_deref().map(str::parse::<RunPlace>).transpose();
        let after = after.map_err(|_| corrupt_row("bulk", "page_after", page.id))?;
        self.run_keys(&page.namespace, &filter, after, limit).await
    }

    /// Counts the runs that meet a filter and that an action can change, up to `limit`.
    pub async fn count_runs(
        &self,
        namespace: &Name,
        filter: &RunFilter,
        limit: u32,
    ) -> Result<RunCount, StoreError> {
        /// The maximum number of pages of runs that are found by a label.
        const MAX_PAGES: u32 = 20;
        let (mut runs, mut after) = (0, None);
        for _ in 0..MAX_PAGES {
            let left = limit - runs + 1;
            let (keys, next) = self.run_keys(namespace, filter, after, left).await?;
            runs += keys.len() as u32;
            if runs > limit {
                return Ok(RunCount { runs: limit.into(), is_exact: false });
            }
            match next {
                Some(next) => after = Some(next),
                None => return Ok(RunCount { runs: runs.into(), is_exact: true }),
            }
        }
        Ok(RunCount { runs: runs.into(), is_exact: false })
    }

    /// Records that the action failed on a run of a page.
    pub async fn fail_run_of_bulk(
        &self,
        page: &BulkPage,
        run: RunKey,
        now: Millis,
    ) -> Result<(), StoreError> {
        let (id, page) = (page.id, page.page);
        in_transaction!(self, now, |tx| fail_run(tx, id, page, run))
    }

    /// Ends a page: counts its runs, and continues after a place. Without one, no runs are left, and
    /// the operation ends. Does nothing if the page is over.
    pub async fn end_page_of_bulk(
        &self,
        page: &BulkPage,
        next: Option<RunPlace>,
        now: Millis,
    ) -> Result<(), StoreError> {
        let (id, page) = (page.id, page.page);
        in_transaction!(self, now, |tx| end_page(tx, id, page, next))
    }

    /// Ends an operation that cannot continue.
    pub async fn fail_bulk(&self, id: BulkId, now: Millis) -> Result<(), StoreError> {
        in_transaction!(self, now, |tx| fail(tx, id))
    }

    /// Removes operations that ended before a time, the oldest first, up to `limit`. Returns their
    /// number.
    pub async fn remove_bulks(
        &self,
        ended_before: Millis,
        limit: u32,
        now: Millis,
    ) -> Result<u64, StoreError> {
        in_transaction!(self, now, |tx| tx
            .execute(sql::REMOVE_BULKS, &params![ended_before, limit]))
    }
}

async fn begin(
    tx: &mut impl Tx,
    new: &NewBulk,
    entry: Option<&AuditEntry>,
) -> Result<BulkBegin, StoreError> {
    let NewBulk { id, namespace, action, filter, reason, created_by, expected, key } = new;
    if let Some(existing) = of_key(tx, new).await? {
        return Ok(BulkBegin::Existing(Box::new(existing)));
    }
    let running = tx.query(sql::RUNNING_BULKS_OF, &params![namespace.as_str()], read_int).await?;
    if running.first().is_some_and(|running| *running >= MAX_RUNNING_BULKS) {
        return Ok(BulkBegin::TooMany);
    }
    let (id, filter) = (id.to_string(), to_json(filter)?);
    let frozen_at = tx.now();
    let row = params![
        &id,
        namespace.as_str(),
        action.as_str(),
        &filter,
        reason,
        created_by.as_deref(),
        key.as_deref(),
        frozen_at,
        i64::try_from(expected.runs).unwrap_or(i64::MAX),
        i64::from(expected.is_exact),
    ];
    if tx.execute(sql::NEW_BULK, &row).await? == 1 {
        audit::record(tx, entry, None, None).await?;
        return Ok(BulkBegin::Begun);
    }
    // Another host has begun it meanwhile.
    let existing = of_key(tx, new).await?.ok_or_else(|| corrupt_row("bulk", "start_key", id))?;
    Ok(BulkBegin::Existing(Box::new(existing)))
}

/// Reads the operation that the key of a new one has begun.
async fn of_key(tx: &mut impl Tx, new: &NewBulk) -> Result<Option<BulkView>, StoreError> {
    let Some(key) = &new.key else { return Ok(None) };
    Ok(tx.query(sql::BULK_OF_KEY, &params![new.namespace.as_str(), key], view).await?.pop())
}

async fn claim(tx: &mut impl Tx, session: SessionId, id: BulkId) -> Result<bool, StoreError> {
    let id = id.to_string();
    Ok(tx.execute(sql::CLAIM_BULK, &params![&id, session.0]).await? == 1)
}

async fn cancel(
    tx: &mut impl Tx,
    namespace: &Name,
    id: BulkId,
    entry: Option<&AuditEntry>,
) -> Result<BulkCancel, StoreError> {
    let text = id.to_string();
    let named = params![namespace.as_str(), &text];
    let status = tx.query(sql::STATUS_OF_BULK, &named, read_text).await?.pop();
    let Some(status) = status else { return Ok(BulkCancel::Missing) };
    if end(tx, id, BulkStatus::Cancelled).await? {
        audit::record(tx, entry, None, None).await?;
        return Ok(BulkCancel::Cancelled);
    }
    // It may have ended between the two statements.
    let status = tx.query(sql::STATUS_OF_BULK, &named, read_text).await?.pop().unwrap_or(status);
    Ok(BulkCancel::Over(to_status(&status, id)?))
}

async fn fail(tx: &mut impl Tx, id: BulkId) -> Result<(), StoreError> {
    end(tx, id, BulkStatus::Failed).await.map(drop)
}

/// Ends an operation with a status. Returns `false` if it is over.
async fn end(tx: &mut impl Tx, id: BulkId, status: BulkStatus) -> Result<bool, StoreError> {
    let (id, now) = (id.to_string(), tx.now());
    if tx.query(sql::LOCK_BULK, &params![&id], read_int).await?.is_empty() {
        return Ok(false);
    }
    tx.execute(sql::COUNT_PAGE, &params![&id, None::<&str>]).await?;
    tx.execute(sql::CLEAR_PAGE, &params![&id]).await?;
    tx.execute(sql::END_BULK, &params![&id, status.as_str(), now]).await?;
    Ok(true)
}

async fn fail_run(tx: &mut impl Tx, id: BulkId, page: i64, run: RunKey) -> Result<(), StoreError> {
    let id = id.to_string();
    if page_awaits(tx, &id, page, run).await? {
        tx.execute(sql::NEW_FAILED_RUN, &params![&id, run.0]).await?;
    }
    Ok(())
}

/// Returns whether a page is under way and still awaits the change of a run. The page does not end
/// before this transaction.
pub(crate) async fn page_awaits(
    tx: &mut impl Tx,
    id: &str,
    page: i64,
    run: RunKey,
) -> Result<bool, StoreError> {
    let found = tx.query(sql::RUN_OF_PAGE, &params![id, page, run.0], read_int).await?;
    Ok(found.first() == Some(&0))
}

async fn end_page(
    tx: &mut impl Tx,
    id: BulkId,
    page: i64,
    next: Option<RunPlace>,
) -> Result<(), StoreError> {
    let (id, now) = (id.to_string(), tx.now());
    // A statement of its own: the next one sees what the transactions of the page have recorded.
    if tx.query(sql::LOCK_BULK, &params![&id], read_int).await? != [page] {
        return Ok(());
    }
    let place = next.map(|next| next.to_string());
    tx.execute(sql::COUNT_PAGE, &params![&id, place.as_deref()]).await?;
    tx.execute(sql::CLEAR_PAGE, &params![&id]).await?;
    if next.is_none() {
        tx.execute(sql::COMPLETE_BULK, &params![&id, now]).await?;
    }
    Ok(())
}

/// Writes the first digits of an id with its dashes.
fn dashed(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() + DASHES.len());
    for digit in digits.chars() {
        if DASHES.contains(&text.len()) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

fn to_id(text: String) -> Result<BulkId, StoreError> {
    let id = text.parse().map_err(|_| corrupt_row("bulk", "id", text))?;
    Ok(BulkId(id))
}

fn to_status(text: &str, id: BulkId) -> Result<BulkStatus, StoreError> {
    BulkStatus::parse(text).ok_or_else(|| corrupt_row("bulk", "status", id))
}

fn to_action(text: &str, id: BulkId) -> Result<BulkAction, StoreError> {
    BulkAction::parse(text).ok_or_else(|| corrupt_row("bulk", "action", id))
}

/// Reads an operation from the columns of `bulk_view!` in `sql::bulk`.
fn view(row: &dyn Row) -> Result<BulkView, StoreError> {
    let columns = &mut Cursor::new(row, "bulk");
    let id = to_id(columns.next("id")?)?;
    let count = |column: &str, columns: &mut Cursor<'_>| -> Result<u64, StoreError> {
        Ok(columns.next::<i64>(column)?.unsigned_abs())
    };
    Ok(BulkView {
        id,
        action: to_action(&columns.next::<String>("action")?, id)?,
        filter: parse_json(&columns.next::<String>("filter")?, "bulk", "filter", id)?,
        reason: columns.next("reason")?,
        created_by: columns.next("created_by")?,
        status: to_status(&columns.next::<String>("status")?, id)?,
        frozen_at: columns.next("frozen_at")?,
        ended_at: columns.next("ended_at")?,
        expected: RunCount {
            runs: count("expected", columns)?,
            is_exact: columns.next("is_exact")?,
        },
        done: count("done", columns)?,
        skipped: count("skipped", columns)?,
        failed: count("failed", columns)?,
    })
}

fn read_page(row: &dyn Row) -> Result<BulkPage, StoreError> {
    let columns = &mut Cursor::new(row, "bulk");
    let id = to_id(columns.next("id")?)?;
    Ok(BulkPage {
        id,
        namespace: to_name(columns.next("namespace")?, "bulk", "namespace")?,
        action: to_action(&columns.next::<String>("action")?, id)?,
        filter: columns.next("filter")?,
        frozen_at: columns.next("frozen_at")?,
        page: columns.next("page")?,
        after: columns.next("page_after")?,
        is_claimed: columns.next("session")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_have_the_dashes_of_ids() {
        let id = "0195b7f0-1234-7000-8000-00000000000a";
        let digits: String = id.chars().filter(|digit| *digit != '-').collect();
        for (at, _) in digits.char_indices() {
            let prefix = dashed(&digits[..at]);
            assert!(id.starts_with(&prefix), "{prefix}");
        }
        assert_eq!(dashed(&digits), id);
    }
}
