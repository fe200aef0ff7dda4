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

use super::errors::from_hyper;
use crate::limits::signal::LimitSignal;

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
pub(super) enum Direction {
    /// From the guest to the server.
    Request,
    /// From the server to the guest.
    Response,
}

/// The byte counter of one body.
pub(super) struct ByteCounter {
    direction: Direction,
    bytes: u64,
    max_bytes: u64,
    traffic: Arc<Traffic>,
    limit_signal: Arc<LimitSignal>,
}

impl ByteCounter {
    pub(super) fn new(
        direction: Direction,
        max_bytes: u64,
        traffic: &Arc<Traffic>,
        limit_signal: &Arc<LimitSignal>,
    ) -> ByteCounter {
        let (traffic, limit_signal) = (Arc::clone(traffic), Arc::clone(limit_signal));
        ByteCounter { direction, bytes: 0, max_bytes, traffic, limit_signal }
    }

    /// Counts the bytes of a frame, and ends the attempt if they exceed the limit.
    fn pass(&mut self, frame: &Frame<Bytes>) -> Result<(), Error> {
        let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
        self.bytes = self.bytes.saturating_add(bytes);
        let (total, limit, error) = match self.direction {
            Direction::Request => {
                (&self.traffic.sent, Limit::HttpRequestBytes, Error::HttpRequestBodySize(None))
            }
            Direction::Response => (
                &self.traffic.received,
                Limit::HttpResponseBytes,
                Error::HttpResponseBodySize(None),
            ),
        };
        total.fetch_add(bytes, Relaxed);
        if self.bytes > self.max_bytes {
            self.limit_signal.report(limit);
            return Err(error);
        }
        Ok(())
    }
}

/// The body of a request.
pub(super) struct RequestBody {
    pub(super) body: WasiBody,
    pub(super) counter: ByteCounter,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        Pin::new(&mut this.body)
            .poll_frame(cx)
            .map_ok(|frame| this.counter.pass(&frame).map(|()| frame))
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
pub(super) struct ReadTimeout {
    time: Duration,
    // On the heap, since a body must be movable.
    over: Pin<Box<Sleep>>,
}

impl ReadTimeout {
    pub(super) fn new(time: Duration) -> ReadTimeout {
        ReadTimeout { time, over: Box::pin(sleep(time)) }
    }
}

/// The body of a response.
pub(super) struct ResponseBody {
    body: Incoming,
    counter: ByteCounter,
    timeout: Option<ReadTimeout>,
    is_over: Arc<AtomicBool>,
}

impl ResponseBody {
    /// Wraps a response body. `is_over` is set when the body ends or is dropped.
    pub(super) fn new(
        body: Incoming,
        counter: ByteCounter,
        timeout: Option<ReadTimeout>,
        is_over: Arc<AtomicBool>,
    ) -> ResponseBody {
        ResponseBody { body, counter, timeout, is_over }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let polled = match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                if let Some(timeout) = &mut this.timeout {
                    timeout.over.as_mut().reset(Instant::now() + timeout.time);
                }
                let counted = |frame| this.counter.pass(&frame).map(|()| frame);
                Poll::Ready(frame.map(|frame| frame.map_err(from_hyper).and_then(counted)))
            }
            Poll::Pending => match &mut this.timeout {
                Some(timeout) => {
                    let over = timeout.over.as_mut().poll(cx);
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

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
    }
}
