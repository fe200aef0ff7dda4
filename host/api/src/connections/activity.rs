//! Activity of one connection: its current phase and the deadline of that phase. Not
//! here: the code that closes connections (`mod`) and chooses them (`registry`).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
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
/// progress; all three run in the task of the connection.
pub(crate) struct Activity {
    timeouts: Timeouts,
    times: Mutex<Times>,
}

struct Times {
    phase: Phase,
    since: Instant,
    /// The response that the peer is slow to read.
    slow: Option<SlowAnswer>,
}

/// A response that the peer reads more slowly than the host writes it.
struct SlowAnswer {
    started: Instant,
    progress: Instant,
    bytes: usize,
    /// Set while the socket accepts no bytes.
    is_blocked: bool,
}

impl Activity {
    pub(crate) fn new(timeouts: Timeouts) -> Self {
        let times = Times { phase: Phase::Header, since: Instant::now(), slow: None };
        Activity { timeouts, times: Mutex::new(times) }
    }

    fn lock(&self) -> MutexGuard<'_, Times> {
        self.times.lock()
    }

    fn enter(&self, phase: Phase) {
        let mut times = self.lock();
        times.phase = phase;
        times.since = Instant::now();
    }

    /// Records that the headers are complete.
    pub(crate) fn begin_request(&self) {
        self.enter(Phase::Request);
        self.lock().slow = None;
    }

    /// Records that the response is complete, even if not yet written.
    pub(crate) fn end_request(&self) {
        self.enter(Phase::Idle);
    }

    fn received(&self) {
        if self.lock().phase == Phase::Idle {
            self.enter(Phase::Header);
        }
    }

    fn blocked(&self) {
        let now = Instant::now();
        let slow_answer = SlowAnswer { started: now, progress: now, bytes: 0, is_blocked: true };
        self.lock().slow.get_or_insert(slow_answer).is_blocked = true;
    }

    fn sent(&self, bytes: usize) {
        if let Some(slow) = &mut self.lock().slow {
            slow.is_blocked = false;
            slow.progress = Instant::now();
            slow.bytes += bytes;
        }
    }

    /// Returns the time since which the connection has been idle, or `None` while a request or
    /// a response is under way.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let times = self.lock();
        let is_blocked = times.slow.as_ref().is_some_and(|slow| slow.is_blocked);
        (times.phase != Phase::Request && !is_blocked).then_some(times.since)
    }

    /// Returns the time at which the connection is closed unless it makes progress.
    fn deadline(&self) -> Option<Instant> {
        let times = self.lock();
        match &times.slow {
            Some(slow) if slow.is_blocked => {
                return Some(body::progress_deadline(slow.started, slow.progress, slow.bytes));
            }
            _ => {}
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
        activity.begin_request();
        assert_eq!(left(&activity), None, "it is answered");
        assert_eq!(activity.idle_since(), None);
        activity.end_request();
        assert_eq!(left(&activity), Some(60 * SECOND));
        assert!(activity.idle_since().is_some());
        activity.received();
        assert_eq!(left(&activity), Some(10 * SECOND), "half a header has come");
    }

    #[test]
    fn unread_answers_time_out() {
        let activity = Activity::new(Timeouts { header: SECOND, idle: 60 * SECOND });
        activity.begin_request();
        activity.blocked();
        assert_eq!(left(&activity), Some(10 * SECOND));
        activity.end_request();
        assert_eq!(activity.idle_since(), None, "a part of the answer is still here");
        activity.sent(1);
        activity.blocked();
        assert_eq!(left(&activity), Some(10 * SECOND), "a drip earns no time");
        activity.lock().slow.as_mut().unwrap().started -= 20 * SECOND;
        assert_eq!(left(&activity), Some(Duration::ZERO));
        activity.sent(1024 * 1024);
        assert_eq!(left(&activity), Some(60 * SECOND), "the socket takes more: it is idle");
    }

    #[tokio::test]
    async fn an_alarm_follows_an_earlier_deadline() {
        let ms = Duration::from_millis;
        let activity = Activity::new(Timeouts { header: ms(100), idle: 600 * SECOND });
        let started = Instant::now();
        activity.end_request();
        let mut overdue = Overdue::new(&activity);
        assert!(tokio::time::timeout(ms(200), &mut overdue).await.is_err(), "it is idle");
        activity.received();
        tokio::time::timeout(60 * SECOND, &mut overdue).await.unwrap();
        assert!(started.elapsed() >= ms(300), "{:?}", started.elapsed());
    }
}
