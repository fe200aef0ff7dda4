//! Activity of one connection: its current phase and the deadline of that phase. Not
//! here: the code that closes connections (`mod`) and chooses them (`registry`).

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::body;

/// Timeouts of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// The timeout from the first byte of a request, or from the accepted connection, to the
    /// end of the headers.
    pub header: Duration,
    /// The timeout from the end of a response to the first byte of the next request.
    pub idle: Duration,
}

/// The phase of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The last response is complete, and nothing has arrived since.
    Idle,
    /// Headers are arriving.
    Header,
    /// A request is being handled.
    Request,
}

/// The activity of one connection. Its reader, its writer and its service record their
/// progress. All three run in the task of the connection, unless it is multiplexed: then each
/// request has a task of its own.
pub(crate) struct Activity {
    timeouts: Timeouts,
    times: Mutex<Times>,
    /// Set if the connection has several requests at a time (HTTP/2).
    is_multiplexed: AtomicBool,
    /// Notified when a request of a multiplexed connection begins an answer, or ends.
    changed: Notify,
}

/// The number of a request on its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RequestNumber(u64);

struct Times {
    phase: Phase,
    since: Instant,
    /// The response that the peer is slow to read.
    slow: Option<SlowAnswer>,
    /// The number of requests under way.
    requests: usize,
    /// The number of the next request.
    next: u64,
    /// The answers that a multiplexed connection is sending.
    answers: BTreeMap<RequestNumber, SlowAnswer>,
}

impl Times {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.since = Instant::now();
    }

    fn is_blocked(&self) -> bool {
        self.slow.as_ref().is_some_and(|slow| slow.is_blocked)
    }
}

/// A response that the peer reads more slowly than the host writes it.
struct SlowAnswer {
    started: Instant,
    progress: Instant,
    bytes: usize,
    /// Set while the socket accepts no bytes.
    is_blocked: bool,
}

impl SlowAnswer {
    fn new() -> Self {
        let now = Instant::now();
        SlowAnswer { started: now, progress: now, bytes: 0, is_blocked: false }
    }

    fn sent(&mut self, bytes: usize) {
        self.progress = Instant::now();
        self.bytes += bytes;
    }

    /// Returns the time at which the peer must have taken more.
    fn deadline(&self) -> Instant {
        body::progress_deadline(self.started, self.progress, self.bytes)
    }
}

impl Activity {
    pub(crate) fn new(timeouts: Timeouts) -> Self {
        let times = Times {
            phase: Phase::Header,
            since: Instant::now(),
            slow: None,
            requests: 0,
            next: 0,
            answers: BTreeMap::new(),
        };
        let (is_multiplexed, changed) = (AtomicBool::new(false), Notify::new());
        Activity { timeouts, times: Mutex::new(times), is_multiplexed, changed }
    }

    /// Records that the connection has several requests at a time.
    pub(crate) fn set_multiplexed(&self) {
        self.is_multiplexed.store(true, Ordering::Relaxed);
    }

    /// Returns whether the connection has several requests at a time.
    pub(crate) fn is_multiplexed(&self) -> bool {
        self.is_multiplexed.load(Ordering::Relaxed)
    }

    /// Waits until the deadline may have changed in another task.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Times> {
        self.times.lock()
    }

    /// Records that the headers of a request are complete.
    pub(crate) fn begin_request(&self) -> RequestNumber {
        let mut times = self.lock();
        times.enter(Phase::Request);
        // Beside a blocked answer, another request earns no time.
        if !self.is_multiplexed() || !times.is_blocked() {
            times.slow = None;
        }
        times.requests += 1;
        times.next += 1;
        RequestNumber(times.next)
    }

    /// Records that the head of the response is complete.
    pub(crate) fn begin_answer(&self, number: RequestNumber) {
        if self.is_multiplexed() {
            self.lock().answers.insert(number, SlowAnswer::new());
            self.changed.notify_one();
        }
    }

    /// Records that the peer has room for a piece of a response.
    pub(crate) fn answer_progress(&self, number: RequestNumber, bytes: usize) {
        if self.is_multiplexed() {
            let mut times = self.lock();
            times.answers.entry(number).or_insert_with(SlowAnswer::new).sent(bytes);
            drop(times);
            self.changed.notify_one();
        }
    }

    /// Records that the peer has room for more of a response, such as a stream of events, which the
    /// host does not have yet: the peer is not slow.
    pub(crate) fn answer_waits(&self, number: RequestNumber) {
        if self.is_multiplexed() {
            self.lock().answers.remove(&number);
        }
    }

    /// Records that the response is complete, even if not yet written.
    pub(crate) fn end_request(&self, number: RequestNumber) {
        let mut times = self.lock();
        times.requests -= 1;
        times.answers.remove(&number);
        if times.requests == 0 {
            times.enter(Phase::Idle);
        }
        drop(times);
        if self.is_multiplexed() {
            self.changed.notify_one();
        }
    }

    fn received(&self) {
        let mut times = self.lock();
        // What arrives on an idle multiplexed connection may be of no request. Headers that never
        // end are bounded by the idle timeout.
        if times.phase == Phase::Idle && !self.is_multiplexed() {
            times.enter(Phase::Header);
        }
    }

    fn blocked(&self) {
        self.lock().slow.get_or_insert_with(SlowAnswer::new).is_blocked = true;
    }

    fn sent(&self, bytes: usize) {
        if let Some(slow) = &mut self.lock().slow {
            slow.is_blocked = false;
            slow.sent(bytes);
        }
    }

    /// Returns the time since which the connection has been idle, or `None` while a request or
    /// a response is under way.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let times = self.lock();
        let is_blocked = times.is_blocked();
        (times.phase != Phase::Request && !is_blocked).then_some(times.since)
    }

    /// Returns the time at which the connection is closed unless it makes progress.
    fn deadline(&self) -> Option<Instant> {
        let times = self.lock();
        let blocked = times.slow.iter().filter(|slow| slow.is_blocked);
        let slow = blocked.chain(times.answers.values()).map(SlowAnswer::deadline).min();
        if slow.is_some() {
            return slow;
        }
        match times.phase {
            Phase::Idle => Some(times.since + self.timeouts.idle),
            Phase::Header => Some(times.since + self.timeouts.header),
            Phase::Request => None,
        }
    }
}

/// A future that resolves once a connection is past its deadline. It must be polled
/// after the connection in the same task, to see each change of the deadline. The timer
/// is moved only if the deadline comes earlier.
pub(crate) struct Overdue<'a> {
    activity: &'a Activity,
    alarm: Pin<Box<Sleep>>,
}

impl<'a> Overdue<'a> {
    pub(crate) fn new(activity: &'a Activity) -> Self {
        let first = Instant::now() + activity.timeouts.header;
        Overdue { activity, alarm: Box::pin(sleep_until(first)) }
    }
}

impl Future for Overdue<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(deadline) = self.activity.deadline() else { return Poll::Pending };
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            if deadline < self.alarm.deadline() || self.alarm.is_elapsed() {
                self.alarm.as_mut().reset(deadline);
            }
            if self.alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

/// A socket that records reads and writes as activity.
pub(crate) struct Watched<'a> {
    pub stream: TcpStream,
    pub activity: &'a Activity,
}

impl AsyncRead for Watched<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.activity.received();
        }
        read
    }
}

impl Watched<'_> {
    fn record_write(&self, written: &Poll<std::io::Result<usize>>) {
        match written {
            Poll::Pending => self.activity.blocked(),
            Poll::Ready(Ok(bytes)) => self.activity.sent(*bytes),
            Poll::Ready(Err(_)) => {}
        }
    }
}

impl AsyncWrite for Watched<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.record_write(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.record_write(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn left(activity: &Activity) -> Option<Duration> {
        // Rounded to seconds, to hide the time that the test itself takes.
        let left = activity.deadline()?.saturating_duration_since(Instant::now());
        Some(Duration::from_secs(left.as_secs_f64().round() as u64))
    }

    #[test]
    fn each_phase_has_its_own_deadline() {
        let activity = Activity::new(Timeouts { header: 10 * SECOND, idle: 60 * SECOND });
        assert_eq!(left(&activity), Some(10 * SECOND), "a header is awaited");
        let request = activity.begin_request();
        assert_eq!(left(&activity), None, "it is answered");
        assert_eq!(activity.idle_since(), None);
        activity.end_request(request);
        assert_eq!(left(&activity), Some(60 * SECOND));
        assert!(activity.idle_since().is_some());
        activity.received();
        assert_eq!(left(&activity), Some(10 * SECOND), "half a header has come");
    }

    #[test]
    fn unread_answers_time_out() {
        let activity = Activity::new(Timeouts { header: SECOND, idle: 60 * SECOND });
        let request = activity.begin_request();
        activity.blocked();
        assert_eq!(left(&activity), Some(10 * SECOND));
        activity.end_request(request);
        assert_eq!(activity.idle_since(), None, "a part of the answer is still here");
        activity.sent(1);
        activity.blocked();
        assert_eq!(left(&activity), Some(10 * SECOND), "a drip earns no time");
        activity.lock().slow.as_mut().unwrap().started -= 20 * SECOND;
        assert_eq!(left(&activity), Some(Duration::ZERO));
        activity.sent(1024 * 1024);
        assert_eq!(left(&activity), Some(60 * SECOND), "the socket takes more: it is idle");
    }

    #[test]
    fn each_of_several_answers_times_out() {
        let activity = Activity::new(Timeouts { header: SECOND, idle: 60 * SECOND });
        activity.set_multiplexed();
        let (first, second) = (activity.begin_request(), activity.begin_request());
        assert_eq!(left(&activity), None, "both are handled");
        activity.begin_answer(first);
        activity.begin_answer(second);
        activity.lock().answers.get_mut(&first).unwrap().progress -= 4 * SECOND;
        activity.answer_progress(second, 1);
        assert_eq!(left(&activity), Some(6 * SECOND), "that of the slower one");
        activity.answer_waits(first);
        assert_eq!(left(&activity), Some(10 * SECOND), "that of the other one");
        activity.answer_progress(first, 1);
        assert_eq!(left(&activity), Some(10 * SECOND));
        activity.end_request(first);
        assert_eq!(left(&activity), Some(10 * SECOND));
        assert_eq!(activity.idle_since(), None);
        activity.end_request(second);
        activity.received();
        assert_eq!(left(&activity), Some(60 * SECOND), "a ping is no request");
        activity.blocked();
        activity.lock().slow.as_mut().unwrap().started -= 5 * SECOND;
        let _third = activity.begin_request();
        assert_eq!(left(&activity), Some(5 * SECOND), "another request earns no time");
    }

    #[tokio::test]
    async fn an_alarm_follows_an_earlier_deadline() {
        let ms = Duration::from_millis;
        let activity = Activity::new(Timeouts { header: ms(100), idle: 600 * SECOND });
        let started = Instant::now();
        let request = activity.begin_request();
        activity.end_request(request);
        let mut overdue = Overdue::new(&activity);
        assert!(tokio::time::timeout(ms(200), &mut overdue).await.is_err(), "it is idle");
        activity.received();
        tokio::time::timeout(60 * SECOND, &mut overdue).await.unwrap();
        assert!(started.elapsed() >= ms(300), "{:?}", started.elapsed());
    }
}
