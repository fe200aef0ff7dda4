//! A histogram without a lock: executions of all threads observe at once, and a scrape reads
//! meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Steps of the sum for 1 in the observed unit. Seconds are summed in microseconds.
const STEPS: f64 = 1e6;

/// The upper bounds of times of the host's own work, in seconds.
pub(crate) const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];

/// The upper bounds of times of runs, in seconds: up to half a day.
pub(crate) const RUN_SECONDS: &[f64] =
    &[0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1_800.0, 7_200.0, 43_200.0];

/// The upper bounds of numbers of operations.
pub(crate) const OPERATIONS: &[f64] =
    &[0.0, 1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0];

/// A histogram. Its observations count in the first bucket whose bound they do not exceed.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// The number of observations of each bound, and of those above all of them.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// Creates a histogram with these upper bounds, in ascending order.
    pub fn new(bounds: &'static [f64]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, buckets, sum: AtomicU64::new(0) }
    }

    /// Counts an observation. A negative one counts as 0.
    pub fn observe(&self, value: f64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        self.buckets[at].fetch_add(1, Ordering::Relaxed);
        // A conversion of floats to integers saturates.
        self.sum.fetch_add((value * STEPS).round() as u64, Ordering::Relaxed);
    }

    /// Counts a time, in seconds.
    pub fn observe_time(&self, time: Duration) {
        self.observe(time.as_secs_f64());
    }

    /// Returns the sum, the number of observations, and the number in each bucket.
    pub(crate) fn read(&self) -> (f64, u64, Vec<(f64, u64)>) {
        let counts: Vec<u64> = self.buckets.iter().map(|it| it.load(Ordering::Relaxed)).collect();
        let sum = self.sum.load(Ordering::Relaxed) as f64 / STEPS;
        let buckets = self.bounds.iter().copied().zip(counts.iter().copied()).collect();
        (sum, counts.iter().sum(), buckets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observations_count_in_their_bucket() {
        static BOUNDS: &[f64] = &[1.0, 2.0];
        let histogram = Histogram::new(BOUNDS);
        for value in [-1.0, 1.0, 1.5, 2.0, 9.0] {
            histogram.observe(value);
        }
        histogram.observe_time(Duration::from_millis(1_250));
        assert_eq!(histogram.read(), (14.75, 6, vec![(1.0, 2), (2.0, 3)]));
    }

    #[test]
    fn bounds_are_ascending() {
        for bounds in [SECONDS, RUN_SECONDS, OPERATIONS] {
            assert!(bounds.is_sorted());
        }
    }
}
