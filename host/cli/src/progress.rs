//! The progress of what a command follows, on standard error: a bar on a terminal, plain lines
//! elsewhere. Lines are written only after a change.
//!
//! Not here: the words for a run or a bulk operation.

use std::cell::{Cell, RefCell};
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// The redraw interval of the bar while nothing changes.
const REDRAW_INTERVAL: Duration = Duration::from_millis(100);

/// The shortest time between two plain lines.
const MIN_LINE_INTERVAL: Duration = Duration::from_secs(1);

/// The words while the host is away.
const ABSENT: &str = "the host is unreachable; waiting for it to return";

/// The display of a progress.
pub enum Progress {
    Bar(ProgressBar),
    Lines(Lines),
}

/// Plain lines, for a file or a pipe.
pub struct Lines {
    since: Instant,
    last: RefCell<Option<(Instant, String)>>,
    absent: Cell<bool>,
}

impl Progress {
    /// Returns the kind of display that fits standard error.
    pub fn new() -> Self {
        if !io::stderr().is_terminal() {
            let (since, last) = (Instant::now(), RefCell::default());
            return Progress::Lines(Lines { since, last, absent: Cell::new(false) });
        }
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_bar} {msg}, {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(REDRAW_INTERVAL);
        Progress::Bar(bar)
    }

    /// Shows that `done` of `all` parts are done, in words. The last words are always shown.
    pub fn show(&self, (done, all): (u64, u64), words: String, is_last: bool) {
        match self {
            Progress::Bar(bar) => {
                bar.set_length(all);
                bar.set_position(done);
                bar.set_message(words);
            }
            Progress::Lines(lines) => lines.show(words, is_last),
        }
    }

    /// Shows that the host is unreachable.
    pub fn absent(&self) {
        match self {
            Progress::Bar(bar) => {
                let words = bar.message();
                if !words.ends_with(ABSENT) {
                    bar.set_message(format!("{words}, {ABSENT}"));
                }
            }
            Progress::Lines(lines) => {
                if !lines.absent.replace(true) {
                    write_line(ABSENT);
                }
            }
        }
    }

    /// Removes the bar from the terminal.
    pub fn finish(self) {
        if let Progress::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

impl Lines {
    fn show(&self, words: String, is_last: bool) {
        self.absent.set(false);
        let is_due = self.last.borrow().as_ref().is_none_or(|(at, before)| {
            *before != words && (is_last || at.elapsed() >= MIN_LINE_INTERVAL)
        });
        if is_due {
            write_line(&format!("{words}, {:.1} s", self.since.elapsed().as_secs_f64()));
            self.last.replace(Some((Instant::now(), words)));
        }
    }
}

/// Writes a line to standard error and ignores a failure, which ends nothing.
fn write_line(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
