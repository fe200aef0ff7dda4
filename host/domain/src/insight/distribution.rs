//! The distribution of a node's times: histograms of run and waiting times on a logarithmic scale,
//! their percentiles, and the slowest states.

use serde::{Deserialize, Serialize};

use super::{Sample, StateTimes, percentile};
use crate::ids::StateId;
use crate::json::Typed;

/// The number of the slowest states that are named.
const SLOWEST_STATES: usize = 10;

/// The distribution of the times of a node's states in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeDistribution {
    /// The id of the run.
    pub run: String,
    /// The identifier of the node.
    pub identifier: String,
    /// The run times: from the begin of a state's last attempt to its end. States that have not
    /// ended do not count.
    pub run_times: TimeDistribution,
    /// The waiting times: from the time at which the last attempt was due to its begin.
    pub waiting_times: TimeDistribution,
    /// The slowest states, at most ten.
    pub slowest: Vec<SlowState>,
    /// The number of states of the node that were retried.
    pub retried: u64,
    /// The number of their retries.
    pub retries: u64,
    /// The states of the run that were examined.
    pub sample: Sample,
}

/// A distribution of times.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TimeDistribution {
    /// The number of times.
    pub count: u64,
    /// The median, in milliseconds; null if there are none.
    #[serde(default)]
    pub p50_ms: Option<u64>,
    /// The time that 90 % of the states do not exceed, in milliseconds.
    #[serde(default)]
    pub p90_ms: Option<u64>,
    /// The time that 99 % of the states do not exceed, in milliseconds.
    #[serde(default)]
    pub p99_ms: Option<u64>,
    /// The largest time, in milliseconds.
    #[serde(default)]
    pub max_ms: Option<u64>,
    /// The histogram, from the smallest time to the largest.
    pub buckets: Vec<TimeBucket>,
}

/// A bucket of a histogram. The bounds of buckets are 0, 1, 2, 5, 10, 20, 50 and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TimeBucket {
    /// The smallest time of the bucket, in milliseconds.
    pub from_ms: u64,
    /// The time at which the bucket ends, in milliseconds; it is not part of it.
    pub to_ms: u64,
    /// The number of times within.
    pub count: u64,
}

/// A slow state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SlowState {
    /// The path of the state.
    pub path: String,
    /// The run time of its last attempt, in milliseconds.
    pub run_ms: u64,
}

impl Typed for NodeDistribution {}

/// The times of a node's states.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TimesOfNode {
    /// The run times.
    pub run_times: TimeDistribution,
    /// The waiting times.
    pub waiting_times: TimeDistribution,
    /// The slowest states with their run times, the slowest first.
    pub slowest: Vec<(StateId, u64)>,
    /// The number of states that were retried.
    pub retried: u64,
    /// The number of their retries.
    pub retries: u64,
}

/// Computes the distribution of the times of some states.
pub fn times_of_node<'s>(
    states: impl Iterator<Item = &'s StateTimes>,
    sample: Sample,
) -> TimesOfNode {
    let (mut run_times, mut waiting_times) = (Vec::new(), Vec::new());
    let (mut retried, mut retries) = (0, 0);
    for state in states {
        run_times.extend(state.run_ms().map(|ms| (ms, state.id)));
        waiting_times.extend(state.wait_ms());
        retried += u64::from(state.retries > 0);
        retries += u64::from(state.retries);
    }
    run_times.sort_unstable();
    let slowest = run_times.iter().rev().take(SLOWEST_STATES).map(|(ms, id)| (*id, *ms)).collect();
    let run_times = run_times.into_iter().map(|(ms, _)| ms).collect();
    TimesOfNode {
        run_times: distribution(run_times, sample),
        waiting_times: distribution(waiting_times, sample),
        slowest,
        retried: sample.scaled(retried),
        retries: sample.scaled(retries),
    }
}

/// Computes the distribution of times in milliseconds.
fn distribution(mut times: Vec<u64>, sample: Sample) -> TimeDistribution {
    times.sort_unstable();
    TimeDistribution {
        count: sample.scaled(times.len() as u64),
        p50_ms: percentile(&times, 50),
        p90_ms: percentile(&times, 90),
        p99_ms: percentile(&times, 99),
        max_ms: times.last().copied(),
        buckets: buckets(&times, sample),
    }
}

/// Counts sorted times in buckets, from that of the first to that of the last.
fn buckets(sorted: &[u64], sample: Sample) -> Vec<TimeBucket> {
    let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else { return Vec::new() };
    let mut buckets = Vec::new();
    let mut rest = sorted;
    let (mut from_ms, mut to_ms) = (0, 1);
    while from_ms <= *last {
        if to_ms > *first {
            let (within, after) = rest.split_at(rest.partition_point(|ms| *ms < to_ms));
            buckets.push(TimeBucket { from_ms, to_ms, count: sample.scaled(within.len() as u64) });
            rest = after;
        }
        if to_ms == u64::MAX {
            break;
        }
        (from_ms, to_ms) = (to_ms, next_bound(to_ms));
    }
    buckets
}

/// Returns the bound after another: 1, 2, 5, 10, 20, 50 and so on.
fn next_bound(bound: u64) -> u64 {
    let mut leading = bound;
    while leading >= 10 {
        leading /= 10;
    }
    if leading == 2 { bound.saturating_mul(5) / 2 } else { bound.saturating_mul(2) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::ended;
    use super::*;

    const ALL: Sample = Sample { examined: 0, of: 0 };

    #[test]
    fn times_fall_into_logarithmic_buckets() {
        let of = distribution(vec![3, 0, 7, 130, 4, 5], ALL);
        let buckets: Vec<_> =
            of.buckets.iter().map(|it| (it.from_ms, it.to_ms, it.count)).collect();
        assert_eq!(
            buckets,
            [
                (0, 1, 1),
                (1, 2, 0),
                (2, 5, 2),
                (5, 10, 2),
                (10, 20, 0),
                (20, 50, 0),
                (50, 100, 0),
                (100, 200, 1)
            ]
        );
        assert_eq!((of.count, of.p50_ms, of.max_ms), (6, Some(4), Some(130)));
        // Buckets begin at the smallest time.
        assert_eq!(distribution(vec![60, 60], ALL).buckets[0].from_ms, 50);
        assert_eq!(distribution(vec![u64::MAX - 1], ALL).buckets[0].count, 1);
        assert_eq!(distribution(Vec::new(), ALL), TimeDistribution::default());
    }

    #[test]
    fn the_slowest_states_are_named() {
        let mut states: Vec<_> = (1..=30).map(|n| ended(n, 0, 4, 4 + (n * 7) % 31)).collect();
        states[3].retries = 2;
        states.push(StateTimes { ended_at: None, ..ended(40, 0, 2, 0) });
        let of = times_of_node(states.iter(), ALL);
        assert_eq!(of.slowest.len(), 10);
        let (slowest, ms) = of.slowest[0];
        assert_eq!((slowest.0 * 7 % 31, ms), (30, 30));
        assert!(of.slowest.iter().is_sorted_by(|a, b| a.1 >= b.1));
        assert_eq!((of.run_times.count, of.waiting_times.count), (30, 31));
        assert_eq!((of.waiting_times.p50_ms, of.retried, of.retries), (Some(4), 1, 2));
    }
}
