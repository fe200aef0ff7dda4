//! The parts of one claim: divides its states among namespaces and, within a namespace, among
//! its runs. Pure: no database.
//!
//! Namespaces get equal parts. Within one, each state goes to the run with the fewest states in
//! this session. Runs with equal numbers are served round-robin, from where the last claim
//! ended. So a run waits for one state of each other run at most.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use exosphere_domain::ids::{Millis, NamespaceKey, RunKey, StateId};

use super::batch::{ClaimShares, Committed};

/// A run with ready states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReadyRun {
    /// The number of the queue: that of the namespace, or a negative one for the staged children of
    /// one execution.
    pub queue: i64,
    pub namespace: NamespaceKey,
    pub run: RunKey,
    /// The first ready state: when it was due, and its number.
    pub first: (Millis, StateId),
}

/// The runs with ready states that a claim examines.
#[derive(Debug, Default)]
pub(super) struct ReadyRuns {
    namespaces: BTreeMap<NamespaceKey, NamespaceRuns>,
    /// Round-robin cursors: for each namespace the run that got the last state.
    cursors: BTreeMap<NamespaceKey, RunKey>,
}

#[derive(Debug, Default)]
struct NamespaceRuns {
    /// The runs, in round-robin order.
    runs: Vec<ReadyRun>,
    /// Set if there may be more runs.
    has_more: bool,
}

/// Sorts the runs of a namespace into round-robin order: the one after the cursor is first.
pub(super) fn in_order(mut runs: Vec<ReadyRun>, cursor: Option<&RunKey>) -> Vec<ReadyRun> {
    let cursor = cursor.copied().unwrap_or(RunKey(0));
    runs.sort_by_key(|ready| (ready.run <= cursor, ready.run));
    runs
}

impl ReadyRuns {
    pub(super) fn new(cursors: &BTreeMap<NamespaceKey, RunKey>) -> Self {
        ReadyRuns { namespaces: BTreeMap::new(), cursors: cursors.clone() }
    }

    /// Adds up to `limit` runs of a namespace, which are in round-robin order.
    pub(super) fn add(&mut self, namespace: NamespaceKey, mut runs: Vec<ReadyRun>, limit: usize) {
        let has_more = runs.len() >= limit;
        runs.truncate(limit);
        self.namespaces.insert(namespace, NamespaceRuns { runs, has_more });
    }

    /// Divides `left` states among the runs. Returns the runs that get some, each with its part;
    /// empty if no run has share left.
    pub(super) fn parts(
        &mut self,
        left: u32,
        shares: &ClaimShares,
        rotation: usize,
    ) -> Vec<(ReadyRun, u32)> {
        let is_claimable = |(namespace, namespace_runs): &(NamespaceKey, &NamespaceRuns)| {
            let has_share = |ready: &ReadyRun| shares.remaining_of_run(ready.run) > 0;
            shares.remaining(*namespace) > 0 && namespace_runs.runs.iter().any(has_share)
        };
        let all =
            self.namespaces.iter().map(|(namespace, namespace_runs)| (*namespace, namespace_runs));
        let mut open: Vec<_> = all.filter(is_claimable).collect();
        if !open.is_empty() {
            // The first namespace rotates with each claim, so that each gets its turn if a claim
            // takes fewer states than there are namespaces.
            let first = rotation % open.len();
            open.rotate_left(first);
        }
        let (mut left, mut parts) = (left, Vec::new());
        for (at, (namespace, namespace_runs)) in open.iter().enumerate() {
            let part = left.div_ceil((open.len() - at) as u32).min(shares.remaining(*namespace));
            let (of_runs, last) = namespace_runs.parts(part, shares);
            left -= of_runs.iter().map(|(_, part)| part).sum::<u32>();
            self.cursors.extend(last.map(|run| (*namespace, run)));
            parts.extend(of_runs);
        }
        parts
    }

    /// Removes a run that has no more ready states.
    pub(super) fn close(&mut self, ready: &ReadyRun) {
        if let Some(namespace_runs) = self.namespaces.get_mut(&ready.namespace) {
            namespace_runs.runs.retain(|other| other.run != ready.run);
        }
    }

    /// Returns whether none of the examined runs has ready states left, and no other run may have.
    pub(super) fn is_exhausted(&self) -> bool {
        self.namespaces
            .values()
            .all(|namespace_runs| namespace_runs.runs.is_empty() && !namespace_runs.has_more)
    }

    /// Records namespaces and runs with more due states than their shares allow. Returns whether
    /// more states may be claimable within the shares.
    pub(super) fn record_saturated(&self, shares: &ClaimShares, done: &mut Committed) -> bool {
        let mut more_due = false;
        for (namespace, namespace_runs) in &self.namespaces {
            if namespace_runs.runs.is_empty() && !namespace_runs.has_more {
                continue;
            }
            if shares.remaining(*namespace) == 0 {
                done.saturated.insert(*namespace);
                continue;
            }
            more_due |= namespace_runs.has_more;
            for ready in &namespace_runs.runs {
                match shares.remaining_of_run(ready.run) {
                    0 => drop(done.saturated_runs.insert((*namespace, ready.run))),
                    _ => more_due = true,
                }
            }
        }
        more_due
    }

    /// Returns the round-robin cursors of namespaces that have ready states.
    pub(super) fn cursors(mut self) -> BTreeMap<NamespaceKey, RunKey> {
        self.cursors.retain(|namespace, _| self.namespaces.contains_key(namespace));
        self.cursors
    }
}

impl NamespaceRuns {
    /// Divides `part` among the runs; also returns the run that gets the last state.
    fn parts(&self, part: u32, shares: &ClaimShares) -> (Vec<(ReadyRun, u32)>, Option<RunKey>) {
        let held = |ready: &ReadyRun| shares.runs.get(&ready.run).map_or(0, |share| share.held);
        let mut granted = vec![0; self.runs.len()];
        let mut next: BinaryHeap<_> =
            self.runs.iter().enumerate().map(|(at, ready)| Reverse((held(ready), at))).collect();
        let (mut left, mut last) = (part, None);
        while left > 0 {
            let Some(Reverse((held, at))) = next.pop() else { break };
            if granted[at] >= shares.remaining_of_run(self.runs[at].run) {
                continue;
            }
            granted[at] += 1;
            left -= 1;
            last = Some(self.runs[at].run);
            next.push(Reverse((held + 1, at)));
        }
        let parts = self.runs.iter().copied().zip(granted).filter(|(_, part)| *part > 0);
        (parts.collect(), last)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::commit::batch::RunShare;

    const N: NamespaceKey = NamespaceKey(1);

    fn ready_run(namespace: NamespaceKey, run: i64) -> ReadyRun {
        ReadyRun { queue: namespace.0, namespace, run: RunKey(run), first: (0, StateId(run)) }
    }

    fn ready_runs(
        runs: &[i64],
        cursors: &BTreeMap<NamespaceKey, RunKey>,
        limit: usize,
    ) -> ReadyRuns {
        let mut lines = ReadyRuns::new(cursors);
        let runs = runs.iter().map(|run| ready_run(N, *run)).collect();
        lines.add(N, in_order(runs, cursors.get(&N)), limit);
        lines
    }

    /// Returns the numbers of the runs, each with its part.
    fn numbers(parts: &[(ReadyRun, u32)]) -> Vec<(i64, u32)> {
        parts.iter().map(|(line, part)| (line.run.0, *part)).collect()
    }

    fn held(runs: &[(i64, u32, u32)]) -> ClaimShares {
        let share = |&(run, held, left): &(i64, u32, u32)| (RunKey(run), RunShare { held, left });
        ClaimShares { runs: runs.iter().map(share).collect(), ..ClaimShares::unbounded() }
    }

    #[test]
    fn states_go_to_runs_holding_least() {
        let no_cursors = BTreeMap::new();
        let parts = ready_runs(&[1, 2, 3], &no_cursors, 99).parts(7, &ClaimShares::unbounded(), 0);
        assert_eq!(numbers(&parts), [(1, 3), (2, 2), (3, 2)]);
        let shares = held(&[(1, 4, 9), (3, 1, 1)]);
        let parts = ready_runs(&[1, 2, 3], &no_cursors, 99).parts(7, &shares, 0);
        assert_eq!(numbers(&parts), [(1, 1), (2, 5), (3, 1)]);
    }

    #[test]
    fn exhausted_shares_are_reported() {
        let shares =
            ClaimShares { default: 2, left: HashMap::new(), runs: held(&[(1, 4, 0)]).runs };
        let mut lines = ready_runs(&[1, 2], &BTreeMap::new(), 99);
        let parts = lines.parts(7, &shares, 0);
        assert_eq!(numbers(&parts), [(2, 2)]);
        let mut done = Committed::default();
        assert!(lines.record_saturated(&shares, &mut done), "run 2 has more");
        assert_eq!(done.saturated_runs, [(N, RunKey(1))].into());
        let saturated = ClaimShares { left: [(N, 0)].into(), ..shares };
        let mut done = Committed::default();
        assert!(!lines.record_saturated(&saturated, &mut done));
        assert_eq!(done.saturated, [N].into());
        assert!(lines.parts(7, &saturated, 0).is_empty());
    }

    #[test]
    fn namespaces_get_equal_parts() {
        let other = NamespaceKey(2);
        let mut lines = ReadyRuns::new(&BTreeMap::new());
        lines.add(N, vec![ready_run(N, 1)], 99);
        lines.add(other, vec![ready_run(other, 2)], 99);
        let shares = ClaimShares::unbounded();
        assert_eq!(numbers(&lines.parts(7, &shares, 0)), [(1, 4), (2, 3)]);
        assert_eq!(numbers(&lines.parts(7, &shares, 1)), [(2, 4), (1, 3)]);
    }

    /// A waiting run is served within one round of the existing runs, however many arrive and
    /// wherever they sort.
    #[test]
    fn no_run_starves() {
        let mut random = 1u64;
        let mut below = |bound: u64| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) % bound
        };
        for _ in 0..200 {
            let mut cursors = BTreeMap::new();
            // The wait of each run, counted in states that other runs got.
            let mut waits: BTreeMap<i64, u64> = BTreeMap::new();
            let mut next = 1000;
            let mut arrived = 0;
            for _ in 0..100 {
                for _ in 0..below(4) {
                    next = if below(2) == 0 { next + 1 } else { 1 + below(999) as i64 };
                    waits.entry(next).or_insert_with(|| {
                        arrived += 1;
                        0
                    });
                }
                let runs: Vec<_> = waits.keys().copied().collect();
                if runs.is_empty() {
                    continue;
                }
                let free_claims = 1 + below(5) as u32;
                // The database returns the runs after the cursor, up to this limit.
                let limit = free_claims as usize;
                let mut lines = ready_runs(&runs, &cursors, limit);
                let parts = numbers(&lines.parts(free_claims, &ClaimShares::unbounded(), 0));
                assert_eq!(parts.iter().map(|(_, part)| part).sum::<u32>(), free_claims);
                cursors = lines.cursors();
                for (run, wait) in &mut waits {
                    *wait += u64::from(free_claims);
                    if parts.iter().any(|(of, _)| of == run) {
                        *wait = 0;
                    }
                    // One state of each other run, and the rest of this part.
                    assert!(*wait <= arrived + 5, "run {run} waits for {wait} states of {arrived}");
                }
                if below(3) == 0 {
                    let drained = runs[below(runs.len() as u64) as usize];
                    waits.remove(&drained);
                }
            }
        }
    }
}
