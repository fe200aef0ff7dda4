//! Results: measurements by load and subject, with one value for each round.
//!
//! Not here: their report (`report`).

use serde::Serialize;

/// The unit of a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Unit {
    #[serde(rename = "states/s")]
    StatesPerSecond,
    #[serde(rename = "runs/s")]
    RunsPerSecond,
    #[serde(rename = "ms")]
    Millis,
    #[serde(rename = "s")]
    Seconds,
    #[serde(rename = "MiB")]
    Mebibytes,
    #[serde(rename = "% of a core")]
    Core,
    /// One measurement divided by another of the same round.
    #[serde(rename = "ratio")]
    Ratio,
}

impl Unit {
    /// Returns the unit's name in a table.
    pub fn name(self) -> &'static str {
        match self {
            Unit::StatesPerSecond => "states/s",
            Unit::RunsPerSecond => "runs/s",
            Unit::Millis => "ms",
            Unit::Seconds => "s",
            Unit::Mebibytes => "MiB",
            Unit::Core => "% of a core",
            Unit::Ratio => "ratio",
        }
    }
}

/// A measurement: the values of all rounds.
#[derive(Debug, Clone, Serialize)]
pub struct Measurement {
    /// The name of the load.
    pub load: String,
    /// The measured system: `SQLite` and `Postgres` are Exosphere on these.
    pub subject: String,
    /// The unit of the values.
    pub unit: Unit,
    /// One value per round, in the order of the rounds.
    pub values: Vec<f64>,
}

impl Measurement {
    /// Returns the median; of an even number of values the lower middle one.
    pub fn median(&self) -> f64 {
        percentile(&mut self.values.clone(), 50.0)
    }

    /// Returns the smallest and the largest value.
    pub fn spread(&self) -> (f64, f64) {
        let least = self.values.iter().copied().fold(f64::INFINITY, f64::min);
        (least, self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    }
}

/// All results, in the order of their first values.
#[derive(Debug, Default)]
pub struct Results(pub Vec<Measurement>);

impl Results {
    /// Adds one value to a measurement, which is created if it is new.
    pub fn add(&mut self, load: &str, subject: &str, unit: Unit, value: f64) {
        let is_same = |measurement: &&mut Measurement| {
            measurement.load == load && measurement.subject == subject && measurement.unit == unit
        };
        match self.0.iter_mut().find(is_same) {
            Some(measurement) => measurement.values.push(value),
            None => self.0.push(Measurement {
                load: load.into(),
                subject: subject.into(),
                unit,
                values: vec![value],
            }),
        }
    }

    /// Adds percentiles of latencies, given in milliseconds.
    pub fn add_latencies(&mut self, load: &str, subject: &str, latencies: &mut [f64]) {
        for (name, percent) in [("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9)] {
            let value = percentile(latencies, percent);
            self.add(&format!("{load}, {name}"), subject, Unit::Millis, value);
        }
    }

    /// Returns the latest value of a measurement.
    pub fn latest(&self, load: &str, subject: &str) -> Option<f64> {
        let mut all = self.0.iter();
        let found =
            all.find(|measurement| measurement.load == load && measurement.subject == subject)?;
        found.values.last().copied()
    }
}

/// Returns the given percentile (nearest rank).
pub fn percentile(values: &mut [f64], percent: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    // Rounded down, since 99.9 % of 1,000 is slightly more than 999 in floats.
    let rank = (percent * values.len() as f64 / 100.0 - 1e-9).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let mut values: Vec<f64> = (1..=1000).rev().map(f64::from).collect();
        assert_eq!(percentile(&mut values, 50.0), 500.0);
        assert_eq!(percentile(&mut values, 99.9), 999.0);
        assert_eq!(percentile(&mut values, 100.0), 1000.0);
        assert_eq!(percentile(&mut [7.0], 99.9), 7.0);
        assert!(percentile(&mut [], 50.0).is_nan());
    }
}
