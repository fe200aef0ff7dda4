//! The pacing of the commit loop: how many states each commit may claim, and when the
//! next one is due. It is plain data, updated by commits and hints.
//!
//! Not here: the prefetch targets (`prefetch`), the claimed states (`claims`), and the
//! wait itself (the loop).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use exosphere_domain::ids::{Millis, NamespaceKey, RunKey};
use exosphere_store::{ClaimMode, ClaimShares, Committed, RunShare, StagedQueues};
use tokio::time::Instant;

use super::mailbox::WorkHint;
use crate::execution::claims::ClaimCounts;
use crate::execution::prefetch::Target;

/// Maximum age, in milliseconds, of the list of staged children's queues. Until then, a claim does
/// not look for queues that other hosts have added, unless their notification reports work.
const MAX_QUEUES_AGE: Millis = 100;

/// The commit loop's knowledge of due states, and the round-robin order of namespaces and
/// runs.
pub(super) struct Pacing {
    /// Set if more due states may be left to claim.
    more_due: bool,
    /// The time at which the next state is due, by the clock of [`WorkHint::now`].
    next_due: Option<Millis>,
    /// The last known time by that clock, with the instant at which it was read.
    clock_anchor: (Instant, Millis),
    /// Namespaces that have more due states than their share here allows now.
    saturated: BTreeSet<NamespaceKey>,
    /// Runs that have more due states than their share here allows now.
    saturated_runs: BTreeSet<(NamespaceKey, RunKey)>,
    /// The number of commits so far, which selects the namespace that the next claim serves first.
    commits: usize,
    /// Round-robin cursors: where the next claim continues among the runs of each
    /// namespace.
    cursors: BTreeMap<NamespaceKey, RunKey>,
    /// The queues of staged children that the last claim has left.
    staged_queues: StagedQueues,
}

impl Pacing {
    /// Creates the pacing of a loop that has committed nothing yet, so that states may be
    /// due. `now` is the time of this host.
    pub(super) fn new(now: Millis) -> Self {
        Pacing {
            more_due: true,
            next_due: None,
            clock_anchor: (Instant::now(), now),
            saturated: BTreeSet::new(),
            saturated_runs: BTreeSet::new(),
            commits: 0,
            cursors: BTreeMap::new(),
            staged_queues: StagedQueues::default(),
        }
    }

    /// Returns the current time, by the clock of [`WorkHint::now`].
    pub(super) fn now(&self) -> Millis {
        let (read_at, time) = self.clock_anchor;
        let since = Millis::try_from(read_at.elapsed().as_millis()).unwrap_or(Millis::MAX);
        time.saturating_add(since)
    }

    pub(super) fn has_more_due(&self) -> bool {
        self.more_due
    }

    /// Makes the next commit look for due states.
    pub(super) fn expect_more(&mut self) {
        self.more_due = true;
    }

    /// Returns the time from `now` until the next state is due.
    pub(super) fn time_until_due(&self, now: Millis) -> Option<Duration> {
        let left = self.next_due?.saturating_sub(now).max(0);
        Some(Duration::from_millis(left.unsigned_abs()))
    }

    /// Counts the next commit, so that its claim serves another namespace first.
    pub(super) fn begin_commit(&mut self) {
        self.commits = self.commits.wrapping_add(1);
    }

    pub(super) fn commits(&self) -> usize {
        self.commits
    }

    pub(super) fn cursors(&self) -> &BTreeMap<NamespaceKey, RunKey> {
        &self.cursors
    }

    /// Returns the known queues of staged children; none if it is time to look for others.
    pub(super) fn staged_queues(&self) -> StagedQueues {
        let age = self.now().saturating_sub(self.staged_queues.read_at);
        if age < MAX_QUEUES_AGE { self.staged_queues.clone() } else { StagedQueues::default() }
    }

    pub(super) fn apply_hint(&mut self, hint: WorkHint) {
        if let Some(now) = hint.now {
            self.clock_anchor = (Instant::now(), now);
        }
        self.more_due |= hint.work;
        self.next_due = earlier(self.next_due, hint.due);
        if hint.work || hint.due.is_some() {
            self.staged_queues = StagedQueues::default();
        }
    }

    /// Decides which states a commit at `now` may claim, up to `spare`. While more states may
    /// be due, it claims due states, so that other runs get their turn; otherwise it claims
    /// only those that it creates.
    pub(super) fn claim_mode(&self, now: Millis, spare: u32, shares: &ClaimShares) -> ClaimMode {
        let is_due = self.next_due.is_some_and(|due| due <= now);
        if self.more_due || is_due || self.has_room_again(shares) {
            ClaimMode::AllDue(spare)
        } else {
            ClaimMode::NewOnly(spare)
        }
    }

    /// Returns `true` if some namespace or run has used up its share.
    pub(super) fn is_saturated(&self) -> bool {
        !self.saturated.is_empty() || !self.saturated_runs.is_empty()
    }

    /// Returns `true` if a namespace or run that had used up its share has room again.
    pub(super) fn has_room_again(&self, shares: &ClaimShares) -> bool {
        let has_room = |namespace: &NamespaceKey| shares.remaining(*namespace) > 0;
        self.saturated.iter().any(has_room)
            || self
                .saturated_runs
                .iter()
                .any(|(namespace, run)| has_room(namespace) && shares.remaining_of_run(*run) > 0)
    }

    /// Applies the findings of a commit with this claim mode.
    pub(super) fn update_pacing(&mut self, done: &Committed, claim_mode: ClaimMode) {
        if done.now > 0 {
            self.clock_anchor = (Instant::now(), done.now);
        }
        self.staged_queues.clone_from(&done.staged_queues);
        if claims_due(claim_mode) {
            // The claim has looked at all due states, so its findings replace the old.
            self.saturated.clone_from(&done.saturated);
            self.saturated_runs.clone_from(&done.saturated_runs);
            self.cursors.clone_from(&done.cursors);
            self.more_due = done.more_due;
            if !done.more_due {
                self.next_due = done.next_due;
                return;
            }
        } else {
            self.saturated.extend(&done.saturated);
            self.saturated_runs.extend(&done.saturated_runs);
            self.more_due |= done.more_due;
        }
        self.next_due = earlier(self.next_due, done.next_due);
    }
}

/// Returns `true` if a commit with this claim mode claims due states.
pub(super) fn claims_due(claim_mode: ClaimMode) -> bool {
    matches!(claim_mode, ClaimMode::AllDue(1..))
}

/// Returns the earlier of two times, if there is one.
pub(super) fn earlier(a: Option<Millis>, b: Option<Millis>) -> Option<Millis> {
    [a, b].into_iter().flatten().min()
}

/// The room for claims at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClaimRoom {
    /// The prefetch target of the host.
    pub target: u32,
    /// States that the host has claimed.
    pub claimed: u32,
    /// Claim permits that are free.
    pub free: u32,
}

impl ClaimRoom {
    /// Returns how many more states may be claimed, as if `released` permits were free.
    pub(super) fn spare(self, released: u32) -> u32 {
        let claimed = self.claimed.saturating_sub(released);
        self.target.saturating_sub(claimed).min(self.free + released)
    }
}

/// Computes the remaining share of each namespace and run from their shares, their prefetch
/// targets and their claimed states.
pub(super) fn remaining_shares(
    default_share: u32,
    own_shares: HashMap<NamespaceKey, u32>,
    targets: &HashMap<NamespaceKey, Target>,
    claims: ClaimCounts,
) -> ClaimShares {
    let mut shares = ClaimShares { default: default_share, left: own_shares, runs: HashMap::new() };
    shares.left.extend(targets.iter().map(|(namespace, target)| (*namespace, target.held)));
    for (namespace, claimed) in claims.namespaces {
        let left = shares.left.entry(namespace).or_insert(default_share);
        *left = left.saturating_sub(claimed.total);
        let target = targets.get(&namespace);
        for (run, held) in claimed.runs {
            let share = target.map_or(u32::MAX, |target| target.get(run));
            shares.runs.insert(run, RunShare { held, left: share.saturating_sub(held) });
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execution::claims::NamespaceClaims;

    const A: NamespaceKey = NamespaceKey(1);
    const B: NamespaceKey = NamespaceKey(2);
    const RUN: RunKey = RunKey(7);

    /// Returns the pacing after a claim that has found nothing due.
    fn idle() -> Pacing {
        let mut pacing = Pacing::new(1_000);
        pacing.update_pacing(&Committed::default(), ClaimMode::AllDue(8));
        pacing
    }

    fn shares(left: &[(NamespaceKey, u32)], runs: &[(RunKey, u32)]) -> ClaimShares {
        let share = |(run, left): &(RunKey, u32)| (*run, RunShare { held: 1, left: *left });
        ClaimShares {
            default: 0,
            left: left.iter().copied().collect(),
            runs: runs.iter().map(share).collect(),
        }
    }

    #[test]
    fn a_new_loop_claims_due_states() {
        let pacing = Pacing::new(1_000);
        assert_eq!(pacing.claim_mode(1_000, 8, &ClaimShares::unbounded()), ClaimMode::AllDue(8));
        assert_eq!(pacing.time_until_due(1_000), None);
    }

    #[test]
    fn an_idle_loop_claims_only_new_states() {
        let pacing = idle();
        assert!(!pacing.has_more_due());
        assert_eq!(pacing.claim_mode(1_000, 8, &ClaimShares::unbounded()), ClaimMode::NewOnly(8));
        assert_eq!(pacing.claim_mode(1_000, 0, &ClaimShares::unbounded()), ClaimMode::NewOnly(0));
    }

    #[test]
    fn more_due_states_are_claimed_next() {
        let mut pacing = idle();
        let more_due = Committed { more_due: true, ..Committed::default() };
        pacing.update_pacing(&more_due, ClaimMode::NewOnly(8));
        assert_eq!(pacing.claim_mode(1_000, 8, &ClaimShares::unbounded()), ClaimMode::AllDue(8));
        // A commit that claims only new states has not looked for due ones, so more stay due.
        pacing.update_pacing(&Committed::default(), ClaimMode::NewOnly(8));
        assert!(pacing.has_more_due());
        pacing.update_pacing(&Committed::default(), ClaimMode::AllDue(8));
        assert!(!pacing.has_more_due());
        pacing.expect_more();
        assert!(pacing.has_more_due());
    }

    #[test]
    fn due_states_are_claimed_at_their_time() {
        let mut pacing = idle();
        pacing.apply_hint(WorkHint { due: Some(5_000), ..WorkHint::default() });
        pacing.apply_hint(WorkHint { due: Some(9_000), ..WorkHint::default() });
        assert_eq!(pacing.time_until_due(4_000), Some(Duration::from_secs(1)));
        assert_eq!(pacing.time_until_due(6_000), Some(Duration::ZERO));
        assert_eq!(pacing.claim_mode(4_999, 8, &ClaimShares::unbounded()), ClaimMode::NewOnly(8));
        assert_eq!(pacing.claim_mode(5_000, 8, &ClaimShares::unbounded()), ClaimMode::AllDue(8));
    }

    #[test]
    fn a_complete_claim_replaces_the_due_time() {
        let mut pacing = idle();
        let due = |next_due, more_due| Committed { next_due, more_due, ..Committed::default() };
        pacing.update_pacing(&due(Some(5_000), false), ClaimMode::NewOnly(8));
        pacing.update_pacing(&due(Some(9_000), false), ClaimMode::NewOnly(8));
        assert_eq!(pacing.next_due, Some(5_000), "of new states, the earliest");
        pacing.update_pacing(&due(Some(9_000), true), ClaimMode::AllDue(8));
        assert_eq!(pacing.next_due, Some(5_000), "the claim has not seen all states");
        pacing.update_pacing(&due(Some(9_000), false), ClaimMode::AllDue(8));
        assert_eq!(pacing.next_due, Some(9_000));
        pacing.update_pacing(&due(None, false), ClaimMode::AllDue(8));
        assert_eq!(pacing.next_due, None);
    }

    #[test]
    fn a_saturated_namespace_waits_for_its_share() {
        let mut pacing = idle();
        let saturated = |saturated: &[NamespaceKey]| Committed {
            saturated: saturated.iter().copied().collect(),
            ..Committed::default()
        };
        assert!(!pacing.is_saturated());
        pacing.update_pacing(&saturated(&[A]), ClaimMode::NewOnly(8));
        pacing.update_pacing(&saturated(&[B]), ClaimMode::NewOnly(8));
        assert!(pacing.is_saturated());
        assert!(!pacing.has_room_again(&shares(&[(A, 0), (B, 0)], &[])));
        let room = shares(&[(A, 1), (B, 0)], &[]);
        assert!(pacing.has_room_again(&room));
        assert_eq!(pacing.claim_mode(1_000, 8, &room), ClaimMode::AllDue(8));
        pacing.update_pacing(&saturated(&[B]), ClaimMode::AllDue(8));
        assert!(!pacing.has_room_again(&room), "the claim has served the first one");
    }

    #[test]
    fn a_saturated_run_needs_both_shares() {
        let mut pacing = idle();
        let saturated_runs = [(A, RUN)].into();
        pacing.update_pacing(
            &Committed { saturated_runs, ..Committed::default() },
            ClaimMode::AllDue(8),
        );
        assert!(pacing.is_saturated());
        assert!(!pacing.has_room_again(&shares(&[(A, 1)], &[(RUN, 0)])));
        assert!(!pacing.has_room_again(&shares(&[(A, 0)], &[(RUN, 1)])));
        assert!(pacing.has_room_again(&shares(&[(A, 1)], &[(RUN, 1)])));
    }

    #[test]
    fn only_claims_move_the_cursors() {
        let mut pacing = idle();
        let cursors = || BTreeMap::from([(A, RUN)]);
        let done = Committed { cursors: cursors(), ..Committed::default() };
        pacing.update_pacing(&done, ClaimMode::NewOnly(8));
        pacing.update_pacing(&done, ClaimMode::AllDue(0));
        assert!(pacing.cursors().is_empty());
        pacing.update_pacing(&done, ClaimMode::AllDue(1));
        assert_eq!(*pacing.cursors(), cursors());
    }

    #[test]
    fn staged_queues_expire_at_their_maximum_age() {
        let mut pacing = idle();
        let queues = |read_at| StagedQueues { queues: [NamespaceKey(-7)].into(), read_at };
        let done = |now, read_at| Committed {
            now,
            staged_queues: queues(read_at),
            ..Committed::default()
        };
        pacing.update_pacing(&done(5_000, 5_000), ClaimMode::AllDue(8));
        assert_eq!(pacing.staged_queues(), queues(5_000));
        pacing.update_pacing(&done(5_000 + MAX_QUEUES_AGE, 5_000), ClaimMode::AllDue(8));
        assert_eq!(pacing.staged_queues(), StagedQueues::default(), "it is time to look again");
        for hint in [
            WorkHint { work: true, ..WorkHint::default() },
            WorkHint { due: Some(9_000), ..WorkHint::default() },
        ] {
            pacing.update_pacing(&done(9_000, 9_000), ClaimMode::NewOnly(8));
            assert_eq!(pacing.staged_queues(), queues(9_000));
            pacing.apply_hint(hint);
            assert_eq!(pacing.staged_queues(), StagedQueues::default(), "others have added work");
        }
    }

    #[test]
    fn each_commit_advances_the_round_robin() {
        let mut pacing = Pacing { commits: usize::MAX - 1, ..idle() };
        pacing.begin_commit();
        assert_eq!(pacing.commits(), usize::MAX);
        pacing.begin_commit();
        assert_eq!(pacing.commits(), 0);
    }

    #[test]
    fn the_clock_follows_commits_and_hints() {
        let mut pacing = idle();
        pacing.update_pacing(
            &Committed { now: 500_000, ..Committed::default() },
            ClaimMode::NewOnly(0),
        );
        assert!((500_000..560_000).contains(&pacing.now()));
        pacing.update_pacing(&Committed::default(), ClaimMode::NewOnly(0));
        assert!(pacing.now() >= 500_000, "an empty commit has no time");
        pacing.apply_hint(WorkHint { now: Some(900_000), ..WorkHint::default() });
        assert!((900_000..960_000).contains(&pacing.now()));
    }

    #[test]
    fn target_and_permits_bound_spare_claims() {
        let room = |target, claimed, free| ClaimRoom { target, claimed, free };
        assert_eq!(room(10, 4, 100).spare(0), 6);
        assert_eq!(room(10, 4, 3).spare(0), 3);
        assert_eq!(room(10, 14, 100).spare(0), 0);
        // The permits of a batch count as free.
        assert_eq!(room(10, 14, 0).spare(6), 2);
        assert_eq!(room(20, 14, 0).spare(6), 6);
    }

    #[test]
    fn claims_reduce_remaining_shares() {
        let claimed = |total, runs: &[(RunKey, u32)]| NamespaceClaims {
            total,
            runs: runs.iter().copied().collect(),
        };
        let (c, other) = (NamespaceKey(3), RunKey(8));
        let claims = ClaimCounts {
            namespaces: [
                (A, claimed(5, &[(RUN, 5)])),
                (B, claimed(3, &[(other, 3)])),
                (c, claimed(9, &[])),
            ]
            .into(),
        };
        let target = Target { held: 12, idle_run: 1, runs: [(RUN, 7)].into() };
        let shares = remaining_shares(4, [(c, 20)].into(), &[(A, target)].into(), claims);
        assert_eq!([A, B, c, NamespaceKey(4)].map(|key| shares.remaining(key)), [7, 1, 11, 4]);
        assert_eq!(
            [RUN, other, RunKey(9)].map(|key| shares.remaining_of_run(key)),
            [2, u32::MAX - 3, u32::MAX]
        );
    }
}
