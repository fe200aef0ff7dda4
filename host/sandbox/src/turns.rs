//! Takes turns: so many may be at something at a time, and those who wait go in
//! a line of their own for each key, one line after the other. So whoever stands
//! in a short line waits no longer because another is long.
//!
//! Used twice: for the slots of executions, and for the processors where guests
//! want them for long. Not here: what is done in a turn.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Gives out turns. Cheap to clone: all clones are one.
pub struct Turns<K: Ord + Clone>(Arc<Mutex<Lines<K>>>);

impl<K: Ord + Clone> Clone for Turns<K> {
    fn clone(&self) -> Self {
        Turns(self.0.clone())
    }
}

struct Lines<K: Ord + Clone> {
    free: u32,
    closed: bool,
    /// Where the last turn went to.
    last: Option<K>,
    lines: BTreeMap<K, Line<K>>,
}

struct Line<K: Ord + Clone> {
    taken: u32,
    most: u32,
    waiting: VecDeque<oneshot::Sender<Turn<K>>>,
}

impl<K: Ord + Clone> Line<K> {
    fn may_go_on(&self) -> bool {
        self.taken < self.most && !self.waiting.is_empty()
    }
}

/// A turn. Whoever drops it ends it, and the next one's begins.
pub struct Turn<K: Ord + Clone> {
    turns: Turns<K>,
    key: K,
}

impl<K: Ord + Clone> Turns<K> {
    /// So many at a time.
    pub fn new(free: u32) -> Self {
        let lines = Lines { free, closed: false, last: None, lines: BTreeMap::new() };
        Turns(Arc::new(Mutex::new(lines)))
    }

    /// Waits for a turn, of which `key` has at most `most` at a time. Nothing
    /// if there are no turns any more.
    pub async fn take(&self, key: K, most: u32) -> Option<Turn<K>> {
        let waiting = {
            let mut lines = self.lock();
            if lines.closed {
                return None;
            }
            let free = lines.free;
            let line = lines.lines.entry(key.clone()).or_insert_with(|| Line {
                taken: 0,
                most,
                waiting: VecDeque::new(),
            });
            line.most = most.max(1);
            if free > 0 && line.taken < line.most && line.waiting.is_empty() {
                line.taken += 1;
                lines.free -= 1;
                lines.last = Some(key.clone());
                return Some(Turn { turns: self.clone(), key });
            }
            let (turn, waiting) = oneshot::channel();
            line.waiting.push_back(turn);
            waiting
        };
        waiting.await.ok()
    }

    /// Gives out no more turns. Who waits gets none.
    pub fn close(&self) {
        let mut lines = self.lock();
        lines.closed = true;
        lines.lines.values_mut().for_each(|line| line.waiting.clear());
    }

    /// Turns that nobody has at the moment.
    pub fn free(&self) -> u32 {
        self.lock().free
    }

    fn lock(&self) -> MutexGuard<'_, Lines<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands on what is free. A turn whose taker is gone comes back, and is
    /// dropped by the caller: not here, under the lock.
    fn hand_on(&self) -> Vec<Turn<K>> {
        let mut gone = Vec::new();
        let mut lines = self.lock();
        while lines.free > 0 {
            let Some(key) = lines.next() else { break };
            let Some(line) = lines.lines.get_mut(&key) else { break };
            let Some(taker) = line.waiting.pop_front() else { break };
            line.taken += 1;
            lines.free -= 1;
            lines.last = Some(key.clone());
            gone.extend(taker.send(Turn { turns: self.clone(), key }).err());
        }
        gone
    }
}

impl<K: Ord + Clone> Lines<K> {
    /// The line whose turn it is: the next one after the last.
    fn next(&self) -> Option<K> {
        let after = self.last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let (later, earlier) = (self.lines.range((after, Bound::Unbounded)), self.lines.iter());
        later.chain(earlier).find(|(_, line)| line.may_go_on()).map(|(key, _)| key.clone())
    }
}

impl<K: Ord + Clone> Drop for Turn<K> {
    fn drop(&mut self) {
        {
            let mut lines = self.turns.lock();
            lines.free += 1;
            if let Some(line) = lines.lines.get_mut(&self.key) {
                line.taken -= 1;
                if line.taken == 0 && line.waiting.is_empty() {
                    lines.lines.remove(&self.key);
                }
            }
        }
        drop(self.turns.hand_on());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn lines_take_turns_however_long_one_is() {
        let turns = Turns::new(1);
        let first = turns.take("long", 9).await.unwrap();
        let mut long: Vec<_> = (0..3).map(|_| turns.take("long", 9).boxed()).collect();
        let mut short = turns.take("short", 9).boxed();
        assert!(long.iter_mut().all(|waits| waits.now_or_never().is_none()));
        assert!((&mut short).now_or_never().is_none());
        drop(first);
        assert!((&mut short).now_or_never().is_some(), "the other line is next");
        assert!((&mut long[0]).now_or_never().is_some());
    }

    #[tokio::test]
    async fn nobody_has_more_than_their_share_and_those_who_left_lose_nothing() {
        let turns = Turns::new(4);
        let held = [turns.take(1, 2).await.unwrap(), turns.take(1, 2).await.unwrap()];
        let mut third = turns.take(1, 2).boxed();
        assert!((&mut third).now_or_never().is_none());
        assert!(turns.take(2, 2).now_or_never().is_some());
        drop(third);
        drop(held);
        assert_eq!(turns.free(), 4);
        turns.close();
        assert!(turns.take(1, 2).await.is_none());
    }
}
