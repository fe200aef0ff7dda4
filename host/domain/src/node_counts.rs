//! The states of a run, counted for each node, as one compact text of the run's row.
//!
//! Not here: the counters of the whole run, and the counts by which unites close
//! ([`Counts`](crate::state::Counts)).

use std::fmt::Write;

use crate::graph::MAX_NODES;
use crate::ids::NodeIx;
use crate::state::Status;

/// The fields of a node in the text, in this order.
const FIELDS: usize = 7;

/// The text is padded to a multiple of this length, so that it seldom changes its length: SQLite
/// rewrites a whole row, with inputs of any size, when the length of the row changes.
pub const PADDING: usize = 64;

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

    /// Formats the counts: `first-last:field,field,..` for each range of nodes with the same counts,
    /// joined by `;`. Nodes without a count are left out, a field of 0 is empty, and trailing commas
    /// are left out. So the text of a long chain is short: its nodes have the same counts. Further
    /// `;` pad it to a multiple of [`PADDING`].
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let mut nodes = self.0.iter().enumerate().peekable();
        while let Some((first, count)) = nodes.next() {
            let mut last = first;
            while let Some((node, _)) = nodes.next_if(|(_, next)| *next == count) {
                last = node;
            }
            if count.is_empty() {
                continue;
            }
            let separator = if text.is_empty() { "" } else { ";" };
            // Writing to a String cannot fail.
            let _ = write!(text, "{separator}{first}-{last}:");
            let mut commas = 0;
            for (field, value) in { *count }.fields().into_iter().enumerate() {
                if *value > 0 {
                    text.extend(std::iter::repeat_n(',', field - commas));
                    commas = field;
                    let _ = write!(text, "{value}");
                }
            }
        }
        let length = text.len().next_multiple_of(PADDING).max(PADDING);
        text.extend(std::iter::repeat_n(';', length - text.len()));
        text
    }

    /// Parses what [`encode`](Self::encode) formats. Returns `None` for any other text, and for
    /// more nodes than a graph may have.
    pub fn decode(text: &str) -> Option<Self> {
        let mut counts = NodeCounts::default();
        for part in text.split(';').filter(|part| !part.is_empty()) {
            let (nodes, fields) = part.split_once(':')?;
            let (first, last) = nodes.split_once('-')?;
            let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
            if first < counts.0.len() || last < first || last >= MAX_NODES {
                return None;
            }
            let count = NodeCount::decode(fields)?;
            counts.0.resize(first, NodeCount::default());
            counts.0.resize(last + 1, count);
        }
        Some(counts)
    }
}

impl NodeCount {
    fn decode(fields: &str) -> Option<Self> {
        let mut count = NodeCount::default();
        let mut targets = count.fields().into_iter();
        for field in fields.split(',') {
            let target = targets.next()?;
            *target = if field.is_empty() { 0 } else { field.parse().ok()? };
        }
        drop(targets);
        Some(count)
    }

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
        let count = NodeCount { active: 2, succeeded: 1, retries: 1, ..NodeCount::default() };
        assert_eq!(counts.get(node), count);
        assert_eq!(counts.encode(), format!("{:;<64}", "2-2:,2,1,,,,1"));
        assert_eq!(counts.get(NodeIx(9)), NodeCount::default());
    }

    #[test]
    fn other_texts_are_refused() {
        let bad = [
            "0",
            "0:1",
            "0-0:x",
            "0-1000:1",
            "1-0:1",
            "-1-0:1",
            "0-0:1,2,3,4,5,6,7,8",
            "0-0:-1",
            "0-0:1 ",
            "1-2:1;2-3:1",
            "1-2:1;0-0:1",
        ];
        for text in bad {
            assert_eq!(NodeCounts::decode(text), None, "{text}");
        }
        assert_eq!(NodeCounts::decode(""), Some(NodeCounts::default()));
    }

    #[test]
    fn the_text_of_a_chain_is_short() {
        let mut counts = NodeCounts::default();
        for node in 0..500 {
            counts.add(NodeIx(node), Status::Success, 1);
        }
        counts.add(NodeIx(500), Status::Created, 1);
        assert_eq!(counts.encode(), format!("{:;<64}", "0-499:,,1;500-500:,1"));
        assert_eq!(NodeCounts::decode(&counts.encode()), Some(counts));
    }

    proptest! {
        #[test]
        fn encoded_counts_are_decoded(all in prop::collection::vec(
            prop::array::uniform7(prop_oneof![Just(0), 0..3u64, any::<u64>()]), 0..8)) {
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
