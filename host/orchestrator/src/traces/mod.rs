//! Traces: a span for each attempt and each run that has ended, sent to a collector by OTLP/HTTP.
//! They are made from what was committed, so that they agree with the database, outlive the host
//! that made them, and hold nothing open. The id of a trace is that of its run; those of spans are
//! derived (`exosphere_domain::trace`).
//!
//! A commit reports what it ended (`CommitReport` of the store). The dispatcher puts the report
//! into a queue (`queues`), from where everything happens on a thread of its own: the `encoder`
//! finds the `surroundings` of a `span` and encodes it (`protobuf`), and the `sender` sends the
//! spans as a `request`.
//!
//! Not here: metrics, and the log.

mod config;
mod counts;
mod encoder;
mod protobuf;
mod queues;
mod request;
mod sender;
mod span;
mod surroundings;

use std::sync::Arc;
use std::time::Duration;

use exosphere_domain::ids::{RunId, SessionId, StateId};
use exosphere_domain::path::Path;
use exosphere_domain::trace::{SampleRatio, StateDigest, traceparent};
use exosphere_store::CommitReport;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

pub use config::{DEFAULT_OTLP_TIMEOUT, TraceConfig};
use counts::SpanCounters;
pub(crate) use counts::TraceCounts;
use encoder::Encoder;
use queues::{LostSession, Message, ReportQueue, SpanQueue};
use sender::Sender;

use crate::error::StartError;
use crate::inner::HostInner;

/// The longest time for which a stopping host waits until its spans are sent.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// The part of it that is left for the end of the thread, after the sender has given up.
const FLUSH_RESERVE: Duration = Duration::from_millis(300);

/// The lowered priority of the thread: commits and nodes go first.
const NICENESS: i32 = 5;

/// The traces of a host; nothing if it sends none.
#[derive(Default)]
pub(crate) struct Traces(Option<ActiveTraces>);

/// The traces of a host that sends them.
struct ActiveTraces {
    sampled: SampleRatio,
    counters: Arc<SpanCounters>,
    reports: Arc<ReportQueue>,
    spans: Arc<SpanQueue>,
    /// The sender and the end of the thread, until the thread starts and until the host stops.
    sender: Mutex<Option<Sender>>,
    ended: Mutex<Option<oneshot::Receiver<()>>>,
}

impl Traces {
    /// Creates the traces of a host. Nothing is sent before [`start`].
    ///
    /// # Errors
    /// If the system has no certificates to trust.
    pub(crate) fn new(config: Option<TraceConfig>) -> Result<Traces, StartError> {
        let Some(config) = config else { return Ok(Traces::default()) };
        let (sampled, counters) = (config.sample, Arc::<SpanCounters>::default());
        let sender = Sender::new(config).map_err(StartError::Traces)?;
        Ok(Traces(Some(ActiveTraces {
            sampled,
            reports: Arc::new(ReportQueue::new(counters.clone())),
            spans: Arc::new(SpanQueue::new(counters.clone())),
            counters,
            sender: Mutex::new(Some(sender)),
            ended: Mutex::default(),
        })))
    }

    /// Returns the part of all runs whose traces are sent; `None` if none are.
    pub(crate) fn sampled(&self) -> Option<SampleRatio> {
        self.0.as_ref().map(|active| active.sampled)
    }

    /// Returns the header `traceparent` of an attempt's requests, if the host sends traces.
    pub(crate) fn traceparent(&self, run: RunId, path: &Path, attempt: u32) -> Option<String> {
        let is_sampled = self.sampled()?.includes(run);
        Some(traceparent(run, StateDigest::new(run, path).attempt(attempt), is_sampled))
    }

    /// Takes the report of a commit.
    pub(crate) fn record(&self, report: CommitReport) {
        if let Some(active) = &self.0
            && !report.is_empty()
        {
            active.reports.push(Message::Report(report));
        }
    }

    /// Sends the last spans of a lost session, which held these states, again.
    pub(crate) fn resend(&self, session: SessionId, held: Vec<StateId>) {
        if let Some(active) = &self.0 {
            active.reports.push(Message::Resend(LostSession { session, held }));
        }
    }

    /// Returns the numbers of spans that were sent and dropped.
    pub(crate) fn counts(&self) -> TraceCounts {
        self.0.as_ref().map(|active| active.counters.counts()).unwrap_or_default()
    }

    /// Sends what is queued, for at most [`FLUSH_TIMEOUT`]. Nothing is recorded from then on.
    pub(crate) async fn flush(&self) {
        let Some(active) = &self.0 else { return };
        let Some(ended) = active.ended.lock().take() else { return };
        active.spans.close(Instant::now() + FLUSH_TIMEOUT - FLUSH_RESERVE);
        active.reports.close();
        // The thread ends by itself, unless it waits for the database.
        let _ = timeout(FLUSH_TIMEOUT, ended).await;
    }
}

/// Starts the thread of traces, if the host sends them.
///
/// # Errors
/// If the system cannot start a thread.
pub(crate) fn start(inner: &Arc<HostInner>) -> std::io::Result<()> {
    let Some(active) = &inner.traces.0 else { return Ok(()) };
    let Some(sender) = active.sender.lock().take() else { return Ok(()) };
    let (end, ended) = oneshot::channel();
    *active.ended.lock() = Some(ended);
    let mut encoder =
        Encoder::new(inner.clone(), Handle::current(), active.sampled, active.counters.clone());
    let (reports, spans) = (active.reports.clone(), active.spans.clone());
    let counters = active.counters.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let work = move || {
        // Without it, the thread only has the priority of the others.
        let _ = rustix::process::nice(NICENESS);
        runtime.block_on(async {
            let encode = async {
                encoder.run(&reports, &spans).await;
                spans.end();
            };
            tokio::join!(encode, sender.run(&spans, &counters));
        });
        counters.log_rest();
        drop(end);
    };
    std::thread::Builder::new().name("traces".into()).spawn(work).map(drop)
}
