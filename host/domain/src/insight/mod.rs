//! Views over all states of a run, and over the runs of a graph: the timeline, the distribution of
//! a node's times, groups of failures, the comparison of two runs, and the statistics of a graph.
//! Pure functions from rows to the answers of the API.
//!
//! Not here: how the rows are read and sampled (the store), and which run is meant (the
//! orchestrator).

mod comparison;
mod distribution;
mod failures;
mod graph_stats;
mod timeline;

pub use comparison::{
    ComparedNode, ComparedRun, NodeTimes, RevisionChange, RunComparison, TimesByNode, compare,
};
pub use distribution::{
    NodeDistribution, SlowState, TimeBucket, TimeDistribution, TimesOfNode, times_of_node,
};
pub use failures::{
    FailedState, FailureFilter, FailureGroup, FailureGroups, FailuresOfRun, MAX_FAILURE_GROUPS,
    group_failures, normalised,
};
pub use graph_stats::{GraphStats, RunCost, StatsBin, graph_stats};
pub use timeline::{
    MAX_SERIES, MAX_TIMELINE_BINS, Timeline, TimelineBy, TimelineRequest, TimelineSeries, Times,
    timeline,
};

use serde::{Deserialize, Serialize};

use crate::ids::{Millis, NodeIx, SessionId, StateId};
use crate::state::Status;

/// The times of a state, which are those of its last attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateTimes {
    /// The number of the state.
    pub id: StateId,
    /// The node that the state executes.
    pub node: NodeIx,
    /// The session that claimed the state last.
    pub session: Option<SessionId>,
    /// The status of the state.
    pub status: Status,
    /// The time at which the last attempt was due.
    pub due_at: Millis,
    /// The time at which it began, or was claimed if it has not ended.
    pub began_at: Option<Millis>,
    /// The time at which the state ended.
    pub ended_at: Option<Millis>,
    /// The number of attempts so far.
    pub attempts: u32,
    /// The number of retries so far.
    pub retries: u32,
}

impl StateTimes {
    /// Returns the time that the last attempt took; `None` if it has not ended or never began.
    pub fn run_ms(&self) -> Option<u64> {
        Some(between(self.began_at?, self.ended_at?))
    }

    /// Returns the time for which the last attempt waited after it was due; `None` if it has not
    /// begun.
    pub fn wait_ms(&self) -> Option<u64> {
        Some(between(self.due_at, self.began_at?))
    }

    /// Returns whether the state has attempts that are not its last one.
    pub fn has_earlier_attempts(&self) -> bool {
        self.attempts > 1 || (self.attempts == 1 && self.began_at.is_none())
    }
}

/// The times of an attempt that was not the last of its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptTimes {
    /// The node that the state executes.
    pub node: NodeIx,
    /// The session that executed the attempt.
    pub session: Option<SessionId>,
    /// The time at which the attempt began; `None` if its host was lost.
    pub began_at: Option<Millis>,
    /// The time at which it ended.
    pub ended_at: Millis,
    /// Set if the attempt failed.
    pub has_failed: bool,
}

/// How many of the states an answer was made from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Sample {
    /// The number of states that were examined.
    pub examined: u64,
    /// The number of states that there are. If it is larger, the answer was made from an even
    /// sample of them, and its counts are estimates.
    pub of: u64,
}

impl Sample {
    /// Returns the factor from a count in the sample to an estimate of the whole.
    fn factor(self) -> f64 {
        if self.examined == 0 || self.of <= self.examined {
            return 1.0;
        }
        self.of as f64 / self.examined as f64
    }

    /// Returns the estimate for a count in the sample.
    fn scaled(self, count: u64) -> u64 {
        (count as f64 * self.factor()).round() as u64
    }

    /// Returns whether not all states were examined.
    pub fn is_partial(self) -> bool {
        self.of > self.examined
    }
}

/// Returns the milliseconds from one time to another; 0 if that is earlier.
fn between(from: Millis, to: Millis) -> u64 {
    u64::try_from(to.saturating_sub(from)).unwrap_or_default()
}

/// Returns a percentile of sorted values: the smallest value that at least `percent` of a hundred
/// values do not exceed.
fn percentile(sorted: &[u64], percent: usize) -> Option<u64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.max(1) - 1).copied()
}

/// Bins of equal width over an interval of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bins {
    from: Millis,
    width: u64,
    count: usize,
}

impl Bins {
    /// Divides an interval into at most `max` bins of whole milliseconds. The last bin may end after
    /// the interval.
    fn over(from: Millis, to: Millis, max: u32) -> Self {
        let span = between(from, to).max(1);
        let width = span.div_ceil(u64::from(max.max(1)));
        let count = usize::try_from(span.div_ceil(width)).unwrap_or(usize::MAX);
        Bins { from, width, count }
    }

    /// Returns the bin of a time within the interval.
    fn at(&self, time: Millis) -> Option<usize> {
        if time < self.from {
            return None;
        }
        let bin = usize::try_from(between(self.from, time) / self.width).ok()?;
        (bin < self.count).then_some(bin)
    }

    /// Returns the time at which a bin begins.
    fn start(&self, bin: usize) -> Millis {
        let offset = (bin as u64).saturating_mul(self.width);
        self.from.saturating_add(Millis::try_from(offset).unwrap_or(Millis::MAX))
    }

    /// Returns the end of the last bin.
    fn end(&self) -> Millis {
        self.start(self.count)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Returns the times of a state at node 0 that has succeeded.
    pub(crate) fn ended(id: i64, due_at: Millis, began_at: Millis, ended_at: Millis) -> StateTimes {
        StateTimes {
            id: StateId(id),
            node: NodeIx(0),
            session: Some(SessionId(1)),
            status: Status::Success,
            due_at,
            began_at: Some(began_at),
            ended_at: Some(ended_at),
            attempts: 1,
            retries: 0,
        }
    }

    #[test]
    fn percentiles_are_values_of_the_list() {
        let values: Vec<u64> = (1..=200).collect();
        for (percent, value) in [(50, 100), (90, 180), (99, 198), (100, 200)] {
            assert_eq!(percentile(&values, percent), Some(value));
        }
        assert_eq!(percentile(&[7], 1), Some(7));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn bins_cover_their_interval() {
        let bins = Bins::over(100, 1_099, 60);
        assert_eq!((bins.width, bins.count, bins.end()), (17, 59, 1_103));
        assert_eq!(bins.at(99), None);
        assert_eq!(bins.at(100), Some(0));
        assert_eq!(bins.at(1_098), Some(58));
        assert_eq!(bins.at(1_103), None);
        // A run that has just begun, and one whose clock went back.
        assert_eq!(Bins::over(5, 5, 60), Bins { from: 5, width: 1, count: 1 });
        assert_eq!(Bins::over(5, 0, 60), Bins { from: 5, width: 1, count: 1 });
    }
}
