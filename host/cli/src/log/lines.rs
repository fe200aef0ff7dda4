//! The queue of log lines and the one thread that writes them to standard error. The
//! queue is bounded and never blocks: a line that does not fit, or cannot be written,
//! is dropped and counted.
//!
//! Not here: the format of the lines (`mod`).

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender, TrySendError};
use std::time::Duration;

/// The longest queue, in lines: seconds of the busiest log.
const MAX_LINES: usize = 8192;

/// The largest queue, in bytes.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// The longest wait for the queue to empty when the process ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The backoff after a line that could not be written.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Formats the log line that tells the number of dropped lines.
pub type Notice = fn(u64) -> String;

/// A queue of log lines that never blocks. Clones share the queue.
#[derive(Clone)]
pub struct Lines {
    queue: SyncSender<Item>,
    waiting: Arc<AtomicUsize>,
    dropped: Arc<Dropped>,
}

/// The number of dropped lines.
#[derive(Debug, Default)]
struct Dropped {
    /// Those that the log does not tell yet.
    untold: AtomicU64,
    all: Arc<AtomicU64>,
}

impl Dropped {
    fn add(&self) {
        self.untold.fetch_add(1, Ordering::Relaxed);
        self.all.fetch_add(1, Ordering::Relaxed);
    }
}

enum Item {
    Line(Vec<u8>),
    /// Answered once every line before it has been written or dropped.
    Flush(SyncSender<()>),
}

impl Lines {
    /// Starts a thread that writes lines to `to`.
    ///
    /// # Errors
    /// If the system cannot start the thread.
    pub fn start(to: impl Write + Send + 'static, notice: Notice) -> io::Result<Lines> {
        let (queue, items) = mpsc::sync_channel(MAX_LINES);
        let (waiting, dropped) = (Arc::<AtomicUsize>::default(), Arc::<Dropped>::default());
        let mut writer = Writer { to, notice, dropped: dropped.clone(), waiting: waiting.clone() };
        let thread = std::thread::Builder::new().name("log".into());
        thread.spawn(move || writer.run(&items))?;
        Ok(Lines { queue, waiting, dropped })
    }

    /// Returns the number of all lines that were dropped.
    pub fn dropped_lines(&self) -> Arc<AtomicU64> {
        self.dropped.all.clone()
    }

    fn enqueue(&self, line: &[u8]) {
        let bytes = line.len();
        let waiting = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        let is_queued = waiting.saturating_add(bytes) <= MAX_BYTES
            && self.queue.try_send(Item::Line(line.to_vec())).is_ok();
        if !is_queued {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.dropped.add();
        }
    }

    /// Waits until the lines queued so far have been written, for at most one second.
    pub fn flush(&self) {
        let (done, flushed) = mpsc::sync_channel(1);
        let end = std::time::Instant::now() + FLUSH_TIMEOUT;
        let mut item = Item::Flush(done);
        // A full queue empties, unless standard error is a pipe that is not read.
        while let Err(TrySendError::Full(returned)) = self.queue.try_send(item) {
            if std::time::Instant::now() >= end {
                return;
            }
            item = returned;
            std::thread::sleep(Duration::from_millis(5));
        }
        let left = end.saturating_duration_since(std::time::Instant::now());
        let _: Result<(), RecvTimeoutError> = flushed.recv_timeout(left);
    }
}

impl Write for Lines {
    /// Queues one event as a whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.enqueue(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The state of the writer thread.
struct Writer<W> {
    to: W,
    notice: Notice,
    dropped: Arc<Dropped>,
    waiting: Arc<AtomicUsize>,
}

impl<W: Write> Writer<W> {
    fn run(&mut self, items: &mpsc::Receiver<Item>) {
        while let Ok(item) = items.recv() {
            match item {
                Item::Line(line) => {
                    if self.write(&line).is_err() {
                        self.dropped.add();
                        // Backoff: a full disk is not tried again for each line.
                        std::thread::sleep(RETRY_PAUSE);
                    }
                    self.waiting.fetch_sub(line.len(), Ordering::Relaxed);
                }
                Item::Flush(done) => drop(done.try_send(())),
            }
        }
    }

    /// Writes a line, preceded by the number of lines dropped before it.
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let dropped = self.dropped.untold.load(Ordering::Relaxed);
        if dropped > 0 {
            self.to.write_all((self.notice)(dropped).as_bytes())?;
            self.dropped.untold.fetch_sub(dropped, Ordering::Relaxed);
        }
        self.to.write_all(line)?;
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Instant;

    use super::*;

    /// A fake output: a disk that may be full, or a pipe that is not read.
    #[derive(Clone, Default)]
    struct Sink {
        text: Arc<Mutex<Vec<u8>>>,
        full: Arc<AtomicUsize>,
        gate: Arc<Mutex<()>>,
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            drop(self.gate.lock().unwrap());
            match self.full.load(Ordering::Relaxed) {
                0 => self.text.lock().unwrap().write(bytes),
                _ => Err(io::ErrorKind::StorageFull.into()),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn notice(dropped: u64) -> String {
        format!("{dropped} lines are missing\n")
    }

    #[test]
    fn unwritable_lines_are_dropped_and_counted() {
        let sink = Sink::default();
        let lines = Lines::start(sink.clone(), notice).unwrap();
        lines.enqueue(b"one\n");
        lines.flush();
        sink.full.store(1, Ordering::Relaxed);
        lines.enqueue(b"two\n");
        lines.enqueue(b"three\n");
        lines.flush();
        sink.full.store(0, Ordering::Relaxed);
        lines.enqueue(b"four\n");
        lines.flush();
        let text = String::from_utf8(sink.text.lock().unwrap().clone()).unwrap();
        assert_eq!(text, "one\n2 lines are missing\nfour\n");
        assert_eq!(lines.dropped_lines().load(Ordering::Relaxed), 2);
        assert_eq!(lines.waiting.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_stuck_pipe_blocks_no_caller() {
        let sink = Sink::default();
        let lines = Lines::start(sink.clone(), notice).unwrap();
        let gate = sink.gate.lock().unwrap();
        let (started, line) = (Instant::now(), [b'x'; 1024]);
        for _ in 0..20_000 {
            lines.enqueue(&line);
        }
        lines.flush();
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        assert!(lines.waiting.load(Ordering::Relaxed) <= MAX_BYTES);
        let dropped = lines.dropped_lines().load(Ordering::Relaxed);
        assert!(dropped > 10_000, "{dropped}");
        drop(gate);
    }
}
