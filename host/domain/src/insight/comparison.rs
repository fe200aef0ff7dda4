//! The comparison of a run with another one, node by node, and with the medians of earlier runs.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{Sample, StateTimes, percentile};
use crate::graph::Graph;
use crate::ids::NodeIx;
use crate::json::Typed;
use crate::node_counts::{NodeCount, NodeCounts};

/// The comparison of two runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunComparison {
    /// The run.
    pub run: ComparedRun,
    /// The run that it is compared with.
    pub with: ComparedRun,
    /// The number of earlier successful runs of which the nodes have medians; 0 if they were too
    /// large to be read.
    pub median_of: u64,
    /// The nodes of both runs: those of the run in the order of its graph, then those that only the
    /// other run has.
    pub nodes: Vec<ComparedNode>,
    /// The difference of their revisions; null if they have the same one, or are of different
    /// graphs.
    #[serde(default)]
    pub revisions: Option<RevisionChange>,
}

/// A run of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ComparedRun {
    /// The id of the run.
    pub run: String,
    /// The graph of the run.
    pub graph: String,
    /// The number of the graph's revision.
    pub revision: u64,
    /// The status of the run.
    pub status: String,
    /// The time at which the run was started, in milliseconds since 1970 (UTC).
    pub created_at: i64,
    /// The time from the begin of the run to its end, in milliseconds; null while it has not ended.
    #[serde(default)]
    pub took_ms: Option<u64>,
    /// The states from which its times were made.
    pub sample: Sample,
}

/// A node of two runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ComparedNode {
    /// The identifier of the node.
    pub identifier: String,
    /// The node in the run; null if the run's graph has none.
    #[serde(default)]
    pub run: Option<NodeTimes>,
    /// The node in the other run; null if that run's graph has none.
    #[serde(default)]
    pub with: Option<NodeTimes>,
    /// The medians of the node in earlier successful runs; null if there are none, or if they were
    /// too large to be read.
    #[serde(default)]
    pub median: Option<NodeTimes>,
}

/// The states of a node in a run, and their times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeTimes {
    /// The number of states.
    pub states: u64,
    /// The number of states that have not ended.
    pub open: u64,
    /// The number of states that succeeded.
    pub success: u64,
    /// The number of states that were pruned.
    pub pruned: u64,
    /// The number of states that failed.
    pub errored: u64,
    /// The number of states that were cancelled.
    pub cancelled: u64,
    /// The number of retries.
    pub retries: u64,
    /// The sum of the run times of the states' last attempts, in milliseconds.
    pub total_ms: u64,
    /// Their median, in milliseconds; null if none has ended.
    #[serde(default)]
    pub p50_ms: Option<u64>,
    /// The largest, in milliseconds; null if none has ended.
    #[serde(default)]
    pub max_ms: Option<u64>,
}

/// The difference of two revisions of a graph.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RevisionChange {
    /// The revision of the other run.
    pub from: u64,
    /// The revision of the run.
    pub to: u64,
    /// The identifiers of nodes that only the run has.
    pub added: Vec<String>,
    /// The identifiers of nodes that only the other run has.
    pub removed: Vec<String>,
    /// The identifiers of nodes that both have and that differ.
    pub changed: Vec<String>,
    /// Set if edges or settings of the graph differ.
    pub has_other_changes: bool,
}

impl Typed for RunComparison {}

/// The nodes of a run, by their identifiers, in the order of the graph.
pub type TimesByNode = Vec<(String, NodeTimes)>;

impl NodeTimes {
    /// Summarises the states of each node of a run.
    pub fn of_run(
        graph: &Graph,
        counts: &NodeCounts,
        states: &[StateTimes],
        sample: Sample,
    ) -> TimesByNode {
        let mut by_node: HashMap<NodeIx, Vec<u64>> = HashMap::new();
        for state in states {
            by_node.entry(state.node).or_default().extend(state.run_ms());
        }
        let times = graph.nodes().map(|(at, node)| {
            let mut times = by_node.remove(&at).unwrap_or_default();
            times.sort_unstable();
            let times = NodeTimes {
                total_ms: sample.scaled(times.iter().sum()),
                p50_ms: percentile(&times, 50),
                max_ms: times.last().copied(),
                ..NodeTimes::of_counts(counts.get(at))
            };
            (node.identifier.to_string(), times)
        });
        times.collect()
    }

    fn of_counts(count: NodeCount) -> Self {
        let open = count.waiting + count.active;
        let ended = count.succeeded + count.pruned + count.errored + count.cancelled;
        NodeTimes {
            states: open + ended,
            open,
            success: count.succeeded,
            pruned: count.pruned,
            errored: count.errored,
            cancelled: count.cancelled,
            retries: count.retries,
            ..NodeTimes::default()
        }
    }

    /// Returns the medians of the same node in several runs.
    fn median(all: &[NodeTimes]) -> Option<Self> {
        let median = |field: fn(&NodeTimes) -> Option<u64>| {
            let mut values: Vec<u64> = all.iter().filter_map(field).collect();
            values.sort_unstable();
            percentile(&values, 50)
        };
        let of = |field: fn(&NodeTimes) -> Option<u64>| median(field).unwrap_or_default();
        (!all.is_empty()).then(|| NodeTimes {
            states: of(|it| Some(it.states)),
            open: of(|it| Some(it.open)),
            success: of(|it| Some(it.success)),
            pruned: of(|it| Some(it.pruned)),
            errored: of(|it| Some(it.errored)),
            cancelled: of(|it| Some(it.cancelled)),
            retries: of(|it| Some(it.retries)),
            total_ms: of(|it| Some(it.total_ms)),
            p50_ms: median(|it| it.p50_ms),
            max_ms: median(|it| it.max_ms),
        })
    }
}

/// Compares the nodes of two runs, and with the medians of others.
pub fn compare(run: TimesByNode, with: TimesByNode, earlier: &[TimesByNode]) -> Vec<ComparedNode> {
    let mut medians: HashMap<&str, Vec<NodeTimes>> = HashMap::new();
    for (identifier, times) in earlier.iter().flatten() {
        medians.entry(identifier).or_default().push(*times);
    }
    let median = |identifier: &str| NodeTimes::median(medians.get(identifier)?);
    let mut others: HashMap<String, NodeTimes> = with.iter().cloned().collect();
    let mut nodes: Vec<ComparedNode> = run
        .into_iter()
        .map(|(identifier, times)| ComparedNode {
            run: Some(times),
            with: others.remove(&identifier),
            median: median(&identifier),
            identifier,
        })
        .collect();
    let removed = with.into_iter().filter(|(identifier, _)| others.contains_key(identifier));
    nodes.extend(removed.map(|(identifier, times)| ComparedNode {
        run: None,
        with: Some(times),
        median: median(&identifier),
        identifier,
    }));
    nodes
}

#[cfg(test)]
mod tests {
    use super::super::tests::ended;
    use super::*;
    use crate::state::Status;

    fn named(identifier: &str, total_ms: u64) -> (String, NodeTimes) {
        (identifier.to_owned(), NodeTimes { total_ms, states: 1, ..NodeTimes::default() })
    }

    #[test]
    fn nodes_are_compared_by_identifier() {
        let earlier = vec![vec![named("a", 1)], vec![named("a", 9)], vec![named("a", 4)]];
        let nodes = compare(
            vec![named("a", 5), named("new", 1)],
            vec![named("old", 2), named("a", 3)],
            &earlier,
        );
        let shown: Vec<_> = nodes
            .iter()
            .map(|node| {
                let total = |times: &Option<NodeTimes>| times.as_ref().map(|it| it.total_ms);
                let identifier = node.identifier.as_str();
                (identifier, total(&node.run), total(&node.with), total(&node.median))
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("a", Some(5), Some(3), Some(4)),
                ("new", Some(1), None, None),
                ("old", None, Some(2), None)
            ]
        );
    }

    #[test]
    fn states_are_summarised_by_node() {
        let graph = crate::graph::testing::GraphBuilder::from_text("A > B").build().unwrap();
        let mut counts = NodeCounts::default();
        counts.add(NodeIx(0), Status::Success, 1);
        counts.add(NodeIx(1), Status::Success, 2);
        counts.add(NodeIx(1), Status::Created, 1);
        let at = |node, state: StateTimes| StateTimes { node: NodeIx(node), ..state };
        let open = StateTimes { ended_at: None, ..ended(4, 0, 0, 0) };
        let states = [
            at(0, ended(1, 0, 0, 10)),
            at(1, ended(2, 0, 0, 3)),
            at(1, ended(3, 0, 0, 5)),
            at(1, open),
        ];
        let times = NodeTimes::of_run(&graph, &counts, &states, Sample::default());
        let (identifier, second) = &times[1];
        assert_eq!(identifier, "B");
        let shown = (second.states, second.open, second.success, second.total_ms);
        assert_eq!(shown, (3, 1, 2, 8));
        assert_eq!((second.p50_ms, second.max_ms), (Some(3), Some(5)));
    }
}
