//! The log of an attempt: the lines that a guest logs or prints, for people to read. They
//! are bounded in number and size, without terminal control sequences, and without the
//! secrets of the execution.
//!
//! A guest never learns that its log is full: printing still succeeds. Of a long log, the first
//! and the last lines are kept, half of the limits each; one line between them says how many were
//! dropped.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::{Mutex, MutexGuard};

use bytes::Bytes;
use exosphere_domain::ids::Millis;
use exosphere_domain::limits::{Limit, Limits};
use serde::{Deserialize, Serialize};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::clock::now;
use crate::guest::secrets::Secrets;
use crate::sanitize::{clean_line, cut};

/// The severity of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Useful only for debugging.
    Debug,
    /// Normal progress, or a line of standard output.
    Info,
    /// An unexpected event, or a line of standard error.
    Warn,
    /// An error that the guest logged.
    Error,
}

/// One line of an attempt's log. It has no line end, no escape sequence and no control
/// character but the tab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// The severity of the line.
    pub level: LogLevel,
    /// The time at which it was written.
    pub at: Millis,
    /// The text of the line, sanitized and redacted.
    pub message: String,
}

/// Maximum bytes of one line; the rest of it is dropped.
const MAX_LINE_BYTES: usize = 8 * 1024;

/// The longest character, in bytes.
const MAX_CHAR_BYTES: usize = 4;

/// Bytes of standard error that are kept in addition, however full the log is: the
/// message of a panic comes last.
const STDERR_TAIL_BYTES: usize = 2 * 1024;

/// Maximum bytes that a guest may print at a time.
const MAX_WRITE_BYTES: usize = 64 * 1024;

/// The log of one attempt. It holds text that is not redacted yet, so it must not be
/// shown.
pub(crate) struct Logs {
    secrets: Secrets,
    /// The first lines, sanitized and redacted.
    first: Vec<LogLine>,
    first_bytes: u64,
    /// Set once a line did not fit into the first ones: all later ones are among the last.
    is_first_full: bool,
    /// The last lines as the guest wrote them: most of a long log is dropped, and costs no
    /// sanitizing.
    last: VecDeque<LogLine>,
    last_bytes: u64,
    /// The number of lines that were dropped between the first and the last ones.
    dropped: u64,
    max_bytes: u64,
    max_lines: usize,
    /// The text after the last line end of standard output, and of standard error.
    stdout_line: Vec<u8>,
    stderr_line: Vec<u8>,
    tail: String,
}

/// The log, shared by the host functions and the guest's output streams.
#[derive(Clone)]
pub(crate) struct SharedLogs(Arc<Mutex<Logs>>);

impl SharedLogs {
    pub(crate) fn new(limits: &Limits, secrets: Secrets) -> SharedLogs {
        SharedLogs(Arc::new(Mutex::new(Logs {
            secrets,
            first: Vec::new(),
            first_bytes: 0,
            is_first_full: false,
            last: VecDeque::new(),
            last_bytes: 0,
            dropped: 0,
            max_bytes: limits.get(Limit::LogBytes),
            max_lines: limits.size(Limit::LogLines),
            stdout_line: Vec::new(),
            stderr_line: Vec::new(),
            tail: String::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Logs> {
        self.0.lock()
    }

    /// Adds the lines of a message of the guest.
    pub(super) fn write(&self, level: LogLevel, message: &str) {
        let mut logs = self.lock();
        message.lines().for_each(|line| logs.push(level, line));
    }

    /// Adds a line of the host itself, for the readers of the guest's log.
    pub(crate) fn add_host_line(&self, level: LogLevel, line: &str) {
        self.lock().push(level, line);
    }

    /// Ends the unfinished lines, and returns all lines.
    pub(crate) fn finish(&self) -> Vec<LogLine> {
        let mut logs = self.lock();
        for level in [LogLevel::Info, LogLevel::Warn] {
            logs.end_line(level);
        }
        logs.take_lines()
    }

    /// Returns the end of the guest's standard error: the message of its panic if there
    /// was one, else its last lines.
    pub(crate) fn stderr_tail(&self) -> Option<String> {
        let mut logs = self.lock();
        logs.end_line(LogLevel::Warn);
        let lines: Vec<&str> =
            logs.tail.lines().filter(|line| !line.starts_with("note: run with")).collect();
        let panic = lines.iter().rposition(|line| line.contains("panicked at"));
        let from = panic.unwrap_or(lines.len().saturating_sub(3));
        let words = lines.get(from..).unwrap_or_default().join("\n");
        (!words.is_empty()).then_some(words)
    }
}

impl Logs {
    fn push(&mut self, level: LogLevel, line: &str) {
        if !self.is_first_full {
            let message = self.sanitized(line, MAX_LINE_BYTES);
            let bytes = self.first_bytes + message.len() as u64 + 1;
            let fits = bytes <= self.max_bytes.div_ceil(2)
                && self.first.len() < self.max_lines.div_ceil(2);
            if fits {
                self.first_bytes = bytes;
                self.first.push(LogLine { level, at: now(), message });
                return;
            }
            self.is_first_full = true;
        }
        // A character more than is kept, so that the cut shows.
        let kept = cut(line, MAX_LINE_BYTES + MAX_CHAR_BYTES);
        self.last_bytes += kept.len() as u64 + 1;
        self.last.push_back(LogLine { level, at: now(), message: kept.to_owned() });
        while self.last_bytes > self.max_bytes / 2 || self.last.len() > self.max_lines / 2 {
            self.drop_oldest_of_last();
        }
    }

    fn drop_oldest_of_last(&mut self) {
        match self.last.pop_front() {
            Some(line) => {
                self.last_bytes = self.last_bytes.saturating_sub(line.message.len() as u64 + 1);
                self.dropped += 1;
            }
            None => self.last_bytes = 0,
        }
    }

    /// Takes all lines, with one that tells of those that were dropped.
    fn take_lines(&mut self) -> Vec<LogLine> {
        let mut last = VecDeque::with_capacity(self.last.len());
        let mut bytes = 0;
        // From the last one on, since redaction may make lines longer.
        while let Some(LogLine { level, at, message }) = self.last.pop_back() {
            let message = self.sanitized(&message, MAX_LINE_BYTES);
            bytes += message.len() as u64 + 1;
            if bytes > self.max_bytes / 2 {
                self.dropped += 1 + self.last.len() as u64;
                self.last.clear();
                break;
            }
            last.push_front(LogLine { level, at, message });
        }
        let mut lines = std::mem::take(&mut self.first);
        if self.dropped > 0 {
            let at = last.front().or(lines.last()).map_or_else(now, |line| line.at);
            let message = format!(
                "the log is cut here, {} lines are dropped: an attempt keeps {} bytes (`log_bytes`) and {} \
                 lines (`log_lines`), half of them from its end",
                self.dropped, self.max_bytes, self.max_lines
            );
            lines.push(LogLine { level: LogLevel::Warn, at, message });
        }
        lines.extend(last);
        lines
    }

    /// Cleans, cuts and redacts a line. The cut comes before the cleaning, so that its
    /// cost is bounded; a redacted line may be longer than the original.
    fn sanitized(&self, line: &str, bytes: usize) -> String {
        let kept = cut(line, bytes);
        let clean = clean_line(kept);
        let is_cut = kept.len() < line.len();
        let redacted =
            if is_cut { self.secrets.redact_cut(clean) } else { self.secrets.redact(clean) };
        if is_cut || redacted.len() > bytes {
            format!("{}… (cut)", cut(&redacted, bytes))
        } else {
            redacted.into_owned()
        }
    }

    fn open_line(&mut self, level: LogLevel) -> &mut Vec<u8> {
        match level {
            LogLevel::Warn => &mut self.stderr_line,
            _ => &mut self.stdout_line,
        }
    }

    /// Takes text printed to a stream. Empty lines are left out.
    fn print(&mut self, level: LogLevel, bytes: &[u8]) {
        let mut pieces = bytes.split(|byte| *byte == b'\n');
        let mut piece = pieces.next();
        while let Some(bytes) = piece {
            let open = self.open_line(level);
            // One byte more than is kept, so that the cut shows.
            let free_bytes = (MAX_LINE_BYTES + 1).saturating_sub(open.len());
            open.extend_from_slice(bytes.get(..free_bytes).unwrap_or(bytes));
            piece = pieces.next();
            if piece.is_some() {
                self.end_line(level);
            }
        }
    }

    fn end_line(&mut self, level: LogLevel) {
        let line = std::mem::take(self.open_line(level));
        if line.is_empty() {
            return;
        }
        let line = String::from_utf8_lossy(&line);
        if level == LogLevel::Warn {
            self.keep_tail(&line);
        }
        self.push(level, &line);
    }

    fn keep_tail(&mut self, line: &str) {
        let sanitized = self.sanitized(line, STDERR_TAIL_BYTES);
        self.tail.push_str(&sanitized);
        self.tail.push('\n');
        // Cut at twice the size, so that not every line moves the text.
        if self.tail.len() > 2 * STDERR_TAIL_BYTES {
            let from = self.tail.ceil_char_boundary(self.tail.len() - STDERR_TAIL_BYTES);
            self.tail.drain(..from);
        }
    }
}

/// Standard output or standard error of a guest.
pub(crate) struct LogStream {
    logs: SharedLogs,
    level: LogLevel,
}

impl LogStream {
    pub(crate) fn new(logs: &SharedLogs, level: LogLevel) -> LogStream {
        LogStream { logs: logs.clone(), level }
    }

    fn print(&self, bytes: &[u8]) {
        self.logs.lock().print(self.level, bytes);
    }
}

impl IsTerminal for LogStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogStream {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(LogStream::new(&self.logs, self.level))
    }

    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        Box::new(LogStream::new(&self.logs, self.level))
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for LogStream {
    async fn ready(&mut self) {}
}

impl OutputStream for LogStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.print(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(MAX_WRITE_BYTES)
    }
}

impl tokio::io::AsyncWrite for LogStream {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.print(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zeroize::Zeroizing;

    use super::*;
    use crate::guest::secrets::Secret;

    fn messages(logs: &SharedLogs) -> Vec<String> {
        logs.finish().into_iter().map(|line| line.message).collect()
    }

    #[test]
    fn streams_become_lines() {
        let logs = SharedLogs::new(&Limits::default(), Secrets::default());
        let (out, err) =
            (LogStream::new(&logs, LogLevel::Info), LogStream::new(&logs, LogLevel::Warn));
        out.print(b"one\nt");
        err.print(b"\x1b[31mbad\xff\n\n");
        out.print(b"wo\nthree");
        assert_eq!(messages(&logs), ["one", "bad\u{fffd}", "two", "three"]);
    }

    #[test]
    fn a_log_flood_keeps_the_panic() {
        let logs = SharedLogs::new(&Limits::default().with(Limit::LogLines, 2), Secrets::default());
        let err = LogStream::new(&logs, LogLevel::Warn);
        for _ in 0..10_000 {
            err.print(b"noise\n");
        }
        err.print(b"\nthread 'main' panicked at src/lib.rs:3:5:\nboom\nnote: run with `X`\n");
        assert_eq!(
            logs.stderr_tail().as_deref(),
            Some("thread 'main' panicked at src/lib.rs:3:5:\nboom")
        );
        let lines = messages(&logs);
        assert_eq!(lines.len(), 3);
        assert!(lines[1].contains("cut here, 10001 lines are dropped"), "{lines:?}");
        assert_eq!(lines[2], "note: run with `X`");
    }

    #[test]
    fn a_long_log_keeps_both_ends() {
        for (limit, value) in [(Limit::LogLines, 10), (Limit::LogBytes, 80)] {
            let logs = SharedLogs::new(&Limits::default().with(limit, value), Secrets::default());
            for number in 0..1_000 {
                logs.write(LogLevel::Info, &format!("line {number:02}"));
            }
            let lines = messages(&logs);
            let kept = |lines: &[String]| {
                lines.iter().map(|line| line[5..].to_owned()).collect::<Vec<_>>()
            };
            assert_eq!(kept(&lines[..5]), ["00", "01", "02", "03", "04"], "{limit}");
            assert_eq!(
                kept(&lines[6..])[..],
                ["995", "996", "997", "998", "999"][11 - lines.len()..],
                "{limit}"
            );
            let dropped = 1_000 - (lines.len() - 1);
            assert!(lines[5].contains(&format!("{dropped} lines are dropped")), "{lines:?}");
        }
        let logs = SharedLogs::new(&Limits::default().with(Limit::LogLines, 3), Secrets::default());
        logs.write(LogLevel::Info, "one\ntwo\nthree");
        assert_eq!(messages(&logs), ["one", "two", "three"], "a log that fits is whole");
        let logs = SharedLogs::new(&Limits::default().with(Limit::LogLines, 0), Secrets::default());
        logs.write(LogLevel::Info, "one");
        assert!(messages(&logs)[0].contains("1 lines are dropped"));
    }

    #[test]
    fn redaction_keeps_the_end_within_its_bytes() {
        let limits = Limits::default().with(Limit::LogBytes, 200).with(Limit::LogLines, 100);
        let logs = SharedLogs::new(&limits, test_secrets());
        for _ in 0..100 {
            logs.write(LogLevel::Info, "hush-hush");
        }
        let lines = messages(&logs);
        let bytes: usize =
            lines.iter().filter(|line| !line.contains("cut")).map(|line| line.len() + 1).sum();
        assert!(bytes <= 200 && !lines.concat().contains("hush"), "{bytes}: {lines:?}");
        assert_eq!(lines.last().unwrap(), "[secret k]");
    }

    #[test]
    fn a_giant_line_is_cut() {
        let logs = SharedLogs::new(&Limits::default(), Secrets::default());
        let out = LogStream::new(&logs, LogLevel::Info);
        for _ in 0..1_000 {
            out.print(&[b'x'; 4096]);
        }
        assert!(logs.lock().stdout_line.len() <= MAX_LINE_BYTES + 1);
        assert_eq!(messages(&logs), [format!("{}… (cut)", "x".repeat(MAX_LINE_BYTES))]);
    }

    fn test_secrets() -> Secrets {
        let value = Zeroizing::new("hush-hush".to_owned());
        [("k".to_owned(), Secret { value, is_visible: false })].into_iter().collect()
    }

    #[test]
    fn secrets_are_redacted_at_every_cut() {
        for before in 0..24 {
            let logs = SharedLogs::new(&Limits::default(), test_secrets());
            let (out, err) =
                (LogStream::new(&logs, LogLevel::Info), LogStream::new(&logs, LogLevel::Warn));
            for (stream, bytes) in [(&out, MAX_LINE_BYTES), (&err, STDERR_TAIL_BYTES)] {
                stream.print("x".repeat(bytes - before).as_bytes());
                stream.print(b"hush-\x1b[1mhush, said\n");
            }
            let words = logs.stderr_tail().unwrap();
            for text in messages(&logs).iter().chain([&words]) {
                assert!(!text.contains("hush"), "{before}: {}", &text[2000..]);
            }
        }
    }

    #[test]
    fn secrets_in_panic_messages_are_redacted() {
        let logs = SharedLogs::new(&Limits::default(), test_secrets());
        let err = LogStream::new(&logs, LogLevel::Warn);
        err.print(b"\nthread 'main' panicked at src/lib.rs:3:5:\nno \"hush-");
        err.print(b"hush\" here");
        let words = "thread 'main' panicked at src/lib.rs:3:5:\nno \"[secret k]\" here";
        assert_eq!(logs.stderr_tail().as_deref(), Some(words));
        assert_eq!(messages(&logs)[1], "no \"[secret k]\" here");
    }

    proptest! {
        /// The secret may be printed in any pieces, with any control sequences or
        /// invisible characters between them.
        #[test]
        fn a_secret_in_pieces_never_shows(
            cuts in proptest::collection::vec(0..9usize, 0..6),
            between in proptest::sample::select(vec![
                "", "\u{1b}[31m", "\u{200b}", "\u{1b}]0;t\u{7}", "\u{9b}1m", "\u{e0041}\r", "\u{8}",
            ]),
            before in "[hus -]{0,20}",
            behind in "[hus -]{0,20}",
        ) {
            let logs = SharedLogs::new(&Limits::default(), test_secrets());
            let out = LogStream::new(&logs, LogLevel::Info);
            let mut cuts = cuts;
            cuts.extend([0, 9]);
            cuts.sort_unstable();
            out.print(before.as_bytes());
            for piece in cuts.windows(2) {
                out.print(&b"hush-hush"[piece[0]..piece[1]]);
                out.print(between.as_bytes());
            }
            out.print(behind.as_bytes());
            let text = messages(&logs).concat();
            prop_assert!(!text.contains("hush-hush"), "{}", text);
            prop_assert!(text.contains("[secret k]"), "{}", text);
        }
    }
}
