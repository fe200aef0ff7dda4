//! The report: a table of all cases with their answers, times and memory growth.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, ensure};

/// All cases so far; each is printed as soon as it is done.
#[derive(Default)]
pub struct Table {
    right: usize,
    wrong: Vec<String>,
}

impl Table {
    /// Adds a case, successful or failed.
    pub fn add(&mut self, name: &str, done: Result<Row>) {
        match done {
            Ok(row) => {
                println!("{row}");
                self.right += 1;
            }
            Err(error) => {
                println!("{name:<44} WRONG");
                self.wrong.push(format!("{name}: {error:#}"));
            }
        }
    }

    /// Returns an error that names every failed case and its difference.
    pub fn verdict(self) -> Result<()> {
        println!("{} cases passed", self.right);
        let Table { wrong, .. } = self;
        ensure!(wrong.is_empty(), "{} cases failed:\n{}", wrong.len(), wrong.join("\n"));
        Ok(())
    }
}

/// The result of one case.
pub struct Row {
    name: String,
    /// The answer to the case.
    pub answer: String,
    /// The duration of each repetition.
    pub times: Vec<Duration>,
    /// Kilobytes of RSS that the repetitions after the second added.
    pub growth: Option<i64>,
}

impl Row {
    pub fn new(name: &str) -> Row {
        Row { name: name.to_owned(), answer: String::new(), times: Vec::new(), growth: None }
    }

    fn median(&self) -> Duration {
        let mut times = self.times.clone();
        times.sort();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { name, answer, times, growth } = self;
        let growth = growth.map_or_else(String::new, |kilobytes| format!("{kilobytes:+} kB"));
        let millis = self.median().as_secs_f64() * 1e3;
        write!(f, "{name:<44} {answer:<30} {:>3} {millis:>9.1} ms {growth:>10}", times.len())
    }
}
