//! The statistics of a graph's runs over time: how many were started and how they ended, how long
//! they took, and what they cost.

use serde::{Deserialize, Serialize};

use super::{Bins, percentile};
use crate::ids::Millis;
use crate::json::Typed;
use crate::state::RunStatus;

/// A run of a graph, as its statistics need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunCost {
    /// The status of the run.
    pub status: RunStatus,
    /// The time at which the run was started.
    pub created_at: Millis,
    /// The time at which its root was due first.
    pub due_at: Option<Millis>,
    /// The time at which the run ended.
    pub ended_at: Option<Millis>,
    /// The CPU time of its attempts, in microseconds.
    pub cpu_us: u64,
    /// The largest memory of an attempt, in bytes.
    pub memory_bytes: u64,
}

impl RunCost {
    /// Returns the time that the run took after its root was due.
    pub fn took_ms(&self) -> Option<u64> {
        let began = self.due_at.unwrap_or(self.created_at).max(self.created_at);
        Some(super::between(began, self.ended_at?))
    }
}

/// The statistics of a graph's runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GraphStats {
    /// The name of the graph.
    pub graph: String,
    /// The begin of the first bin, in milliseconds since 1970 (UTC).
    pub from: i64,
    /// The end of the last bin, in milliseconds since 1970 (UTC).
    pub to: i64,
    /// The width of a bin, in milliseconds.
    pub bin_ms: u64,
    /// The runs that were started in the whole interval.
    pub total: StatsBin,
    /// The runs by the time of their start. Each list of runs is counted where they were started,
    /// also if they ended later.
    pub bins: Vec<StatsBin>,
    /// Set if the interval has more runs than are examined. Only the newest are counted then: those
    /// from `from` on, which is later than what was asked for.
    pub is_cut: bool,
}

/// The runs that were started within an interval.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StatsBin {
    /// The begin of the interval, in milliseconds since 1970 (UTC).
    pub from: i64,
    /// The number of runs that were started.
    pub started: u64,
    /// How many of them have not ended.
    pub running: u64,
    /// How many of them succeeded.
    pub success: u64,
    /// How many of them failed.
    pub failed: u64,
    /// How many of them were cancelled.
    pub cancelled: u64,
    /// The part of those that succeeded among those that succeeded or failed, from 0 to 1; null if
    /// there are none.
    #[serde(default)]
    pub success_rate: Option<f64>,
    /// The median time that they took, in milliseconds; cancelled runs do not count. Null if none
    /// has ended.
    #[serde(default)]
    pub p50_ms: Option<u64>,
    /// The time that 90 % of them did not exceed, in milliseconds.
    #[serde(default)]
    pub p90_ms: Option<u64>,
    /// The time that 99 % of them did not exceed, in milliseconds.
    #[serde(default)]
    pub p99_ms: Option<u64>,
    /// The CPU time of all their attempts, in microseconds.
    pub cpu_us: u64,
    /// The median CPU time of a run that succeeded or failed, in microseconds.
    #[serde(default)]
    pub p50_cpu_us: Option<u64>,
    /// The largest memory of an attempt, in bytes.
    pub peak_memory_bytes: u64,
}

impl Typed for GraphStats {}

/// Computes the statistics of runs that were started from `from` to `to`.
pub fn graph_stats(
    graph: String,
    runs: &[RunCost],
    (from, to): (Millis, Millis),
    max_bins: u32,
    is_cut: bool,
) -> GraphStats {
    let from = match runs.iter().map(|run| run.created_at).min() {
        Some(first) if is_cut => first,
        _ => from,
    };
    let bins = Bins::over(from, to, max_bins);
    let mut by_bin: Vec<Vec<RunCost>> = vec![Vec::new(); bins.count];
    for run in runs {
        if let Some(bin) = bins.at(run.created_at) {
            by_bin[bin].push(*run);
        }
    }
    let binned = by_bin.iter().enumerate().map(|(at, runs)| StatsBin::of(bins.start(at), runs));
    GraphStats {
        graph,
        from: bins.from,
        to: bins.end(),
        bin_ms: bins.width,
        total: StatsBin::of(from, &by_bin.concat()),
        bins: binned.collect(),
        is_cut,
    }
}

impl StatsBin {
    fn of(from: Millis, runs: &[RunCost]) -> Self {
        let count = |status| runs.iter().filter(|run| run.status == status).count() as u64;
        let (success, failed) = (count(RunStatus::Success), count(RunStatus::Failed));
        let ended = success + failed;
        let is_counted =
            |run: &&RunCost| matches!(run.status, RunStatus::Success | RunStatus::Failed);
        let counted = || runs.iter().filter(is_counted);
        let mut times: Vec<u64> = counted().filter_map(RunCost::took_ms).collect();
        let mut cpu: Vec<u64> = counted().map(|run| run.cpu_us).collect();
        times.sort_unstable();
        cpu.sort_unstable();
        StatsBin {
            from,
            started: runs.len() as u64,
            running: count(RunStatus::Running),
            success,
            failed,
            cancelled: count(RunStatus::Cancelled),
            success_rate: (ended > 0).then(|| success as f64 / ended as f64),
            p50_ms: percentile(&times, 50),
            p90_ms: percentile(&times, 90),
            p99_ms: percentile(&times, 99),
            cpu_us: runs.iter().map(|run| run.cpu_us).sum(),
            p50_cpu_us: percentile(&cpu, 50),
            peak_memory_bytes: runs.iter().map(|run| run.memory_bytes).max().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(status: RunStatus, created_at: Millis, took: Option<Millis>) -> RunCost {
        let ended_at = took.map(|took| created_at + took);
        let due_at = Some(created_at);
        RunCost { status, created_at, due_at, ended_at, cpu_us: 10, memory_bytes: 7 }
    }

    #[test]
    fn runs_count_where_they_were_started() {
        let runs = [
            run(RunStatus::Success, 0, Some(500)),
            run(RunStatus::Failed, 99, Some(20)),
            run(RunStatus::Cancelled, 100, Some(9_000)),
            run(RunStatus::Running, 399, None),
            RunCost { due_at: Some(250), ..run(RunStatus::Success, 150, Some(130)) },
        ];
        let stats = graph_stats("g".to_owned(), &runs, (0, 400), 4, false);
        assert_eq!((stats.from, stats.to, stats.bin_ms, stats.bins.len()), (0, 400, 100, 4));
        let started: Vec<_> = stats.bins.iter().map(|bin| (bin.from, bin.started)).collect();
        assert_eq!(started, [(0, 2), (100, 2), (200, 0), (300, 1)]);
        let rates: Vec<_> = stats.bins.iter().map(|bin| bin.success_rate).collect();
        assert_eq!(rates, [Some(0.5), Some(1.0), None, None]);
        assert_eq!(stats.bins[1].p50_ms, Some(30), "from the time at which it was due");
        let total = &stats.total;
        assert_eq!((total.started, total.running, total.cancelled), (5, 1, 1));
        assert_eq!((total.p50_ms, total.p99_ms), (Some(30), Some(500)));
        assert_eq!((total.cpu_us, total.p50_cpu_us, total.peak_memory_bytes), (50, Some(10), 7));
    }

    #[test]
    fn a_cut_interval_begins_later() {
        let stats =
            graph_stats("g".to_owned(), &[run(RunStatus::Running, 300, None)], (0, 400), 4, true);
        assert_eq!((stats.from, stats.total.started, stats.is_cut), (300, 1, true));
    }
}
