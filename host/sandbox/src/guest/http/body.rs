//! The bodies of a request and its response: counted as they pass, and cut off at a
//! limit.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use exosphere_domain::limits::Limit;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep};
use wasmtime_wasi_http::{Error, WasiBody};

use super::call::of_hyper;
use crate::limits::signal::Breach;

/// Bytes of all bodies of one guest.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    pub(super) fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }
}

/// The direction of a body.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    /// From the guest to the server.
    Out,
    /// From the server to the guest.
    In,
}

/// The byte counter of one body.
pub(super) struct Gauge {
    way: Way,
    bytes: u64,
    most: u64,
    traffic: Arc<Traffic>,
    breach: Arc<Breach>,
}

impl Gauge {
    pub(super) fn new(way: Way, most: u64, traffic: &Arc<Traffic>, breach: &Arc<Breach>) -> Gauge {
        let (traffic, breach) = (Arc::clone(traffic), Arc::clone(breach));
        Gauge { way, bytes: 0, most, traffic, breach }
    }

    /// Counts the bytes of a frame, and ends the attempt if they exceed the limit.
    fn pass(&mut self, frame: &Frame<Bytes>) -> Result<(), Error> {
        let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
        self.bytes = self.bytes.saturating_add(bytes);
        let (total, limit, error) = match self.way {
            Way::Out => {
                (&self.traffic.sent, Limit::HttpRequestBytes, Error::HttpRequestBodySize(None))
            }
            Way::In => (
                &self.traffic.received,
                Limit::HttpResponseBytes,
                Error::HttpResponseBodySize(None),
            ),
        };
        total.fetch_add(bytes, Relaxed);
        if self.bytes > self.most {
            self.breach.report(limit);
            return Err(error);
        }
        Ok(())
    }
}

/// The body of a request.
pub(super) struct Outgoing {
    pub(super) body: WasiBody,
    pub(super) gauge: Gauge,
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        Pin::new(&mut this.body)
            .poll_frame(cx)
            .map_ok(|frame| this.gauge.pass(&frame).map(|()| frame))
            .map(|frame| frame.map(Result::flatten))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A guest's timeout for the next piece of a body, if it set one.
pub(super) struct Patience {
    time: Duration,
    // On the heap, since a body must be movable.
    over: Pin<Box<Sleep>>,
}

impl Patience {
    pub(super) fn new(time: Duration) -> Patience {
        Patience { time, over: Box::pin(sleep(time)) }
    }
}

/// The body of a response.
pub(super) struct Received {
    body: Incoming,
    gauge: Gauge,
    patience: Option<Patience>,
    is_over: Arc<AtomicBool>,
}

impl Received {
    /// Wraps a response body. `is_over` is set when the body ends or is dropped.
    pub(super) fn new(
        body: Incoming,
        gauge: Gauge,
        patience: Option<Patience>,
        is_over: Arc<AtomicBool>,
    ) -> Received {
        Received { body, gauge, patience, is_over }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let polled = match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                if let Some(patience) = &mut this.patience {
                    patience.over.as_mut().reset(Instant::now() + patience.time);
                }
                let counted = |frame| this.gauge.pass(&frame).map(|()| frame);
                Poll::Ready(frame.map(|frame| frame.map_err(of_hyper).and_then(counted)))
            }
            Poll::Pending => match &mut this.patience {
                Some(patience) => {
                    let over = patience.over.as_mut().poll(cx);
                    over.map(|()| Some(Err(Error::ConnectionReadTimeout)))
                }
                None => Poll::Pending,
            },
        };
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            this.is_over.store(true, Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
    }
}
