//! Encodes reports of commits as spans, and finds the spans that a lost session may not have sent.
//!
//! Not here: the effect of a report on anything but spans; there is none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use exosphere_domain::ids::{Millis, RunKey, SessionId, StateId};
use exosphere_domain::trace::SampleRatio;
use exosphere_store::{CommitReport, EndedAttempt, EndedRun, ReportedRun, StateRange, StoreError};
use tokio::runtime::Handle;

use super::counts::SpanCounters;
use super::queues::{LostSession, Message, ReportQueue, SpanQueue};
use super::span;
use super::surroundings::Finder;
use crate::inner::HostInner;

/// The time before the last end of a lost session within which its spans are sent again. A host
/// with a collector that answers has sent those before.
const RESEND_WINDOW_MS: Millis = 15_000;

/// Maximum number of attempts that are sent again for a lost session.
const MAX_RESENT_ATTEMPTS: u32 = 5_000;

/// The states that are searched for the ends of a lost session: the newest ones, and those around
/// some of the states that it held. The children of a fanout have consecutive numbers, and are
/// executed in that order.
const NEWEST_STATES: u32 = 10_000;
const STATES_AROUND_HELD: i64 = 2_500;
const MAX_HELD_RANGES: usize = 16;

/// The encoder.
pub(super) struct Encoder {
    inner: Arc<HostInner>,
    runtime: Handle,
    finder: Finder,
    sampled: SampleRatio,
    counters: Arc<SpanCounters>,
}

impl Encoder {
    pub(super) fn new(
        inner: Arc<HostInner>,
        runtime: Handle,
        sampled: SampleRatio,
        counters: Arc<SpanCounters>,
    ) -> Self {
        let finder = Finder::new(inner.db.store.clone(), runtime.clone());
        Encoder { inner, runtime, finder, sampled, counters }
    }

    /// Encodes all reports until their queue is closed.
    pub(super) async fn run(&mut self, reports: &ReportQueue, spans: &SpanQueue) {
        while let Some(message) = reports.next().await {
            match message {
                Message::Report(mut report) => {
                    let in_doubt = std::mem::take(&mut report.in_doubt);
                    self.encode(&report, spans).await;
                    if !in_doubt.is_empty() {
                        self.encode_in_doubt(&in_doubt, spans).await;
                    }
                }
                Message::Resend(lost) => self.resend(lost, spans).await,
            }
            // The sender has the same thread.
            tokio::task::yield_now().await;
        }
    }

    async fn encode(&mut self, report: &CommitReport, spans: &SpanQueue) {
        let around = match self.finder.find(report).await {
            Ok(around) => around,
            Err(error) => {
                let dropped = report.attempts.len() + report.ended_runs.len();
                let cause = format!("their surroundings cannot be read: {error}");
                return self.counters.add_dropped(dropped as u64, &cause);
            }
        };
        for (attempt, around) in report.attempts.iter().zip(around) {
            if let Some(run) = report.runs.get(&attempt.run) {
                spans.push(span::of_attempt(run, attempt, &around));
            }
        }
        for ended in &report.ended_runs {
            if let Some(run) = report.runs.get(&ended.run) {
                spans.push(span::of_run(run, ended));
            }
        }
    }

    /// Encodes the ends of states that a transaction with an unknown result may have committed.
    async fn encode_in_doubt(&mut self, states: &[StateId], spans: &SpanQueue) {
        let session = self.inner.cluster.session.current();
        let ranges = states.iter().map(|state| (*state, *state)).collect();
        self.encode_ends(session, ranges, Millis::MAX, spans).await;
    }

    /// Sends again what a lost session ended last. A collector may have it already: the ids of the
    /// spans are the same.
    async fn resend(&mut self, lost: LostSession, spans: &SpanQueue) {
        let store = self.inner.db.store.clone();
        let newest = self.finder.read(move || {
            let store = store.clone();
            async move { store.newest_states(NEWEST_STATES).await }
        });
        let newest = match newest.await {
            Ok(newest) => newest,
            Err(error) => return log_unread(&error),
        };
        let ranges = ranges_of(lost.held, newest);
        self.encode_ends(lost.session, ranges, RESEND_WINDOW_MS, spans).await;
    }

    async fn encode_ends(
        &mut self,
        session: SessionId,
        ranges: Vec<StateRange>,
        window: Millis,
        spans: &SpanQueue,
    ) {
        let (store, ranges) = (self.inner.db.store.clone(), Arc::new(ranges));
        let ends = self.finder.read(move || {
            let (store, ranges) = (store.clone(), ranges.clone());
            async move { store.recent_ends(session, &ranges, window, MAX_RESENT_ATTEMPTS).await }
        });
        match ends.await {
            Ok(attempts) => {
                tracing::debug!(attempts = attempts.len(), session = session.0, "resending spans");
                let report = self.report_of(attempts).await;
                self.encode(&report, spans).await;
            }
            Err(error) => log_unread(&error),
        }
    }

    /// Builds the report of attempts that were read, with those of their runs that have ended.
    async fn report_of(&self, attempts: Vec<EndedAttempt>) -> CommitReport {
        let keys: BTreeSet<RunKey> = attempts.iter().map(|attempt| attempt.run).collect();
        let (mut runs, mut ended_runs) = (BTreeMap::new(), Vec::new());
        for key in keys {
            let (inner, sampled) = (self.inner.clone(), self.sampled);
            let run = self.runtime.spawn(async move { read_run(&inner, key, sampled).await });
            // A run that was deleted meanwhile has no spans.
            if let Ok(Ok(Some((run, ended)))) = run.await {
                runs.insert(key, run);
                ended_runs.extend(ended);
            }
        }
        let attempts = attempts.into_iter().filter(|attempt| runs.contains_key(&attempt.run));
        CommitReport { attempts: attempts.collect(), runs, ended_runs, in_doubt: Vec::new() }
    }
}

/// Reads a run whose trace is sampled, and its end if it has ended.
async fn read_run(
    inner: &HostInner,
    key: RunKey,
    sampled: SampleRatio,
) -> Result<Option<(ReportedRun, Option<EndedRun>)>, StoreError> {
    let info = inner.caches.runs.get(&inner.db.store, key).await?;
    if !sampled.includes(info.id) {
        return Ok(None);
    }
    let view = inner.db.store.run(&info.namespace, info.id).await?;
    let ended = view.and_then(|view| {
        let (status, created_at, missed) = (view.status, view.created_at, view.missed);
        let ended_at = view.ended_at?;
        Some(EndedRun { run: key, status, created_at, ended_at, missed })
    });
    Ok(Some((ReportedRun::from(&*info), ended)))
}

/// Returns the states to search for the ends of a session that held some.
fn ranges_of(mut held: Vec<StateId>, newest: StateRange) -> Vec<StateRange> {
    held.sort_unstable();
    let first = held.iter().take(MAX_HELD_RANGES / 2);
    let last = held.iter().rev().take(MAX_HELD_RANGES / 2);
    let around = |state: &StateId| (state.0 - STATES_AROUND_HELD, state.0 + STATES_AROUND_HELD);
    let mut ranges: Vec<(i64, i64)> = first.chain(last).map(around).collect();
    ranges.push((newest.0.0, newest.1.0));
    ranges.sort_unstable();
    let mut merged: Vec<StateRange> = Vec::new();
    for (from, to) in ranges {
        match merged.last_mut() {
            Some(last) if from <= last.1.0 => last.1 = StateId(last.1.0.max(to)),
            _ => merged.push((StateId(from), StateId(to))),
        }
    }
    merged
}

fn log_unread(error: &StoreError) {
    tracing::warn!(%error, "cannot read the last attempts of a lost session; their spans may be missing");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_few_and_disjoint() {
        let state = StateId;
        let newest = (state(990_000), state(1_000_000));
        assert_eq!(ranges_of(Vec::new(), newest), [newest]);
        assert_eq!(
            ranges_of(vec![state(500_100), state(500_000)], newest),
            [(state(497_500), state(502_600)), newest]
        );
        // A state that is among the newest adds nothing.
        assert_eq!(ranges_of(vec![state(995_000)], newest), [newest]);
        let many = (0..1_000).map(|n| state(n * 900)).collect();
        let ranges = ranges_of(many, newest);
        let examined: i64 = ranges.iter().map(|(from, to)| to.0 - from.0 + 1).sum();
        assert!(examined <= 16 * 5_001 + 10_001, "{ranges:?}");
        assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0), "{ranges:?}");
    }
}
