//! Durations of the steps of a task, one short line each.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The steps done so far.
#[derive(Default)]
pub struct Clock {
    steps: Vec<(String, Duration)>,
}

impl Clock {
    /// Runs a step and prints its duration. An error names the step.
    pub fn step<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let result = work().with_context(|| format!("{name}: failed"))?;
        let elapsed = start.elapsed();
        eprintln!("{}", line(name, elapsed));
        self.steps.push((name.to_owned(), elapsed));
        Ok(result)
    }

    /// Returns all steps again, with their sum.
    pub fn summary(&self) -> String {
        let mut lines: Vec<_> =
            self.steps.iter().map(|(name, elapsed)| line(name, *elapsed)).collect();
        lines.push(line("in all", self.steps.iter().map(|(_, elapsed)| *elapsed).sum()));
        lines.join("\n")
    }
}

fn line(name: &str, elapsed: Duration) -> String {
    format!("{:>8.1} s  {name}", elapsed.as_secs_f64())
}
