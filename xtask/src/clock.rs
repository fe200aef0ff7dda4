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
    pub fn step<T>(&mut self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let result = work().with_context(|| format!("{what}: failed"))?;
        let took = start.elapsed();
        eprintln!("{}", line(what, took));
        self.steps.push((what.to_owned(), took));
        Ok(result)
    }

    /// Returns all steps again, with their sum.
    pub fn summary(&self) -> String {
        let mut lines: Vec<_> = self.steps.iter().map(|(what, took)| line(what, *took)).collect();
        lines.push(line("in all", self.steps.iter().map(|(_, took)| *took).sum()));
        lines.join("\n")
    }
}

fn line(what: &str, took: Duration) -> String {
    format!("{:>8.1} s  {what}", took.as_secs_f64())
}
