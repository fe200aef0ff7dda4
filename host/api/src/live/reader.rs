//! A reader of a live view: sends the latest snapshot as soon as the connection takes it, and asks
//! once a second whether its key is still valid.
//!
//! Not here: what a snapshot says (`source`), and how long a connection may take nothing
//! (`connections`).

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use exosphere_orchestrator::Host;
use futures::stream;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};

use super::source::Snapshot;
use super::topic::Snapshots;
use crate::permits::Permit;

/// The time between two comments that keep a connection from seeming idle.
const PING_INTERVAL: Duration = Duration::from_secs(15);

/// The time between two looks at the key of a reader.
const ACCESS_INTERVAL: Duration = Duration::from_millis(500);

/// The longest time of a stream: a year, as good as for ever.
const MAX_TIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The start of a stream: the time after which a browser connects again, in milliseconds.
const OPENING: &[u8] = b"retry: 1000\n\n";

/// A comment.
const PING: &[u8] = b": ping\n\n";

/// The header with the id of the last event that a reader has got.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// A reader of a live view.
pub(super) struct Reader {
    host: Host,
    snapshots: Snapshots,
    /// The id of the last event that was sent, or that the reader has.
    sent: Option<String>,
    is_open: bool,
    pings: Interval,
    looks: Interval,
    ends_at: Instant,
    closed: watch::Receiver<()>,
    _permit: Permit,
}

impl Reader {
    /// Creates a reader with the headers of its request. It ends after a time, or when the host
    /// closes its connections.
    pub(super) fn new(
        host: Host,
        mut snapshots: Snapshots,
        headers: &HeaderMap,
        (time, closed): (Option<Duration>, watch::Receiver<()>),
        permit: Permit,
    ) -> Self {
        snapshots.mark_changed();
        let sent = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()).map(str::to_owned);
        Reader {
            host,
            snapshots,
            sent,
            is_open: false,
            pings: ticks(PING_INTERVAL),
            looks: ticks(ACCESS_INTERVAL),
            ends_at: Instant::now() + time.unwrap_or(MAX_TIME).min(MAX_TIME),
            closed,
            _permit: permit,
        }
    }

    /// Returns the response with the events.
    pub(super) fn into_response(self) -> Response {
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
            // A proxy that buffers would hold the events back.
            (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
        ];
        let events = stream::unfold(self, |mut reader| async move {
            let next = reader.next().await?;
            Some((Ok::<_, std::convert::Infallible>(next), reader))
        });
        (headers, Body::from_stream(events)).into_response()
    }

    /// Waits for the next piece of the stream; `None` at its end.
    async fn next(&mut self) -> Option<Bytes> {
        if !std::mem::replace(&mut self.is_open, true) {
            return Some(Bytes::from_static(OPENING));
        }
        loop {
            tokio::select! {
                // The key comes first: a reader that was blocked for long may have lost it.
                biased;
                _ = self.looks.tick() => {
                    if !self.host.is_still_admitted().await {
                        return None;
                    }
                }
                _ = self.closed.changed() => return None,
                changed = self.snapshots.changed() => {
                    // An error says that what it shows was deleted.
                    changed.ok()?;
                    let snapshot = self.snapshots.borrow_and_update().clone();
                    if let Some(event) = self.event(&snapshot) {
                        return Some(event);
                    }
                }
                () = sleep_until(self.ends_at) => return None,
                _ = self.pings.tick() => return Some(Bytes::from_static(PING)),
            }
        }
    }

    /// Returns the event of a snapshot, unless the reader has it: its change, if the reader has the
    /// snapshot before.
    fn event(&mut self, snapshot: &Snapshot) -> Option<Bytes> {
        if self.sent.as_ref() == Some(&snapshot.id) {
            return None;
        }
        let change =
            snapshot.change.as_ref().filter(|(since, _)| Some(since) == self.sent.as_ref());
        let text = change.map_or(&snapshot.whole, |(_, change)| change);
        self.sent = Some(snapshot.id.clone());
        let may_show = self.host.may_show_payloads();
        Some(if may_show { &text.with_payloads } else { &text.without_payloads }.clone())
    }
}

/// Returns the ticks of an interval, of which the first comes after one. A reader that was blocked
/// gets one tick, and not all that it has missed.
fn ticks(interval: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
