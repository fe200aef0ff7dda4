//! Views over all states of a run, and over the runs of a graph: timeline, groups of failures,
//! distribution of a node's times, comparison of runs, and statistics of a graph.
//!
//! A large run is read like a large answer, by a permit of its namespace, and computed as host work.
//!
//! Not here: what is computed (`insight` of the domain), and how a large run is sampled (the store).

use std::collections::BTreeSet;
use std::sync::Arc;

use exosphere_domain::clock::Clock;
use exosphere_domain::graph::Graph;
use exosphere_domain::graph::diff::diff;
use exosphere_domain::ids::{Millis, Name, NodeIx, RunId, StateId};
use exosphere_domain::insight::{
    ComparedRun, FailureGroup, FailureGroups, GraphStats, NodeDistribution, NodeTimes,
    RevisionChange, RunComparison, Sample, SlowState, StateTimes, Timeline, TimelineBy,
    TimelineRequest, Times, TimesByNode, compare, graph_stats, group_failures, timeline,
    times_of_node,
};
use exosphere_domain::state::RunStatus;
use exosphere_store::RunView;

use crate::Host;
use crate::error::{Error, log_internal};
use crate::host_work::{Bounds, REQUEST_STEPS};
use crate::service::large_json::AnswerPermit;
use crate::service::queries::identifier_not_found;

/// The number of earlier successful runs of which a comparison has medians.
const MAX_MEDIAN_RUNS: u32 = 20;

/// The number of states of earlier runs that a comparison reads for medians; if they have more
/// together, it has none.
const MAX_MEDIAN_STATES: u64 = 50_000;

/// The number of runs from which the statistics of a graph are made.
const MAX_STATS_RUNS: u32 = 20_000;

/// The default interval of a graph's statistics: a week.
const STATS_INTERVAL_MS: Millis = 7 * 24 * 60 * 60 * 1000;

/// Bytes that the times of one state take in memory.
const STATE_BYTES: u64 = size_of::<StateTimes>() as u64;

/// Bytes that a failed state takes in memory, with a message of usual length.
const FAILED_STATE_BYTES: u64 = 256;

/// The interval of a view, and its number of bins. The host chooses what is missing.
#[derive(Debug, Clone, Copy)]
pub struct Interval {
    /// The begin.
    pub from: Option<Millis>,
    /// The end.
    pub to: Option<Millis>,
    /// The maximum number of bins.
    pub bins: u32,
}

/// The run with which another one is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Baseline {
    /// This run.
    Run(RunId),
    /// The last run of the same graph that succeeded before.
    LastSuccess,
}

/// A run that was read for a comparison.
struct ReadRun {
    run: ComparedRun,
    graph: Arc<Graph>,
    nodes: TimesByNode,
}

impl Host {
    /// Draws the timeline of a run.
    pub async fn timeline(
        &self,
        namespace: &Name,
        id: RunId,
        by: TimelineBy,
        interval: Interval,
    ) -> Result<(Timeline, Option<AnswerPermit>), Error> {
        let run = self.run_view(namespace, id).await?;
        let info = self.inner.caches.runs.get(&self.inner.db.store, run.key).await?;
        let now = self.inner.db.clock.now();
        let request = TimelineRequest {
            from: interval.from.unwrap_or(run.created_at),
            to: interval.to.unwrap_or_else(|| run.ended_at.unwrap_or(now).saturating_add(1)),
            bins: interval.bins,
            by,
            now,
        };
        let store = &self.inner.db.store;
        let (mut times, permit) = self.state_times(namespace, &run).await?;
        times.attempts = store.attempt_times(&times.states).await?;
        let hosts = match by {
            TimelineBy::Node => Default::default(),
            TimelineBy::Host => {
                let sessions = times.states.iter().filter_map(|state| state.session);
                let attempts = times.attempts.iter().filter_map(|attempt| attempt.session);
                let sessions: BTreeSet<_> = sessions.chain(attempts).collect();
                store.hosts_of(&sessions.into_iter().collect::<Vec<_>>()).await?
            }
        };
        let graph = info.graph.clone();
        let draw = move || {
            let identifier = |node| identifier_of(&graph, node);
            timeline(id.to_string(), &times, &request, &hosts, identifier)
        };
        Ok((self.computed(namespace, draw).await?, permit))
    }

    /// Groups the failures of a run by kind and message. A caller who may not see payloads gets
    /// groups by kind alone.
    pub async fn failures(
        &self,
        namespace: &Name,
        id: RunId,
    ) -> Result<(FailureGroups, Option<AnswerPermit>), Error> {
        let run = self.run_view(namespace, id).await?;
        let info = self.inner.caches.runs.get(&self.inner.db.store, run.key).await?;
        let store = &self.inner.db.store;
        let failed = to_u64(run.counters.errored);
        let read = store.failures_of_run(run.key, failed, self.may_show_payloads());
        let bytes = to_i64(failed.saturating_mul(FAILED_STATE_BYTES));
        let (states, permit) = self.inner.large_json.read(namespace, bytes, read).await?;
        let sample = sample(states.len(), failed);
        let grouped = self.computed(namespace, move || group_failures(&states, sample)).await?;
        let examples: Vec<StateId> = grouped.groups.iter().map(|(example, _)| *example).collect();
        let paths = store.paths_of(&examples).await?;
        let named = grouped.groups.into_iter().filter_map(|(example, group)| {
            // A state is missing if its run was deleted meanwhile.
            Some(FailureGroup { example: info.graph.shown_path(paths.get(&example)?), ..group })
        });
        let groups = named.collect();
        let groups = FailureGroups { run: id.to_string(), groups, others: grouped.others, sample };
        Ok((groups, permit))
    }

    /// Computes the distribution of the times of a node's states in a run.
    pub async fn node_distribution(
        &self,
        namespace: &Name,
        id: RunId,
        identifier: &Name,
    ) -> Result<NodeDistribution, Error> {
        let run = self.run_view(namespace, id).await?;
        let info = self.inner.caches.runs.get(&self.inner.db.store, run.key).await?;
        let node = info.graph.find(identifier.as_str());
        let node = node.ok_or_else(|| identifier_not_found(&info.graph, identifier.as_str()))?;
        let (times, permit) = self.state_times(namespace, &run).await?;
        let sample = times.sample;
        let compute = move || {
            times_of_node(times.states.iter().filter(|state| state.node == node), times.sample)
        };
        let of_node = self.computed(namespace, compute).await?;
        drop(permit);
        let slowest: Vec<StateId> = of_node.slowest.iter().map(|(state, _)| *state).collect();
        let paths = self.inner.db.store.paths_of(&slowest).await?;
        let slowest = of_node.slowest.into_iter().filter_map(|(state, run_ms)| {
            Some(SlowState { path: info.graph.shown_path(paths.get(&state)?), run_ms })
        });
        Ok(NodeDistribution {
            run: id.to_string(),
            identifier: identifier.to_string(),
            run_times: of_node.run_times,
            waiting_times: of_node.waiting_times,
            slowest: slowest.collect(),
            retried: of_node.retried,
            retries: of_node.retries,
            sample,
        })
    }

    /// Compares a run with another one, and with the medians of earlier successful runs.
    pub async fn compare_runs(
        &self,
        namespace: &Name,
        id: RunId,
        with: Baseline,
    ) -> Result<RunComparison, Error> {
        let run = self.run_view(namespace, id).await?;
        let earlier = self.inner.db.store.earlier_successes(run.key, MAX_MEDIAN_RUNS).await?;
        let with = match (with, earlier.first()) {
            (Baseline::Run(with), _) | (Baseline::LastSuccess, Some(&with)) => with,
            (Baseline::LastSuccess, None) => {
                return Err(Error::Conflict(format!(
                    "no run of the graph {} has succeeded before this one; name the run to compare \
                     with",
                    run.graph
                )));
            }
        };
        let with = self.run_view(namespace, with).await?;
        let (is_one_graph, with_id) = (run.graph == with.graph, with.id);
        let (run, with) =
            (self.read_run(namespace, run).await?, self.read_run(namespace, with).await?);
        let median_runs = self.median_runs(namespace, &earlier, (with_id, &with.nodes)).await?;
        let revisions = (is_one_graph && run.run.revision != with.run.revision)
            .then(|| (run.graph.clone(), with.graph.clone(), with.run.revision, run.run.revision));
        let (nodes, with_nodes, medians) = (run.nodes, with.nodes, median_runs);
        let median_of = medians.len() as u64;
        let compute = move || {
            let changes =
                revisions.map(|(new, old, from, to)| revision_change(&old, &new, from, to));
            (compare(nodes, with_nodes, &medians), changes)
        };
        let (nodes, revisions) = self.computed(namespace, compute).await?;
        Ok(RunComparison { run: run.run, with: with.run, median_of, nodes, revisions })
    }

    /// Computes the statistics of a graph's runs.
    pub async fn graph_stats(
        &self,
        namespace: &Name,
        graph: &Name,
        interval: Interval,
    ) -> Result<GraphStats, Error> {
        self.check_list(namespace, Some(graph)).await?;
        let now = self.inner.db.clock.now();
        let to = interval.to.unwrap_or_else(|| now.saturating_add(1));
        let from = interval.from.unwrap_or_else(|| to.saturating_sub(STATS_INTERVAL_MS));
        let store = &self.inner.db.store;
        let runs = store.run_costs(namespace, graph, (from, to), MAX_STATS_RUNS).await?;
        let is_cut = runs.len() >= MAX_STATS_RUNS as usize;
        let name = graph.to_string();
        let compute = move || graph_stats(name, &runs, (from, to), interval.bins, is_cut);
        self.computed(namespace, compute).await
    }

    /// Reads the times of a run's states, by a permit if they are many.
    async fn state_times(
        &self,
        namespace: &Name,
        run: &RunView,
    ) -> Result<(Times, Option<AnswerPermit>), Error> {
        let states = states_of(run);
        let bytes = to_i64(states.saturating_mul(STATE_BYTES));
        let read = self.inner.db.store.state_times(run.key, states);
        let (read, permit) = self.inner.large_json.read(namespace, bytes, read).await?;
        let sample = sample(read.len(), states);
        Ok((Times { states: read, attempts: Vec::new(), sample }, permit))
    }

    /// Reads the nodes of a run for a comparison.
    async fn read_run(&self, namespace: &Name, run: RunView) -> Result<ReadRun, Error> {
        let info = self.inner.caches.runs.get(&self.inner.db.store, run.key).await?;
        let (times, permit) = self.state_times(namespace, &run).await?;
        let compared = ComparedRun {
            run: run.id.to_string(),
            graph: run.graph.to_string(),
            revision: to_u64(run.revision),
            status: run.status.as_str().to_owned(),
            created_at: run.created_at,
            took_ms: run.ended_at.map(|end| to_u64(end.saturating_sub(run.created_at))),
            sample: times.sample,
        };
        let graph = info.graph.clone();
        let summarise =
            move || NodeTimes::of_run(&graph, &run.node_counts, &times.states, times.sample);
        let nodes = self.computed(namespace, summarise).await?;
        drop(permit);
        Ok(ReadRun { run: compared, graph: info.graph.clone(), nodes })
    }

    /// Reads the nodes of earlier runs, if these have few states together. One of them may have been
    /// read already.
    async fn median_runs(
        &self,
        namespace: &Name,
        runs: &[RunId],
        (known, nodes_of_known): (RunId, &TimesByNode),
    ) -> Result<Vec<TimesByNode>, Error> {
        let mut views = Vec::new();
        for id in runs {
            // A run may have been deleted meanwhile.
            views.extend(self.inner.db.store.run(namespace, *id).await?);
        }
        views.retain(|run| run.status == RunStatus::Success);
        if views.iter().map(states_of).sum::<u64>() > MAX_MEDIAN_STATES {
            return Ok(Vec::new());
        }
        let mut all = Vec::new();
        for run in views {
            let nodes = if run.id == known {
                nodes_of_known.clone()
            } else {
                self.read_run(namespace, run).await?.nodes
            };
            all.push(nodes);
        }
        Ok(all)
    }

    /// Computes something from rows that were read, as host work in a turn of the namespace.
    async fn computed<T: Send + 'static>(
        &self,
        namespace: &Name,
        compute: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let turn = self.inner.host_work.turn(namespace).await;
        let bounds = Bounds::steps(REQUEST_STEPS);
        let done = self.inner.host_work.run(turn, bounds, move |_| compute()).await;
        Ok(done.map_err(|lost| Error::Internal(log_internal(&lost)))?.value)
    }
}

/// Returns the change from one revision of a graph to another, node by node.
fn revision_change(old: &Graph, new: &Graph, from: u64, to: u64) -> RevisionChange {
    let diff = diff(old, new);
    let has_other_changes =
        !diff.edges_added.is_empty() || !diff.edges_removed.is_empty() || !diff.settings.is_empty();
    RevisionChange {
        from,
        to,
        added: diff.added,
        removed: diff.removed,
        changed: diff.changed.into_iter().map(|node| node.identifier).collect(),
        has_other_changes,
    }
}

/// Returns the number of a run's states.
fn states_of(run: &RunView) -> u64 {
    to_u64(run.counters.states)
}

/// Returns the part of `of` states that were read. More than were counted have come since.
fn sample(read: usize, of: u64) -> Sample {
    let examined = read as u64;
    Sample { examined, of: of.max(examined) }
}

fn identifier_of(graph: &Graph, node: NodeIx) -> Option<String> {
    graph.get(node).map(|node| node.identifier.to_string())
}

fn to_u64(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
