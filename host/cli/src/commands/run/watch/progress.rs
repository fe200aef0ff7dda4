//! The progress of a run, on standard error: a bar on a terminal, plain lines
//! elsewhere. Lines are written only after a change.

use std::cell::Cell;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use exosphere_api_types::{RunCounts, RunSummary};
use indicatif::{ProgressBar, ProgressStyle};

/// The redraw interval of the bar while nothing changes.
const REDRAW_INTERVAL: Duration = Duration::from_millis(100);
/// The shortest time between two plain lines.
const MIN_LINE_INTERVAL: Duration = Duration::from_secs(1);

/// The progress display of a run.
pub enum Progress {
    Bar(ProgressBar),
    Lines(Lines),
}

/// Plain lines, for a file or a pipe.
pub struct Lines {
    since: Instant,
    last: Cell<Option<(Instant, RunCounts)>>,
    absent: Cell<bool>,
}

impl Progress {
    /// Returns the kind of display that fits standard error.
    pub fn new() -> Self {
        if !io::stderr().is_terminal() {
            let since = Instant::now();
            return Progress::Lines(Lines {
                since,
                last: Cell::new(None),
                absent: Cell::new(false),
            });
        }
        let bar = ProgressBar::new(0);
        let template = "{spinner} {wide_bar} {pos}/{len} states{msg}, {elapsed}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(REDRAW_INTERVAL);
        Progress::Bar(bar)
    }

    /// Shows the current counts of the run.
    pub fn show(&self, run: &RunSummary) {
        let counts = run.counts;
        match self {
            Progress::Bar(bar) => {
                bar.set_length(counts.states);
                bar.set_position(ended_states(&counts));
                bar.set_message(remarks(&counts));
            }
            Progress::Lines(lines) => lines.show(counts),
        }
    }

    /// Shows that the host is unreachable.
    pub fn absent(&self) {
        const WORDS: &str = "the host is unreachable; waiting for it to return";
        match self {
            Progress::Bar(bar) => bar.set_message(format!(", {WORDS}")),
            Progress::Lines(lines) => {
                if !lines.absent.replace(true) {
                    write_line(WORDS);
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
    fn show(&self, counts: RunCounts) {
        self.absent.set(false);
        if let Some((at, last)) = self.last.get()
            && (last == counts || at.elapsed() < MIN_LINE_INTERVAL && counts.open > 0)
        {
            return;
        }
        self.last.set(Some((Instant::now(), counts)));
        let seconds = self.since.elapsed().as_secs_f64();
        write_line(&format!(
            "{}/{} states{}, {seconds:.1} s",
            ended_states(&counts),
            counts.states,
            remarks(&counts)
        ));
    }
}

/// Writes a line to standard error and ignores a failure.
fn write_line(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Returns the number of states that will not run again by themselves.
fn ended_states(counts: &RunCounts) -> u64 {
    let RunCounts { success, pruned, errored, cancelled, .. } = counts;
    [pruned, errored, cancelled].into_iter().fold(*success, |sum, n| sum.saturating_add(*n))
}

/// Returns remarks on retries, prunes and failures, if there are any.
fn remarks(counts: &RunCounts) -> String {
    let RunCounts { retries, pruned, errored, .. } = *counts;
    [(retries, "retries"), (pruned, "pruned"), (errored, "errored")]
        .into_iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, label)| format!(", {n} {label}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remarks_name_only_nonzero_counts() {
        let mut counts = RunCounts { states: 9, success: 3, ..RunCounts::default() };
        assert_eq!((ended_states(&counts), remarks(&counts).as_str()), (3, ""));
        counts = RunCounts { pruned: 1, errored: 2, retries: 4, cancelled: 1, ..counts };
        assert_eq!(
            (ended_states(&counts), remarks(&counts).as_str()),
            (7, ", 4 retries, 1 pruned, 2 errored")
        );
        counts.cancelled = u64::MAX;
        assert_eq!(ended_states(&counts), u64::MAX);
    }
}
