//! The two bounded queues of traces: reports of commits, which the encoder takes at once, and
//! encoded spans, which wait for the collector.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use exosphere_domain::ids::{SessionId, StateId};
use exosphere_store::CommitReport;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::counts::SpanCounters;

/// Maximum number of attempts and runs in the reports that wait, and bytes of their paths.
const MAX_REPORTED_SPANS: usize = 20_000;
const MAX_REPORTED_BYTES: usize = 16 * 1024 * 1024;

/// Maximum number of encoded spans that wait, and their bytes.
const MAX_QUEUED_SPANS: usize = 65_536;
const MAX_QUEUED_BYTES: usize = 32 * 1024 * 1024;

/// Maximum number of spans in a request, and their bytes. (A collector takes 20 MiB by default.)
const MAX_BATCH_SPANS: usize = 1_000;
const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// The time for which a span waits for others of its request. What a host that dies loses is what
/// it committed in this time and in that of a request.
const LINGER: Duration = Duration::from_millis(250);

const QUEUE_FULL: &str = "the queue is full, since the collector is slow or unavailable";

/// A message to the encoder.
pub(super) enum Message {
    Report(CommitReport),
    /// Spans of a lost session are to be sent again: it may have died before it sent them.
    Resend(LostSession),
}

/// A session that ended without sending what it had queued.
pub(super) struct LostSession {
    pub session: SessionId,
    /// Some of the states that it held.
    pub held: Vec<StateId>,
}

/// The queue of reports.
pub(super) struct ReportQueue {
    state: Mutex<Reports>,
    arrived: Notify,
    counters: Arc<SpanCounters>,
}

#[derive(Default)]
struct Reports {
    messages: VecDeque<Message>,
    spans: usize,
    bytes: usize,
    is_closed: bool,
}

impl ReportQueue {
    pub(super) fn new(counters: Arc<SpanCounters>) -> Self {
        ReportQueue { state: Mutex::default(), arrived: Notify::new(), counters }
    }

    /// Adds a message. A report that does not fit is dropped.
    pub(super) fn push(&self, message: Message) {
        let (spans, bytes) = size(&message);
        let mut state = self.state.lock();
        let is_full = state.spans + spans > MAX_REPORTED_SPANS && state.spans > 0
            || state.bytes + bytes > MAX_REPORTED_BYTES && state.bytes > 0;
        if is_full || state.is_closed {
            drop(state);
            return self.counters.add_dropped(spans as u64, QUEUE_FULL);
        }
        state.spans += spans;
        state.bytes += bytes;
        state.messages.push_back(message);
        drop(state);
        self.arrived.notify_one();
    }

    /// Closes the queue: the encoder ends after the last message.
    pub(super) fn close(&self) {
        self.state.lock().is_closed = true;
        self.arrived.notify_one();
    }

    /// Waits for the next message; `None` once the queue is closed and empty.
    pub(super) async fn next(&self) -> Option<Message> {
        loop {
            {
                let mut state = self.state.lock();
                if let Some(message) = state.messages.pop_front() {
                    let (spans, bytes) = size(&message);
                    state.spans -= spans;
                    state.bytes -= bytes;
                    return Some(message);
                }
                if state.is_closed {
                    return None;
                }
            }
            self.arrived.notified().await;
        }
    }
}

/// Returns the spans of a message, and the bytes that they take.
fn size(message: &Message) -> (usize, usize) {
    match message {
        Message::Report(report) => {
            let spans = report.attempts.len() + report.ended_runs.len() + report.in_doubt.len();
            let paths: usize = report.attempts.iter().map(|it| it.path.as_str().len()).sum();
            (spans, paths)
        }
        Message::Resend(_) => (0, 0),
    }
}

/// The queue of encoded spans.
pub(super) struct SpanQueue {
    state: Mutex<Spans>,
    changed: Notify,
    counters: Arc<SpanCounters>,
}

#[derive(Default)]
struct Spans {
    spans: VecDeque<Vec<u8>>,
    bytes: usize,
    /// The time by which the sender gives up, once the host stops.
    closing_until: Option<Instant>,
    /// Set if no span follows.
    is_ended: bool,
}

impl SpanQueue {
    pub(super) fn new(counters: Arc<SpanCounters>) -> Self {
        SpanQueue { state: Mutex::default(), changed: Notify::new(), counters }
    }

    /// Adds an encoded span; drops it if the queue is full.
    pub(super) fn push(&self, span: Vec<u8>) {
        let mut state = self.state.lock();
        let bytes = state.bytes + span.len();
        if state.spans.len() >= MAX_QUEUED_SPANS || bytes > MAX_QUEUED_BYTES {
            drop(state);
            return self.counters.add_dropped(1, QUEUE_FULL);
        }
        state.bytes = bytes;
        state.spans.push_back(span);
        let is_news = state.spans.len() == 1 || state.spans.len() == MAX_BATCH_SPANS;
        drop(state);
        if is_news {
            self.changed.notify_one();
        }
    }

    /// Makes the sender end after the last span, or at this time.
    pub(super) fn close(&self, until: Instant) {
        self.state.lock().closing_until = Some(until);
        self.changed.notify_one();
    }

    /// Reports that no span follows.
    pub(super) fn end(&self) {
        self.state.lock().is_ended = true;
        self.changed.notify_one();
    }

    /// Waits until the host stops; returns the time by which the sender gives up.
    pub(super) async fn closing(&self) -> Instant {
        loop {
            let closing_until = self.state.lock().closing_until;
            if let Some(until) = closing_until {
                return until;
            }
            self.changed.notified().await;
        }
    }

    /// Waits for the spans of the next request; `None` once no span follows, or the time is over.
    pub(super) async fn next_batch(&self) -> Option<Vec<Vec<u8>>> {
        let mut linger_until = None;
        loop {
            let wake_at = {
                let mut state = self.state.lock();
                let now = Instant::now();
                let is_over = |until: Option<Instant>| until.is_some_and(|until| now >= until);
                let (closing_until, is_empty) = (state.closing_until, state.spans.is_empty());
                if is_over(closing_until) || (is_empty && state.is_ended) {
                    return None;
                }
                let is_full =
                    state.spans.len() >= MAX_BATCH_SPANS || state.bytes >= MAX_BATCH_BYTES;
                if !is_empty && (closing_until.is_some() || is_full || is_over(linger_until)) {
                    return Some(state.take_batch());
                }
                if !is_empty {
                    linger_until.get_or_insert(now + LINGER);
                }
                closing_until.or(linger_until)
            };
            match wake_at {
                Some(time) => drop(timeout_at(time, self.changed.notified()).await),
                None => self.changed.notified().await,
            }
        }
    }

    /// Drops all spans: the host ends.
    pub(super) fn drop_all(&self, cause: &str) {
        let dropped = std::mem::take(&mut self.state.lock().spans).len();
        self.counters.add_dropped(dropped as u64, cause);
    }
}

impl Spans {
    fn take_batch(&mut self) -> Vec<Vec<u8>> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < MAX_BATCH_SPANS
            && let Some(span) = self.spans.front()
            && (batch.is_empty() || bytes + span.len() <= MAX_BATCH_BYTES)
        {
            bytes += span.len();
            batch.extend(self.spans.pop_front());
        }
        self.bytes -= bytes;
        batch
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn queue() -> SpanQueue {
        SpanQueue::new(Arc::default())
    }

    #[tokio::test]
    async fn spans_wait_for_others() {
        let queue = queue();
        queue.push(vec![1]);
        let started = Instant::now();
        let (batch, ()) = tokio::join!(queue.next_batch(), async {
            tokio::time::sleep(LINGER / 2).await;
            queue.push(vec![2]);
        });
        assert_eq!(batch, Some(vec![vec![1], vec![2]]));
        assert!(started.elapsed() >= LINGER, "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn a_full_batch_goes_at_once() {
        let queue = queue();
        (0..=MAX_BATCH_SPANS).for_each(|_| queue.push(vec![1]));
        let batch = queue.next_batch().now_or_never();
        assert_eq!(batch.unwrap().unwrap().len(), MAX_BATCH_SPANS);
        assert_eq!(queue.next_batch().now_or_never(), None, "the last one waits");
        let half = vec![0; MAX_BATCH_BYTES / 2];
        (0..3).for_each(|_| queue.push(half.clone()));
        // One small span, and one of the three.
        assert_eq!(queue.next_batch().now_or_never().unwrap().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_closed_queue_ends_after_its_spans() {
        let queue = queue();
        queue.push(vec![1]);
        queue.close(Instant::now() + LINGER);
        assert_eq!(queue.next_batch().await, Some(vec![vec![1]]));
        // The encoder is still at work.
        let (batch, ()) = tokio::join!(queue.next_batch(), async {
            queue.push(vec![2]);
            queue.end();
        });
        assert_eq!(batch, Some(vec![vec![2]]));
        assert_eq!(queue.next_batch().await, None);
    }

    #[tokio::test]
    async fn a_closed_queue_ends_in_time() {
        let queue = queue();
        let started = Instant::now();
        queue.close(started + LINGER);
        assert_eq!(queue.next_batch().await, None);
        assert!(started.elapsed() >= LINGER, "{:?}", started.elapsed());
        assert_eq!(queue.closing().await, started + LINGER);
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let queue = queue();
        (0..MAX_QUEUED_SPANS + 5).for_each(|_| queue.push(vec![1]));
        assert_eq!(queue.counters.counts().dropped, 5);
        let queue = SpanQueue::new(Arc::default());
        (0..40).for_each(|_| queue.push(vec![1; 1024 * 1024]));
        assert_eq!(queue.counters.counts().dropped, 8);
        queue.drop_all("the end");
        assert_eq!(queue.counters.counts().dropped, 40);
    }

    #[tokio::test]
    async fn reports_are_bounded_by_their_spans() {
        let queue = ReportQueue::new(Arc::default());
        let report = |spans| {
            let in_doubt = vec![StateId(1); spans];
            Message::Report(CommitReport { in_doubt, ..CommitReport::default() })
        };
        // One report is taken whatever it holds.
        queue.push(report(MAX_REPORTED_SPANS + 1));
        queue.push(report(1));
        assert_eq!(queue.counters.counts().dropped, 1);
        assert!(queue.next().await.is_some());
        queue.push(report(2));
        queue.close();
        queue.push(report(3));
        assert!(queue.next().await.is_some());
        assert!(queue.next().await.is_none());
        assert_eq!(queue.counters.counts().dropped, 4);
    }
}
