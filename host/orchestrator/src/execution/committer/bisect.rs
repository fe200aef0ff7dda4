//! The bisection of a batch: if the data of one operation makes the transaction fail,
//! smaller ranges are committed, so that the other operations succeed.
//!
//! Not here: one transaction with its retries (`transaction`).

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use exosphere_domain::plan::fail_permanently;
use exosphere_store::{ClaimMode, ClaimShares, Committed, Finished, Operation, Reply, StoreError};

use super::CommitLoop;
use super::pacing::{claims_due, earlier};
use super::reply::ReplySender;
use super::transaction::Halt;
use crate::database_backoff::MAX_PAUSE;
use crate::error::internal;

/// The operations of a batch, and the reply senders of those that have one.
#[derive(Clone, Copy)]
pub(super) struct BatchView<'a> {
    pub operations: &'a Arc<[Operation]>,
    pub senders: &'a [Option<ReplySender>],
}

/// The sum of the transactions of one batch.
#[derive(Default)]
pub(super) struct CommitSummary {
    /// The reply to each operation, in order.
    pub replies: Vec<Result<Reply, StoreError>>,
    pub done: Committed,
}

impl CommitSummary {
    fn add(&mut self, done: Committed) {
        self.done.now = self.done.now.max(done.now);
        self.done.claimed.extend(done.claimed);
        self.done.run_updates.extend(done.run_updates);
        self.done.ended.extend(done.ended);
        self.done.commit_counts.extend(done.commit_counts);
        self.done.report.merge(done.report);
        self.done.more_due |= done.more_due;
        self.done.saturated.extend(done.saturated);
        self.done.saturated_runs.extend(done.saturated_runs);
        self.done.added |= done.added;
        self.done.cursors.extend(done.cursors);
        self.done.staged_queues.merge(done.staged_queues);
        self.done.next_due = earlier(self.done.next_due, done.next_due);
    }
}

/// Ranges of a batch that are not committed yet, in order, each with its claim budget.
/// Parts of a range claim nothing.
struct PendingRanges(VecDeque<(Range<usize>, ClaimMode)>);

impl PendingRanges {
    fn next(&mut self) -> Option<(Range<usize>, ClaimMode)> {
        self.0.pop_front()
    }

    /// Puts the halves of a range first.
    fn halve(&mut self, range: Range<usize>) {
        let middle = range.start + range.len() / 2;
        self.put_first([range.start..middle, middle..range.end]);
    }

    /// Splits a range around one operation and puts the parts first, with that operation alone
    /// between them.
    fn isolate(&mut self, range: Range<usize>, at: usize) {
        self.put_first([range.start..at, at..at + 1, at + 1..range.end]);
    }

    fn put_first<const N: usize>(&mut self, inner: [Range<usize>; N]) {
        let inner = inner.into_iter().rev().filter(|part| !part.is_empty());
        inner.for_each(|part| self.0.push_front((part, ClaimMode::NewOnly(0))));
    }
}

impl CommitLoop {
    /// Commits operations as one transaction, or as several if one cannot be committed.
    pub(super) async fn commit_bisected(
        &mut self,
        view: BatchView<'_>,
        budget: ClaimMode,
        shares: &ClaimShares,
    ) -> CommitSummary {
        let mut summary = CommitSummary::default();
        let whole = 0..view.operations.len();
        let mut pending = PendingRanges(VecDeque::from([(whole, budget)]));
        while let Some((range, budget)) = pending.next() {
            let cause = match self.try_commit(view, range.clone(), budget, shares).await {
                Ok(mut done) => {
                    summary.replies.extend(done.replies.drain(..).map(Ok));
                    summary.add(done);
                    continue;
                }
                Err(Halt::Withdrawn(at)) => {
                    // Makes the loop commit again, which shows whether the database is
                    // available.
                    summary.done.more_due = true;
                    if range.len() == 1 {
                        summary.replies.push(Err(StoreError::Unavailable("withdrawn".into())));
                    } else {
                        pending.isolate(range, at);
                    }
                    continue;
                }
                Err(Halt::Data(cause)) => cause,
            };
            // The halves claim nothing, so they do not report which states are due.
            summary.done.more_due |= claims_due(budget);
            if range.len() > 1 {
                pending.halve(range);
                continue;
            }
            match &view.operations[range] {
                [Operation::Finish(finished)] => {
                    let done = self.fail_uncommittable(finished, &cause).await;
                    summary.replies.push(Ok(Reply::Done));
                    summary.add(done);
                }
                [_] => summary.replies.push(Err(StoreError::Data(cause))),
                _ => {
                    tracing::error!(cause, "a claim failed");
                    tokio::time::sleep(MAX_PAUSE).await;
                }
            }
        }
        summary
    }

    /// Ends a state whose outcome cannot be committed, with an `internal` failure.
    async fn fail_uncommittable(&mut self, finished: &Finished, cause: &str) -> Committed {
        let failure = internal(&format!("the outcome of state {} {cause}", finished.state.id));
        let changes = match fail_permanently(&finished.run.graph, &finished.state, failure) {
            Ok(changes) => changes,
            Err(mismatch) => {
                tracing::error!(%mismatch, state = %finished.state.id, "a state cannot be ended");
                return Committed::default();
            }
        };
        let operation = Operation::Finish(Box::new(Finished {
            run: finished.run.clone(),
            state: finished.state.clone(),
            changes,
            journal: Default::default(),
            logs: None,
            usage: finished.usage,
            began_at: None,
            jitter: finished.jitter,
            limits: finished.limits.clone(),
            staged: None,
        }));
        let operations: Arc<[Operation]> = [operation].into();
        let shares = self.shares(&[]);
        let view = BatchView { operations: &operations, senders: &[] };
        let committed = self.try_commit(view, 0..1, ClaimMode::NewOnly(0), &shares).await;
        committed.unwrap_or_else(|cause| {
            tracing::error!(?cause, state = %finished.state.id, "a state cannot be ended");
            Committed::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_CLAIMS: ClaimMode = ClaimMode::NewOnly(0);

    fn drain_all(mut pending: PendingRanges) -> Vec<(Range<usize>, ClaimMode)> {
        std::iter::from_fn(|| pending.next()).collect()
    }

    #[test]
    fn halves_go_first_and_claim_nothing() {
        let mut pending = PendingRanges(VecDeque::from([(5..9, ClaimMode::AllDue(3))]));
        pending.halve(0..5);
        assert_eq!(
            drain_all(pending),
            [(0..2, NO_CLAIMS), (2..5, NO_CLAIMS), (5..9, ClaimMode::AllDue(3))]
        );
    }

    #[test]
    fn a_withdrawn_operation_is_isolated() {
        let isolated = |at| {
            let mut pending = PendingRanges(VecDeque::new());
            pending.isolate(2..5, at);
            drain_all(pending).into_iter().map(|(range, _)| range).collect::<Vec<_>>()
        };
        assert_eq!(isolated(3), [2..3, 3..4, 4..5]);
        assert_eq!(isolated(2), [2..3, 3..5]);
        assert_eq!(isolated(4), [2..4, 4..5]);
    }

    #[test]
    fn a_summary_adds_its_transactions() {
        let mut summary = CommitSummary::default();
        let done =
            |now, more_due, next_due| Committed { now, more_due, next_due, ..Committed::default() };
        summary.add(done(7, true, Some(90)));
        summary.add(done(9, false, Some(80)));
        summary.add(done(0, false, None));
        let Committed { now, more_due, next_due, .. } = summary.done;
        assert_eq!((now, more_due, next_due), (9, true, Some(80)));
    }
}
