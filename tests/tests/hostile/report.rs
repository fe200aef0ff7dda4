//! The table at the end: each case with its answer, its time and what it left.

use std::fmt;
use std::time::Duration;

/// One case, done.
pub struct Row {
    name: String,
    /// What came of it.
    pub answer: String,
    /// How long each time took.
    pub times: Vec<Duration>,
    /// Kilobytes of RSS that the times after the second added.
    pub growth: Option<i64>,
}

impl Row {
    pub fn of(name: &str) -> Row {
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
