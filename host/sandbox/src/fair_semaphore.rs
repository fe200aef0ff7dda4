//! A fair semaphore in two levels. The free permits are granted round-robin to keys.
//! Within a key they go to the waiting group with the fewest permits; among equals, to
//! the group that has waited longest for a permit.
//!
//! A short queue does not wait longer because another queue is long. Groups that hold
//! permits for long do not keep out groups that hold them briefly. On request, a group
//! with many permits does not get the last one of its key, so that a new group need not
//! wait.
//!
//! Used for the slots of executions (namespaces, their runs) and for the processors,
//! where guests need them for long. Not here: the work that is done with a permit.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};

use tokio::sync::oneshot;

/// A fair semaphore with a queue for each key `K` and group `G` of the key. Cheap to
/// clone: all clones share the permits.
pub struct FairSemaphore<K: Ord + Clone, G: Ord + Clone = ()>(Arc<Mutex<Queues<K, G>>>);

impl<K: Ord + Clone, G: Ord + Clone> Clone for FairSemaphore<K, G> {
    fn clone(&self) -> Self {
        FairSemaphore(self.0.clone())
    }
}

struct Queues<K: Ord + Clone, G: Ord + Clone> {
    free: u32,
    closed: bool,
    /// The number of permits from which a group does not get the last permit of its
    /// key.
    large: u32,
    /// The key that got the latest permit.
    last: Option<K>,
    /// The count of grants and arrivals, which orders groups with equally many permits.
    clock: u64,
    keys: BTreeMap<K, KeyQueue<K, G>>,
}

/// The queues of one key.
struct KeyQueue<K: Ord + Clone, G: Ord + Clone> {
    taken: u32,
    max_per_key: u32,
    groups: BTreeMap<G, Group<K, G>>,
    /// The waiting groups, the next one first.
    order: BTreeSet<(Rank, G)>,
}

/// The queue of one group.
struct Group<K: Ord + Clone, G: Ord + Clone> {
    rank: Rank,
    waiters: VecDeque<Waiter<K, G>>,
}

/// A group's rank within its key: its number of permits, then the time of its latest
/// permit or of its arrival.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    taken: u32,
    since: u64,
}

struct Waiter<K: Ord + Clone, G: Ord + Clone> {
    since: Instant,
    permit: oneshot::Sender<FairPermit<K, G>>,
}

/// A permit. Dropping it passes it on to the next waiter.
pub struct FairPermit<K: Ord + Clone, G: Ord + Clone = ()> {
    semaphore: FairSemaphore<K, G>,
    key: K,
    group: G,
}

impl<K: Ord + Clone> FairSemaphore<K> {
    /// Waits for a permit for a key without groups: see [`FairSemaphore::acquire_for`].
    pub async fn acquire(&self, key: K, max_per_key: u32) -> Option<FairPermit<K>> {
        self.acquire_for(key, (), max_per_key).await
    }
}

impl<K: Ord + Clone, G: Ord + Clone> FairSemaphore<K, G> {
    /// Creates a semaphore with `free` permits.
    pub fn new(free: u32) -> Self {
        FairSemaphore::with_last_kept(free, u32::MAX)
    }

    /// Creates a semaphore with `free` permits, which keeps the last permit of a key
    /// from groups that have `large` permits or more.
    pub fn with_last_kept(free: u32, large: u32) -> Self {
        let (last, clock, keys) = (None, 0, BTreeMap::new());
        FairSemaphore(Arc::new(Mutex::new(Queues {
            free,
            closed: false,
            large,
            last,
            clock,
            keys,
        })))
    }

    /// Waits for a permit for a group of `key`, which has at most `max_per_key` permits at
    /// a time. Returns `None` once the semaphore is closed, or if the waiter was
    /// withdrawn.
    pub async fn acquire_for(
        &self,
        key: K,
        group: G,
        max_per_key: u32,
    ) -> Option<FairPermit<K, G>> {
        let waiting = {
            let mut queues = self.lock();
            if queues.closed {
                return None;
            }
            let Queues { free, large, last, clock, keys, .. } = &mut *queues;
            let queue = keys.entry(key.clone()).or_insert_with(|| KeyQueue {
                taken: 0,
                max_per_key,
                groups: BTreeMap::new(),
                order: BTreeSet::new(),
            });
            queue.max_per_key = max_per_key.max(1);
            *clock += 1;
            let group_queue = queue.group(&group, *clock).rank.taken;
            if *free > 0 && queue.allows(group_queue, *large) && !queue.has_next(*large) {
                queue.group(&group, *clock).rank.taken += 1;
                queue.taken += 1;
                *free -= 1;
                *last = Some(key.clone());
                return Some(FairPermit { semaphore: self.clone(), key, group });
            }
            let (permit, waiting) = oneshot::channel();
            let group_queue = queue.group(&group, *clock);
            group_queue.waiters.push_back(Waiter { since: Instant::now(), permit });
            let rank = group_queue.rank;
            queue.order.insert((rank, group));
            waiting
        };
        waiting.await.ok()
    }

    /// Withdraws up to `limit` waiters of a key that have waited since before `since`, the
    /// youngest first: those of `group`, or of the group with the most waiters. They get no
    /// permit. Returns their number.
    pub fn withdraw(&self, key: &K, group: Option<&G>, limit: usize, since: Instant) -> usize {
        let mut withdrawn = Vec::new();
        {
            let mut queues = self.lock();
            let Some(queue) = queues.keys.get_mut(key) else { return 0 };
            while withdrawn.len() < limit {
                let Some(group) = group.cloned().or_else(|| queue.longest(since)) else { break };
                match queue.withdraw(&group, since) {
                    Some(waiter) => withdrawn.push(waiter),
                    None => break,
                }
            }
            queues.remove_idle(key);
        }
        // The withdrawn waiters are notified here, without the lock.
        withdrawn.len()
    }

    /// Closes the semaphore: every waiter and every later caller gets no permit.
    pub fn close(&self) {
        let mut withdrawn = Vec::new();
        let mut queues = self.lock();
        queues.closed = true;
        for queue in queues.keys.values_mut() {
            queue.order.clear();
            withdrawn
                .extend(queue.groups.values_mut().map(|group| std::mem::take(&mut group.waiters)));
        }
        drop(queues);
    }

    /// Returns the number of free permits.
    pub fn free(&self) -> u32 {
        self.lock().free
    }

    fn lock(&self) -> MutexGuard<'_, Queues<K, G>> {
        self.0.lock()
    }

    /// Grants the free permits. A permit whose waiter is gone is returned, for the
    /// caller to drop outside the lock.
    fn grant_next(&self) -> Vec<FairPermit<K, G>> {
        let mut abandoned = Vec::new();
        let mut queues = self.lock();
        while queues.free > 0 {
            let Some(key) = queues.next_key() else { break };
            queues.clock += 1;
            let clock = queues.clock;
            let Some(queue) = queues.keys.get_mut(&key) else { break };
            let Some((group, permit)) = queue.grant(clock) else { break };
            queues.free -= 1;
            queues.last = Some(key.clone());
            abandoned.extend(permit.send(FairPermit { semaphore: self.clone(), key, group }).err());
        }
        abandoned
    }
}

impl<K: Ord + Clone, G: Ord + Clone> Queues<K, G> {
    /// Returns the next key in round-robin order that may have a permit.
    fn next_key(&self) -> Option<K> {
        let after = self.last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let (later, earlier) = (self.keys.range((after, Bound::Unbounded)), self.keys.iter());
        later
            .chain(earlier)
            .find(|(_, queue)| queue.has_next(self.large))
            .map(|(key, _)| key.clone())
    }

    /// Removes a key that has no groups left.
    fn remove_idle(&mut self, key: &K) {
        if self.keys.get(key).is_some_and(|queue| queue.groups.is_empty()) {
            self.keys.remove(key);
        }
    }
}

impl<K: Ord + Clone, G: Ord + Clone> KeyQueue<K, G> {
    /// Returns a group. A missing group is added with `now` as its arrival.
    fn group(&mut self, group: &G, now: u64) -> &mut Group<K, G> {
        self.groups.entry(group.clone()).or_insert_with(|| Group {
            rank: Rank { taken: 0, since: now },
            waiters: VecDeque::new(),
        })
    }

    /// Returns whether a group with `taken` permits may have another.
    fn allows(&self, taken: u32, large: u32) -> bool {
        self.taken < self.max_per_key.saturating_sub(u32::from(taken >= large))
    }

    /// Returns whether a waiting group may have a permit.
    fn has_next(&self, large: u32) -> bool {
        // If the group with the fewest permits may not have one, no group may.
        self.order.first().is_some_and(|(rank, _)| self.allows(rank.taken, large))
    }

    /// Changes the rank of a group, and removes a group without permits and waiters.
    fn rerank(&mut self, group: &G, change: impl FnOnce(&mut Rank)) {
        let Some(group_queue) = self.groups.get_mut(group) else { return };
        // The order contains the group only if it was waiting until now.
        self.order.remove(&(group_queue.rank, group.clone()));
        change(&mut group_queue.rank);
        if !group_queue.waiters.is_empty() {
            self.order.insert((group_queue.rank, group.clone()));
        } else if group_queue.rank.taken == 0 {
            self.groups.remove(group);
        }
    }

    /// Takes the next waiter from its queue and counts its permit.
    fn grant(&mut self, now: u64) -> Option<(G, oneshot::Sender<FairPermit<K, G>>)> {
        let (_, group) = self.order.first()?.clone();
        let waiter = self.groups.get_mut(&group)?.waiters.pop_front()?;
        self.taken += 1;
        self.rerank(&group, |rank| *rank = Rank { taken: rank.taken + 1, since: now });
        Some((group, waiter.permit))
    }

    /// Returns the group with the most waiters among those whose youngest waiter is old enough.
    fn longest(&self, since: Instant) -> Option<G> {
        let old = self.groups.iter().filter(|(_, group)| group.is_old(since));
        old.max_by_key(|(_, group)| group.waiters.len()).map(|(group, _)| group.clone())
    }

    fn withdraw(&mut self, group: &G, since: Instant) -> Option<Waiter<K, G>> {
        let group_queue = self.groups.get_mut(group)?;
        let waiter = group_queue.is_old(since).then(|| group_queue.waiters.pop_back())?;
        self.rerank(group, |_| ());
        waiter
    }
}

impl<K: Ord + Clone, G: Ord + Clone> Group<K, G> {
    /// Returns whether the group's youngest waiter arrived no later than `since`.
    fn is_old(&self, since: Instant) -> bool {
        self.waiters.back().is_some_and(|waiter| waiter.since <= since)
    }
}

impl<K: Ord + Clone, G: Ord + Clone> Drop for FairPermit<K, G> {
    fn drop(&mut self) {
        {
            let mut queues = self.semaphore.lock();
            queues.free += 1;
            if let Some(queue) = queues.keys.get_mut(&self.key) {
                queue.taken -= 1;
                queue.rerank(&self.group, |rank| rank.taken -= 1);
            }
            queues.remove_idle(&self.key);
        }
        drop(self.semaphore.grant_next());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::FutureExt;
    use futures::future::BoxFuture;

    use super::*;

    type Wait<'a, G> = BoxFuture<'a, Option<FairPermit<&'static str, G>>>;

    /// Returns the permit, if it was granted.
    fn granted<G: Ord + Clone>(wait: &mut Wait<'_, G>) -> Option<FairPermit<&'static str, G>> {
        wait.now_or_never().flatten()
    }

    #[tokio::test]
    async fn keys_take_turns_regardless_of_queue_length() {
        let turns = FairSemaphore::new(1);
        let first = turns.acquire("long", 9).await.unwrap();
        let mut long: Vec<_> = (0..3).map(|_| turns.acquire("long", 9).boxed()).collect();
        let mut short = turns.acquire("short", 9).boxed();
        assert!(long.iter_mut().all(|waits| waits.now_or_never().is_none()));
        assert!((&mut short).now_or_never().is_none());
        drop(first);
        assert!((&mut short).now_or_never().is_some(), "the other key is next");
        assert!((&mut long[0]).now_or_never().is_some());
    }

    #[tokio::test]
    async fn keys_are_capped_and_dropped_waiters_skipped() {
        let turns = FairSemaphore::new(4);
        let held = [turns.acquire(1, 2).await.unwrap(), turns.acquire(1, 2).await.unwrap()];
        let mut third = turns.acquire(1, 2).boxed();
        assert!((&mut third).now_or_never().is_none());
        assert!(turns.acquire(2, 2).now_or_never().is_some());
        drop(third);
        drop(held);
        assert_eq!(turns.free(), 4);
        turns.close();
        assert!(turns.acquire(1, 2).await.is_none());
    }

    #[tokio::test]
    async fn the_group_with_fewest_permits_is_next() {
        let turns: FairSemaphore<&str, &str> = FairSemaphore::new(3);
        let take = |group| turns.acquire_for("n", group, 9).boxed();
        let mut large: Vec<_> = (0..6).map(|_| take("large")).collect();
        let held: Vec<_> = large[..3].iter_mut().map(|wait| granted(wait).unwrap()).collect();
        assert!(large[3..].iter_mut().all(|wait| granted(wait).is_none()));
        let mut small: Vec<_> = (0..3).map(|_| take("small")).collect();
        assert!(small.iter_mut().all(|wait| granted(wait).is_none()));
        let mut held = held.into_iter();
        drop(held.next());
        // The large group has two permits, and the small one none.
        let short = granted(&mut small[0]).unwrap();
        // The same holds again: a group that holds a permit briefly gets the next.
        drop(short);
        let _second = granted(&mut small[1]).unwrap();
        // Each has one permit, and that of the large group is older.
        drop(held.next());
        let _fourth = granted(&mut large[3]).unwrap();
        // Each has one permit, and now that of the small group is older.
        drop(held.next());
        let _third = granted(&mut small[2]).unwrap();
        assert!(granted(&mut large[4]).is_none());
    }

    #[tokio::test]
    async fn large_groups_leave_the_last_permit() {
        let turns: FairSemaphore<&str, &str> = FairSemaphore::with_last_kept(9, 2);
        let take = |group| turns.acquire_for("n", group, 4).boxed();
        let mut large: Vec<_> = (0..5).map(|_| take("large")).collect();
        let mut held: Vec<_> = large.iter_mut().filter_map(granted).collect();
        assert_eq!(held.len(), 3);
        for _ in 0..3 {
            assert!(granted(&mut take("small")).is_some(), "each without a wait");
        }
        let small = granted(&mut take("small")).unwrap();
        let mut other = take("other");
        assert!(granted(&mut other).is_none(), "all of the key are taken");
        drop(small);
        assert!(granted(&mut other).is_some());
        assert!(large[3..].iter_mut().all(|wait| granted(wait).is_none()));
        held.pop();
        assert!(granted(&mut large[3]).is_some(), "all but the last permit are for any group");
        assert!(turns.acquire_for("m", "large", 1).now_or_never().is_some(), "and of another key");
    }

    #[tokio::test]
    async fn new_groups_do_not_starve_a_group() {
        let turns: FairSemaphore<&str, u32> = FairSemaphore::new(1);
        let mut held = turns.acquire_for("n", 0, 9).await;
        let mut large: Vec<_> = (0..3).map(|_| turns.acquire_for("n", 0, 9).boxed()).collect();
        let mut served = 0;
        for new in 1..20 {
            assert!(large.iter_mut().all(|wait| granted(wait).is_none()));
            let mut one = turns.acquire_for("n", new, 9).boxed();
            assert!(granted(&mut one).is_none());
            drop(held.take());
            if let Some(turn) = granted(&mut large[0]) {
                drop(large.remove(0));
                served += 1;
                drop(turn);
            }
            held = granted(&mut one);
            assert!(held.is_some(), "it waits for one other at most");
            if large.is_empty() {
                break;
            }
        }
        assert_eq!(served, 3);
    }

    #[tokio::test]
    async fn the_youngest_old_waiters_are_withdrawn() {
        let turns: FairSemaphore<&str, &str> = FairSemaphore::new(1);
        let held = turns.acquire_for("n", "a", 9).await;
        let mut waits: Vec<_> =
            ["a", "a", "a", "b"].map(|group| turns.acquire_for("n", group, 9).boxed()).into();
        assert!(waits.iter_mut().all(|wait| granted(wait).is_none()));
        let cutoff = Instant::now();
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert_eq!(turns.withdraw(&"other", None, 9, cutoff), 0);
        assert_eq!(turns.withdraw(&"n", None, 2, cutoff), 2, "of the longest queue");
        assert!((&mut waits[2]).now_or_never().unwrap().is_none());
        assert!((&mut waits[1]).now_or_never().unwrap().is_none());
        let mut young = turns.acquire_for("n", "b", 9).boxed();
        assert!(granted(&mut young).is_none());
        assert_eq!(turns.withdraw(&"n", Some(&"b"), 9, cutoff), 0, "its youngest came later");
        assert_eq!(turns.withdraw(&"n", Some(&"b"), 9, Instant::now()), 2);
        drop(held);
        assert!(granted(&mut waits[0]).is_some());
        assert_eq!(turns.free(), 1);
    }
}
