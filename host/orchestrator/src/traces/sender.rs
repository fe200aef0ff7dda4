//! Sends batches of spans to a collector, one after the other, by OTLP/HTTP. A request that fails
//! for a moment is repeated; a collector that is slow, gone or hostile costs the queued spans and
//! nothing else.
//!
//! Not here: what a request contains (`request`).

use std::net::IpAddr;
use std::time::Duration;

use exosphere_domain::outage_backoff::Backoff;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::config::TraceConfig;
use super::counts::SpanCounters;
use super::queues::SpanQueue;
use super::request::{RequestFrame, gzip, partial_success};

/// The pauses between the tries of a request.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// The longest pause that a collector may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(5 * 60);

/// The time after which a request is no longer repeated: newer spans matter more.
const MAX_BATCH_AGE: Duration = Duration::from_secs(5 * 60);

/// The bytes of an answer that are read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// The end of one try.
enum Try {
    Taken {
        rejected: u64,
        message: String,
    },
    /// Another try may succeed, after this pause if the collector asks for one.
    Failed {
        cause: String,
        retry_after: Option<Duration>,
    },
    Refused(String),
}

/// A sender of spans.
pub(super) struct Sender {
    client: Client,
    config: TraceConfig,
    endpoint: String,
    frame: RequestFrame,
}

impl Sender {
    /// Creates a sender. Nothing is sent yet.
    ///
    /// # Errors
    /// If the system has no certificates to trust.
    pub(super) fn new(config: TraceConfig) -> Result<Sender, reqwest::Error> {
        // An error means that it is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = Client::builder()
            .user_agent(concat!("exosphere/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(config.timeout)
            .timeout(config.timeout)
            // A redirect would take the spans, and the headers, to another server.
            .redirect(redirect::Policy::none());
        if !config.extra_roots.is_empty() {
            client = client.tls_certs_merge(config.extra_roots.clone());
        }
        if is_loopback(&config.endpoint) {
            client = client.no_proxy();
        }
        let frame = RequestFrame::new(&config.attributes);
        Ok(Sender { client: client.build()?, endpoint: config.shown_endpoint(), frame, config })
    }

    /// Sends the spans of a queue until no span follows, or the time of a stopping host is over.
    pub(super) async fn run(&self, queue: &SpanQueue, counters: &SpanCounters) {
        while let Some(batch) = queue.next_batch().await {
            let spans = batch.len() as u64;
            match self.send(&batch, queue, counters).await {
                Ok(rejected) => counters.add_sent(spans.saturating_sub(rejected)),
                Err(cause) => counters.add_dropped(spans, &cause),
            }
        }
        queue.drop_all("the host has stopped before they were sent");
    }

    /// Sends a batch, with repetitions. Returns the number of spans that the collector rejected.
    async fn send(
        &self,
        batch: &[Vec<u8>],
        queue: &SpanQueue,
        counters: &SpanCounters,
    ) -> Result<u64, String> {
        let mut body = self.frame.request(batch);
        if self.config.gzip {
            body = gzip(&body).map_err(|error| error.to_string())?;
        }
        let (started, mut backoff) = (Instant::now(), Backoff::new(BACKOFF.0, BACKOFF.1));
        loop {
            let (cause, retry_after) = match self.try_within(&body, queue).await {
                Try::Taken { rejected, message } => {
                    let rejected = rejected.min(batch.len() as u64);
                    if rejected > 0 || !message.is_empty() {
                        counters.add_dropped(rejected, &format!("the collector: {message:?}"));
                    }
                    return Ok(rejected);
                }
                Try::Refused(cause) => return Err(cause),
                Try::Failed { cause, retry_after } => (cause, retry_after),
            };
            counters.log_retry(&self.endpoint, &cause);
            // Many hosts must not try again at the same moment.
            let own = backoff.advance().mul_f64(0.5 + crate::system::jitter());
            let next = Instant::now() + retry_after.unwrap_or(own);
            if next - started > MAX_BATCH_AGE || !wait_until(next, queue).await {
                return Err(cause);
            }
            counters.log_drops();
        }
    }

    /// Tries to send a request; a try ends when the time of a stopping host is over.
    async fn try_within(&self, body: &[u8], queue: &SpanQueue) -> Try {
        let late = || Try::Refused("the host stops, and the collector has not answered".into());
        let request = self.try_once(body);
        tokio::pin!(request);
        tokio::select! {
            done = &mut request => done,
            until = queue.closing() => timeout_at(until, request).await.unwrap_or_else(|_| late()),
        }
    }

    async fn try_once(&self, body: &[u8]) -> Try {
        let mut request = self
            .client
            .post(self.config.endpoint.clone())
            .headers(self.config.headers.clone())
            .header(CONTENT_TYPE, "application/x-protobuf");
        if self.config.gzip {
            request = request.header(CONTENT_ENCODING, "gzip");
        }
        match request.body(body.to_vec()).send().await {
            Ok(answer) => read(answer).await,
            Err(error) => Try::Failed { cause: root_cause(&error), retry_after: None },
        }
    }
}

/// Reads an answer, up to [`MAX_ANSWER_BYTES`].
async fn read(mut answer: Response) -> Try {
    let status = answer.status();
    let cause = format!("the collector answered with status {}", status.as_u16());
    match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            return Try::Failed { cause, retry_after: retry_after(answer.headers()) };
        }
        _ if !status.is_success() => return Try::Refused(cause),
        _ => {}
    }
    let mut body = Vec::new();
    // The spans are taken, whatever becomes of the rest of the answer.
    while let Ok(Some(chunk)) = answer.chunk().await {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            break;
        }
        body.extend_from_slice(&chunk);
    }
    match partial_success(&body) {
        Some(partial) => Try::Taken { rejected: partial.rejected, message: partial.message },
        None => Try::Taken { rejected: 0, message: String::new() },
    }
}

/// Returns the pause that a collector asks for, in its form of seconds.
fn retry_after(headers: &HeaderMap<HeaderValue>) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

/// Waits until a time. Returns `false` if the host stops before that.
async fn wait_until(time: Instant, queue: &SpanQueue) -> bool {
    tokio::select! {
        () = sleep_until(time) => true,
        until = queue.closing() => {
            let is_in_time = time < until;
            if is_in_time {
                sleep_until(time).await;
            }
            is_in_time
        }
    }
}

/// Returns whether a URL is of this machine, which a proxy cannot reach.
fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Returns the innermost cause, without the URL, which may hold a password.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
