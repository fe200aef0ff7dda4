//! Helpers for tests of several crates: a random generator that draws the same numbers on every
//! machine and with every version of every library.
//!
//! Not here: graphs drawn in a line of text (`graph::testing`).

use crate::ids::{IdSource, StateId};

/// A small, fast and portable random generator (splitmix64).
#[derive(Debug, Clone)]
pub struct SeededRng(u64);

impl SeededRng {
    /// Creates a generator that depends on a seed alone.
    pub fn new(seed: u64) -> Self {
        SeededRng(seed)
    }

    /// Creates a generator that depends on a seed, a text and a number.
    pub fn from_parts(seed: u64, text: &str, number: u32) -> Self {
        let mix = |hash: u64, byte: u8| SeededRng(hash ^ u64::from(byte)).next_u64();
        SeededRng(text.bytes().fold(SeededRng(seed).next_u64() ^ u64::from(number), mix))
    }

    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `max`, which is not 0.
    pub fn below(&mut self, max: usize) -> usize {
        (self.next_u64() % max as u64) as usize
    }

    /// Returns true with a probability of `often` percent.
    pub fn percent(&mut self, percentage: u32) -> bool {
        self.below(100) < percentage as usize
    }

    /// Returns an element of a list, or none if it is empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        match items.len() {
            0 => None,
            count => items.get(self.below(count)),
        }
    }

    /// Removes an element of a list, or none if it is empty.
    pub fn take<T>(&mut self, items: &mut Vec<T>) -> Option<T> {
        match items.len() {
            0 => None,
            count => Some(items.swap_remove(self.below(count))),
        }
    }

    /// Shuffles a list in place.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        (1..items.len()).rev().for_each(|at| items.swap(at, self.below(at + 1)));
    }
}

/// An id source that always returns the id 1, for tests in which ids do not matter.
pub struct SameId;

impl IdSource for SameId {
    fn next(&self) -> StateId {
        StateId(1)
    }
}
