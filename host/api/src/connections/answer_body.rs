//! The body of an answer on its connection. It ends its request when it is dropped, and on a
//! connection with several requests it is sent in pieces, each of which counts as progress.
//!
//! Not here: the deadlines of answers (`activity`).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::activity::{Activity, RequestNumber};

/// The largest piece of an answer on a connection with several requests, in bytes. A stream whose
/// peer takes nothing holds one.
const PIECE_BYTES: usize = 16 * 1024;

/// A request under way; its end is recorded on drop.
pub(crate) struct RequestGuard {
    activity: Arc<Activity>,
    number: RequestNumber,
}

impl RequestGuard {
    /// Records that the headers of a request are complete.
    pub(crate) fn begin(activity: Arc<Activity>) -> Self {
        let number = activity.begin_request();
        RequestGuard { activity, number }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.activity.end_request(self.number);
    }
}

/// The body of an answer.
pub(crate) struct AnswerBody {
    body: Body,
    /// The rest of a frame that is sent in pieces.
    rest: Bytes,
    guard: RequestGuard,
}

impl AnswerBody {
    pub(crate) fn new(body: Body, guard: RequestGuard) -> Self {
        guard.activity.begin_answer(guard.number);
        AnswerBody { body, rest: Bytes::new(), guard }
    }

    /// Returns the next piece of a frame, and keeps the rest.
    fn piece(&mut self, mut data: Bytes) -> Frame<Bytes> {
        if self.guard.activity.is_multiplexed() && data.len() > PIECE_BYTES {
            self.rest = data.split_off(PIECE_BYTES);
        }
        self.guard.activity.answer_progress(self.guard.number, data.len());
        Frame::data(data)
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            return Poll::Ready(Some(Ok(self.piece(rest))));
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_pending() {
            self.guard.activity.answer_waits(self.guard.number);
        }
        polled.map(|frame| match frame?.map(Frame::into_data) {
            Ok(Ok(data)) => Some(Ok(self.piece(data))),
            Ok(Err(other)) => Some(Ok(other)),
            Err(error) => Some(Err(error)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(hint.lower().saturating_add(rest));
        hint
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use http_body_util::BodyExt;

    use super::super::activity::Timeouts;
    use super::*;

    /// Returns the sizes of the frames of an answer.
    async fn frames(activity: Activity, bytes: usize) -> Vec<usize> {
        let guard = RequestGuard::begin(Arc::new(activity));
        let mut body = AnswerBody::new(Body::from(vec![7; bytes]), guard);
        let mut sizes = Vec::new();
        while let Some(frame) = body.frame().await {
            sizes.push(frame.unwrap().into_data().unwrap().len());
            let left = bytes - sizes.iter().sum::<usize>();
            assert_eq!(body.size_hint().exact(), Some(left as u64));
        }
        assert!(body.is_end_stream());
        sizes
    }

    #[tokio::test]
    async fn an_answer_beside_others_is_cut() {
        let timeouts = Timeouts { header: Duration::from_secs(1), idle: Duration::from_secs(1) };
        let multiplexed = || {
            let activity = Activity::new(timeouts);
            activity.set_multiplexed();
            activity
        };
        let bytes = 2 * PIECE_BYTES + 1;
        assert_eq!(frames(multiplexed(), bytes).await, [PIECE_BYTES, PIECE_BYTES, 1]);
        assert_eq!(frames(multiplexed(), 5).await, [5]);
        assert_eq!(frames(Activity::new(timeouts), bytes).await, [bytes]);
    }
}
