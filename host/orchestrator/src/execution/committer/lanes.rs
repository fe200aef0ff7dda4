//! Commit order: lanes by urgency, namespaces round-robin within a lane, runs round-robin
//! within a namespace. It also cuts the batches, which are bounded by number and by
//! cost.
//!
//! Not here: locks, waiting and the database. All of it is plain data.

use std::collections::{HashMap, VecDeque};

use exosphere_domain::ids::{NamespaceKey, RunKey};

/// The urgency of an operation. Each lane has one queue per namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// Cancels and pauses: they are tiny, and a person waits for them.
    Urgent,
    /// Starts, retries, and records that a suspected poison state begins.
    Control,
    /// Ends of executions.
    End,
    /// Sweeps, redrives and removals: one piece in each batch.
    Background,
}

/// The bounds of one batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchBounds {
    /// The largest number of operations.
    pub operations: usize,
    /// The largest cost, in bytes. A heavier operation is committed alone.
    pub cost: u64,
    /// The cost from which an operation delays the rest of its batch. After a batch
    /// with a heavy operation comes one without, if any light one waits.
    pub heavy: u64,
}

/// The lane, namespace, run and cost of an operation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LaneCost {
    pub lane: Lane,
    pub namespace: NamespaceKey,
    pub run: RunKey,
    /// Bytes that the operation writes, its rows included.
    pub cost: u64,
}

/// All operations that wait.
pub(crate) struct Lanes<T> {
    urgent: NamespaceQueues<T>,
    control: NamespaceQueues<T>,
    ends: NamespaceQueues<T>,
    background: NamespaceQueues<T>,
    /// Lanes whose first operation did not fit into a batch. One of them opens the next
    /// batch, so that no stream of small operations starves a large one.
    owed: VecDeque<Lane>,
    /// Set if the last batch had urgent operations alone; the next batch takes all lanes.
    was_urgent: bool,
    /// Set if the last batch had a heavy operation; the next one has none, if a light one
    /// waits.
    was_heavy: bool,
}

/// A lane: a round-robin queue of namespaces.
struct NamespaceQueues<T> {
    order: VecDeque<NamespaceKey>,
    namespaces: HashMap<NamespaceKey, RunQueues<T>>,
}

/// A namespace in a lane: a round-robin queue of runs.
struct RunQueues<T> {
    order: VecDeque<RunKey>,
    runs: HashMap<RunKey, VecDeque<Entry<T>>>,
}

struct Entry<T> {
    cost: u64,
    item: T,
}

/// A batch that is being filled.
struct Filling<T> {
    items: Vec<T>,
    cost: u64,
    heaviest: u64,
    /// Set if the batch takes no heavy operation.
    is_light: bool,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Lanes {
            urgent: NamespaceQueues::default(),
            control: NamespaceQueues::default(),
            ends: NamespaceQueues::default(),
            background: NamespaceQueues::default(),
            owed: VecDeque::new(),
            was_urgent: false,
            was_heavy: false,
        }
    }
}

impl<T> Lanes<T> {
    pub(crate) fn is_empty(&self) -> bool {
        [&self.urgent, &self.control, &self.ends, &self.background]
            .iter()
            .all(|lane| lane.is_empty())
    }

    pub(crate) fn push(&mut self, lane_cost: LaneCost, item: T) {
        let LaneCost { lane, namespace, run, cost } = lane_cost;
        self.lane(lane).push(namespace, run, Entry { cost, item });
    }

    /// Takes the next batch out of the queue.
    pub(crate) fn take(&mut self, bounds: BatchBounds) -> Vec<T> {
        let mut batch = Filling::new(false);
        // Urgent operations do not wait for the bytes of other lanes, and other lanes do
        // not wait for a stream of urgent operations.
        if !self.urgent.is_empty() && !std::mem::replace(&mut self.was_urgent, true) {
            self.urgent.fill(&mut batch, bounds);
            return batch.items;
        }
        self.was_urgent = false;
        if std::mem::take(&mut self.was_heavy) {
            let mut light = Filling::new(true);
            self.control.fill(&mut light, bounds);
            self.ends.fill(&mut light, bounds);
            if !light.items.is_empty() {
                return light.items;
            }
        }
        if let Some(first) = self.owed.pop_front().and_then(|lane| self.lane(lane).next()) {
            batch.add(first);
        }
        if batch.cost < bounds.cost {
            self.fill(&mut batch, bounds);
        }
        self.was_heavy = batch.heaviest >= bounds.heavy;
        batch.items
    }

    fn fill(&mut self, batch: &mut Filling<T>, bounds: BatchBounds) {
        self.urgent.fill(batch, bounds);
        // Starts precede ends, but a stream of starts leaves them a quarter of the batch.
        let control = if self.ends.is_empty() {
            bounds
        } else {
            let (operations, cost) = (bounds.operations / 4 * 3, bounds.cost / 4 * 3);
            BatchBounds { operations, cost, ..bounds }
        };
        let owed = [
            (Lane::Control, self.control.fill(batch, control)),
            (Lane::End, self.ends.fill(batch, bounds)),
        ];
        for (lane, is_owed) in owed {
            if is_owed && !self.owed.contains(&lane) {
                self.owed.push_back(lane);
            }
        }
        // A sweep costs time and hardly any bytes, so each batch takes one piece of it.
        if let Some(piece) = self.background.next() {
            batch.add(piece);
        }
    }

    /// Lowers the costs of a run's operations that wait in a lane; `new_cost` returns
    /// each new cost.
    pub(crate) fn lower_costs(
        &mut self,
        lane: Lane,
        run: RunKey,
        mut new_cost: impl FnMut(&mut T) -> u64,
    ) {
        let namespaces = self.lane(lane).namespaces.values_mut();
        let operations = namespaces.filter_map(|runs| runs.runs.get_mut(&run)).flatten();
        operations.for_each(|entry| entry.cost = new_cost(&mut entry.item));
    }

    fn lane(&mut self, lane: Lane) -> &mut NamespaceQueues<T> {
        match lane {
            Lane::Urgent => &mut self.urgent,
            Lane::Control => &mut self.control,
            Lane::End => &mut self.ends,
            Lane::Background => &mut self.background,
        }
    }
}

impl<T> Filling<T> {
    fn new(is_light: bool) -> Self {
        Filling { items: Vec::new(), cost: 0, heaviest: 0, is_light }
    }

    fn add(&mut self, entry: Entry<T>) {
        self.cost = self.cost.saturating_add(entry.cost);
        self.heaviest = self.heaviest.max(entry.cost);
        self.items.push(entry.item);
    }

    /// Returns `true` if an operation of this cost fits. An empty batch takes any
    /// cost, unless it is a light one.
    fn has_room_for(&self, cost: u64, bounds: BatchBounds) -> bool {
        if self.is_light && cost >= bounds.heavy {
            return false;
        }
        self.items.is_empty() || self.cost.saturating_add(cost) <= bounds.cost
    }
}

impl<T> Default for NamespaceQueues<T> {
    fn default() -> Self {
        NamespaceQueues { order: VecDeque::new(), namespaces: HashMap::new() }
    }
}

impl<T> NamespaceQueues<T> {
    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn push(&mut self, namespace: NamespaceKey, run: RunKey, entry: Entry<T>) {
        let order = &mut self.order;
        let runs = self.namespaces.entry(namespace).or_insert_with(|| {
            order.push_back(namespace);
            RunQueues { order: VecDeque::new(), runs: HashMap::new() }
        });
        let order = &mut runs.order;
        let queue = runs.runs.entry(run).or_insert_with(|| {
            order.push_back(run);
            VecDeque::new()
        });
        queue.push_back(entry);
    }

    /// Adds operations to a batch, one of each namespace in turn. Returns `true` if the
    /// next operation of a namespace is too heavy for the rest; that namespace keeps its
    /// turn.
    fn fill(&mut self, batch: &mut Filling<T>, bounds: BatchBounds) -> bool {
        let mut passed = Vec::new();
        while batch.items.len() < bounds.operations
            && let Some(&namespace) = self.order.front()
        {
            if !self.cost(namespace).is_some_and(|cost| batch.has_room_for(cost, bounds)) {
                passed.extend(self.order.pop_front());
                continue;
            }
            if let Some(entry) = self.next() {
                batch.add(entry);
            }
        }
        let has_passed = !passed.is_empty();
        passed.into_iter().rev().for_each(|namespace| self.order.push_front(namespace));
        has_passed
    }

    /// Returns the cost of a namespace's next operation.
    fn cost(&self, namespace: NamespaceKey) -> Option<u64> {
        let runs = self.namespaces.get(&namespace)?;
        Some(runs.runs.get(runs.order.front()?)?.front()?.cost)
    }

    /// Takes the first operation of the namespace whose turn it is. Namespace and run
    /// move to the back if they have more.
    fn next(&mut self) -> Option<Entry<T>> {
        let namespace = self.order.pop_front()?;
        let runs = self.namespaces.get_mut(&namespace)?;
        let run = runs.order.pop_front()?;
        let queue = runs.runs.get_mut(&run)?;
        let entry = queue.pop_front();
        if queue.is_empty() {
            runs.runs.remove(&run);
        } else {
            runs.order.push_back(run);
        }
        if runs.order.is_empty() {
            self.namespaces.remove(&namespace);
        } else {
            self.order.push_back(namespace);
        }
        entry
    }
}

#[cfg(test)]
mod tests;
