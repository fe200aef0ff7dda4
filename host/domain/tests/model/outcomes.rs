//! Random outcomes of executions. A draw depends on the state's path and the number of its
//! executions, never on the order in which states were created.
//!
//! Not here: the effects of an outcome.

use exosphere_domain::testing::SeededRng;

use crate::shape::Graph;

/// The outcome of one execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScriptedOutcome {
    /// A success with this many outputs.
    Outputs(u32),
    /// A prune: the branch ends.
    Prune,
    /// A requeue: the state runs again later.
    Requeue,
    /// A failure of this kind.
    Fail(&'static str),
    /// A poison state: its execution ends the host, with all the host's claims.
    KillsHost,
    /// A release: the host stopped before the execution began.
    Released,
    /// A store conflict: a key had changed.
    Conflict,
}

/// The outcomes of one run.
#[derive(Debug, Clone)]
pub struct RandomOutcomes {
    /// The seed of all draws.
    pub seed: u64,
    /// Percentage of executions that fail.
    pub fails: u32,
    /// Percentage of executions that prune their branch.
    pub prunes: u32,
    /// Percentage of executions that requeue.
    pub repeats: u32,
    /// Maximum number of outputs.
    pub fanout: u32,
}

/// Maximum number of executions of a state that do not end it.
const MAX_DISTURBED_EXECUTIONS: u32 = 12;

impl RandomOutcomes {
    /// Draws the outcome of an execution of the state at `key`, which has ended `before` times. An
    /// execution lost with its host counts only if it killed that host, so that no draw depends on
    /// other states.
    pub fn draw(&self, key: &str, before: u32) -> ScriptedOutcome {
        // Some states have the same fault at each attempt.
        let draw = SeededRng::from_parts(self.seed ^ 1, key, 0).below(100);
        let mut rng = SeededRng::from_parts(self.seed, key, before);
        // A run whose root fails ends immediately and tests little, so roots fail less often.
        let divisor = if key == "/" { 6 } else { 1 };
        match (draw, before) {
            (0, ..MAX_DISTURBED_EXECUTIONS) if self.repeats > 0 => {
                return ScriptedOutcome::KillsHost;
            }
            (1, ..MAX_DISTURBED_EXECUTIONS) if self.repeats > 0 => {
                return ScriptedOutcome::Conflict;
            }
            _ => {}
        }
        if before < MAX_DISTURBED_EXECUTIONS && rng.percent(self.repeats) {
            let kinds =
                [ScriptedOutcome::Requeue, ScriptedOutcome::Released, ScriptedOutcome::Conflict];
            return rng.pick(&kinds).unwrap().clone();
        }
        if rng.percent(self.fails / divisor) {
            let kinds =
                ["retryable", "retryable", "timeout", "permanent", "permanent", "invalid-output"];
            return ScriptedOutcome::Fail(if before < MAX_DISTURBED_EXECUTIONS {
                rng.pick(&kinds).unwrap()
            } else {
                "permanent"
            });
        }
        if rng.percent(self.prunes / divisor) {
            return ScriptedOutcome::Prune;
        }
        // An empty output is a case of its own, and rare.
        if rng.percent(8 / divisor) {
            return ScriptedOutcome::Outputs(0);
        }
        ScriptedOutcome::Outputs(1 + rng.below(self.fanout as usize) as u32)
    }
}

/// Returns the largest fanout, up to 4, with which a run has at most `max` states in every case.
pub fn max_fanout(graph: &Graph, max: u64) -> Option<u32> {
    (1..=4).rev().find(|fanout| {
        let states = (0..graph.nodes.len()).map(|node| max_states_at(graph, node, *fanout));
        states.fold(0, u64::saturating_add) <= max
    })
}

/// Returns the maximum number of states at a node.
fn max_states_at(graph: &Graph, node: usize, fanout: u32) -> u64 {
    if let Some(unites) = &graph.nodes[node].unites {
        return max_states_at(graph, unites.source, fanout);
    }
    let parents: Vec<_> =
        (0..graph.nodes.len()).filter(|&at| graph.nodes[at].next.contains(&node)).collect();
    if parents.is_empty() {
        return 1;
    }
    parents
        .into_iter()
        .map(|parent| max_states_at(graph, parent, fanout).saturating_mul(fanout.into()))
        .fold(0, u64::saturating_add)
}
