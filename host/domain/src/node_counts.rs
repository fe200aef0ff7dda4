//! The states of a run, counted for each node, as one compact text of the run's row.
//!
//! Not here: the counters of the whole run, and the counts by which unites close
//! ([`Counts`](crate::state::Counts)).

use std::fmt::Write;

use crate::graph::MAX_NODES;
use crate::ids::NodeIx;
use crate::state::Status;

/// The fields of a node in the text, in this order.
const FIELDS: usize = 10;

/// The counts of the states at one node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeCount {
    /// Unites that wait for their members.
    pub waiting: u64,
    /// States that are CREATED or QUEUED. A claim does not write the run's row, so the two are
    /// told apart by the states' rows alone.
    pub active: u64,
    /// States that are SUCCESS.
    pub succeeded: u64,
    /// States that are PRUNED.
    pub pruned: u64,
    /// States that are ERRORED.
    pub errored: u64,
    /// States that are CANCELLED.
    pub cancelled: u64,
    /// Failed attempts that another attempt followed.
    pub retries: u64,
    /// CPU time of all attempts that committed, in microseconds.
    pub cpu_us: u64,
    /// Time from begin to commit of all attempts that committed, in milliseconds.
    pub run_ms: u64,
    /// The longest of these times, in milliseconds.
    pub max_run_ms: u64,
}

impl NodeCount {
    /// Returns the count of the states with a status; CREATED and QUEUED have one together.
    pub fn with_status(&self, status: Status) -> u64 {
        let mut copy = *self;
        *copy.field_of(status)
    }

    fn field_of(&mut self, status: Status) -> &mut u64 {
        match status {
            Status::Waiting => &mut self.waiting,
            Status::Created | Status::Queued => &mut self.active,
            Status::Success => &mut self.succeeded,
            Status::Pruned => &mut self.pruned,
            Status::Errored => &mut self.errored,
            Status::Cancelled => &mut self.cancelled,
        }
    }

    fn fields(&mut self) -> [&mut u64; FIELDS] {
        [
            &mut self.waiting,
            &mut self.active,
            &mut self.succeeded,
            &mut self.pruned,
            &mut self.errored,
            &mut self.cancelled,
            &mut self.retries,
            &mut self.cpu_us,
            &mut self.run_ms,
            &mut self.max_run_ms,
        ]
    }
}

/// The counts of a run's nodes, by node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeCounts(Vec<NodeCount>);

impl NodeCounts {
    /// Returns the counts of a node.
    pub fn get(&self, node: NodeIx) -> NodeCount {
        self.0.get(node.at()).copied().unwrap_or_default()
    }

    fn entry(&mut self, node: NodeIx) -> &mut NodeCount {
        if self.0.len() <= node.at() {
            self.0.resize(node.at() + 1, NodeCount::default());
        }
        &mut self.0[node.at()]
    }

    /// Counts new states at a node.
    pub fn add(&mut self, node: NodeIx, status: Status, states: u64) {
        let count = self.entry(node).field_of(status);
        *count = count.saturating_add(states);
    }

    /// Counts a state whose status changes.
    pub fn change(&mut self, node: NodeIx, from: Status, to: Status) {
        let entry = self.entry(node);
        let left = entry.field_of(from);
        *left = left.saturating_sub(1);
        *entry.field_of(to) += 1;
    }

    /// Counts a retry.
    pub fn add_retry(&mut self, node: NodeIx) {
        self.entry(node).retries += 1;
    }

    /// Adds the CPU time of an attempt, in microseconds.
    pub fn add_cpu(&mut self, node: NodeIx, cpu_us: u64) {
        let entry = self.entry(node);
        entry.cpu_us = entry.cpu_us.saturating_add(cpu_us);
    }

    /// Adds the time of an attempt, in milliseconds.
    pub fn add_run_time(&mut self, node: NodeIx, run_ms: u64) {
        let entry = self.entry(node);
        entry.run_ms = entry.run_ms.saturating_add(run_ms);
        entry.max_run_ms = entry.max_run_ms.max(run_ms);
    }

    /// Formats the counts: `node:field,field,..` for each node with a count, joined by `;`. A field
    /// of 0 is empty, and trailing commas are left out.
    pub fn encode(&self) -> String {
        let mut text = String::with_capacity(16 * self.0.len());
        for (at, count) in self.0.iter().enumerate().filter(|(_, count)| !count.is_empty()) {
            if !text.is_empty() {
                text.push(';');
            }
            // Writing to a String cannot fail.
            let _ = write!(text, "{at}:");
            let mut commas = 0;
            for (field, value) in { *count }.fields().into_iter().enumerate() {
                if *value == 0 {
                    continue;
                }
                text.extend(std::iter::repeat_n(',', field - commas));
                commas = field;
                let _ = write!(text, "{value}");
            }
        }
        text
    }

    /// Parses what [`encode`](Self::encode) formats. Returns `None` for any other text, and for
    /// more nodes than a graph may have.
    pub fn decode(text: &str) -> Option<Self> {
        let mut counts = NodeCounts::default();
        for part in text.split(';').filter(|part| !part.is_empty()) {
            let (node, fields) = part.split_once(':')?;
            let node = node.parse().ok().filter(|node: &u32| (*node as usize) < MAX_NODES)?;
            let entry = counts.entry(NodeIx(node));
            let mut expected = entry.fields().into_iter();
            for field in fields.split(',') {
                let to = expected.next()?;
                *to = if field.is_empty() { 0 } else { field.parse().ok()? };
            }
        }
        Some(counts)
    }
}

impl NodeCount {
    fn is_empty(&self) -> bool {
        *self == NodeCount::default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counts_follow_a_state() {
        let mut counts = NodeCounts::default();
        let node = NodeIx(2);
        counts.add(node, Status::Waiting, 1);
        counts.add(node, Status::Created, 2);
        counts.change(node, Status::Waiting, Status::Queued);
        counts.change(node, Status::Queued, Status::Success);
        counts.add_retry(node);
        counts.add_cpu(node, 70);
        counts.add_run_time(node, 5);
        counts.add_run_time(node, 3);
        let count = NodeCount {
            active: 2,
            succeeded: 1,
            retries: 1,
            cpu_us: 70,
            run_ms: 8,
            max_run_ms: 5,
            ..NodeCount::default()
        };
        assert_eq!(counts.get(node), count);
        assert_eq!(counts.encode(), "2:,2,1,,,,1,70,8,5");
        assert_eq!(counts.get(NodeIx(9)), NodeCount::default());
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["0", "0:x", "1000:1", "-1:1", "0:1,2,3,4,5,6,7,8,9,10,11", "0:-1", "0:1 "] {
            assert_eq!(NodeCounts::decode(text), None, "{text}");
        }
        assert_eq!(NodeCounts::decode(""), Some(NodeCounts::default()));
    }

    proptest! {
        #[test]
        fn encoded_counts_are_decoded(all in prop::collection::vec(
            prop::array::uniform10(prop_oneof![Just(0), 0..100u64, any::<u64>()]), 0..8)) {
            let mut counts = NodeCounts::default();
            for (at, values) in all.iter().enumerate() {
                let entry = counts.entry(NodeIx(at as u32));
                for (to, value) in entry.fields().into_iter().zip(values) {
                    *to = *value;
                }
            }
            let decoded = NodeCounts::decode(&counts.encode()).unwrap();
            for at in 0..all.len() as u32 {
                prop_assert_eq!(decoded.get(NodeIx(at)), counts.get(NodeIx(at)));
            }
        }
    }
}
