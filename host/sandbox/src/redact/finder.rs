//! Finds needles in a text in one pass with an Aho-Corasick automaton. At each position
//! it knows the longest needle that ends there, and the longest needle prefix. Its time
//! is linear in the text, whatever the needles are; its memory is linear in the
//! needles.
//!
//! Not here: the choice of the needles, and the text that replaces them.

use std::collections::HashMap;
use std::ops::Range;

use zeroize::Zeroizing;

/// A text to be found.
pub(super) struct Needle {
    pub(super) text: Zeroizing<String>,
    /// The index of the needle's secret.
    pub(super) owner: usize,
    /// Set if the needle is only the beginning of a longer text. Then everything after
    /// a match is redacted as well.
    pub(super) is_beginning: bool,
}

/// A range of a text to redact, and the index of its secret.
pub(super) type Find = (Range<usize>, usize);

/// The initial state, before anything is found.
const ROOT_STATE: u32 = 0;

/// The needle index of a state at which no needle ends.
const NONE: u32 = u32::MAX;

/// Bytes of memory of one state.
pub(super) const STATE_BYTES: usize = 18;

/// The automaton. Each state represents a needle prefix; the states of one needle mostly have
/// consecutive indices.
pub(super) struct Finder {
    /// The last byte of each state's prefix.
    bytes: Zeroizing<Vec<u8>>,
    /// The length of each state's prefix.
    depth: Vec<u32>,
    /// The failure link: the state of the longest proper suffix that is a needle
    /// prefix.
    fail: Vec<u32>,
    /// The longest needle that ends in each state.
    longest: Vec<u32>,
    /// The first needle with each state's prefix.
    first: Vec<u32>,
    /// Set if a needle ends in the state after which everything is redacted.
    redacts_rest: Vec<bool>,
    /// The next state of the root for each byte.
    roots: Vec<u32>,
    /// The next states of all other states, except those with the next index.
    branches: HashMap<(u32, u8), u32>,
    /// The length and the owner of each needle.
    needles: Vec<(u32, usize)>,
}

impl Finder {
    /// Builds the automaton of some needles.
    pub(super) fn new(mut needles: Vec<Needle>) -> Finder {
        needles.sort_by(|a, b| a.text.as_str().cmp(b.text.as_str()));
        let mut finder = Finder {
            bytes: Zeroizing::new(vec![0]),
            depth: vec![0],
            fail: vec![ROOT_STATE],
            longest: vec![NONE],
            first: vec![NONE],
            redacts_rest: vec![false],
            roots: vec![ROOT_STATE; 256],
            branches: HashMap::new(),
            needles: Vec::with_capacity(needles.len()),
        };
        let mut parents = vec![ROOT_STATE];
        // The states of the previous needle in sorted order.
        let mut path: Vec<u32> = Vec::new();
        let mut before: &[u8] = &[];
        for needle in &needles {
            let text = needle.text.as_bytes();
            let common = text.iter().zip(before).take_while(|(a, b)| a == b).count();
            path.truncate(common);
            for byte in text.get(common..).unwrap_or_default() {
                let parent = path.last().copied().unwrap_or(ROOT_STATE);
                path.push(finder.add(parent, *byte, &mut parents));
            }
            finder.end(path.last().copied().unwrap_or(ROOT_STATE), needle);
            before = text;
        }
        finder.link(&parents);
        finder
    }

    fn add(&mut self, parent: u32, byte: u8, parents: &mut Vec<u32>) -> u32 {
        let state = self.depth.len() as u32;
        self.bytes.push(byte);
        self.depth.push(self.depth[parent as usize] + 1);
        self.fail.push(ROOT_STATE);
        self.longest.push(NONE);
        self.first.push(self.needles.len() as u32);
        self.redacts_rest.push(false);
        parents.push(parent);
        if parent == ROOT_STATE {
            self.roots[usize::from(byte)] = state;
        } else if parent + 1 != state {
            self.branches.insert((parent, byte), state);
        }
        state
    }

    fn end(&mut self, state: u32, needle: &Needle) {
        let at = state as usize;
        if state != ROOT_STATE && self.longest[at] == NONE {
            self.longest[at] = self.needles.len() as u32;
        }
        self.redacts_rest[at] |= needle.is_beginning;
        self.needles.push((self.depth[at], needle.owner));
    }

    /// Sets the failure link of each state, those of short prefixes first.
    fn link(&mut self, parents: &[u32]) {
        let mut order: Vec<u32> = (1..self.depth.len() as u32).collect();
        order.sort_by_key(|state| self.depth[*state as usize]);
        for state in order {
            let at = state as usize;
            let (parent, byte) = (parents[at], self.bytes[at]);
            let fail = match parent {
                ROOT_STATE => ROOT_STATE,
                parent => self.next(self.fail[parent as usize], byte),
            };
            self.fail[at] = fail;
            if self.longest[at] == NONE {
                self.longest[at] = self.longest[fail as usize];
            }
            self.redacts_rest[at] |= self.redacts_rest[fail as usize];
        }
    }

    /// Returns the state whose prefix is that of `state` plus one byte, if there is
    /// one.
    fn child(&self, state: u32, byte: u8) -> Option<u32> {
        if state == ROOT_STATE {
            return Some(self.roots[usize::from(byte)]).filter(|child| *child != ROOT_STATE);
        }
        let (at, next) = (state as usize, state as usize + 1);
        let follows = self.bytes.get(next) == Some(&byte)
            && self.depth.get(next) == Some(&(self.depth[at] + 1));
        if follows { Some(state + 1) } else { self.branches.get(&(state, byte)).copied() }
    }

    /// Advances the automaton by one byte.
    fn next(&self, mut state: u32, byte: u8) -> u32 {
        loop {
            if let Some(child) = self.child(state, byte) {
                return child;
            }
            if state == ROOT_STATE {
                return ROOT_STATE;
            }
            state = self.fail[state as usize];
        }
    }

    /// Finds the ranges of a text to redact, in order; overlapping ranges become one. If the text
    /// was cut, a needle prefix of at least `cut` characters at its end is redacted, too.
    pub(super) fn find(&self, text: &str, cut: Option<usize>) -> Vec<Find> {
        let mut found = Vec::new();
        // Half a character at the cut, which no needle prefix ends with.
        let whole = text.trim_end_matches('\u{fffd}').len();
        let (mut state, mut last) = (ROOT_STATE, ROOT_STATE);
        for (at, byte) in text.bytes().enumerate() {
            state = self.next(state, byte);
            let node = state as usize;
            if let Some((length, owner)) = self.needles.get(self.longest[node] as usize) {
                let start = (at + 1).saturating_sub(*length as usize);
                let end = if self.redacts_rest[node] { text.len() } else { at + 1 };
                add_find(&mut found, (start..end, *owner));
                if self.redacts_rest[node] {
                    return found;
                }
            }
            if at + 1 == whole {
                last = state;
            }
        }
        if let Some(min_chars) = cut.filter(|_| last != ROOT_STATE) {
            let start = whole - self.depth[last as usize] as usize;
            let is_enough = |end: &str| end.chars().nth(min_chars.saturating_sub(1)).is_some();
            if text.get(start..whole).is_some_and(is_enough)
                && let Some((_, owner)) = self.needles.get(self.first[last as usize] as usize)
            {
                add_find(&mut found, (start..whole, *owner));
            }
        }
        found
    }

    /// Returns the number of states.
    pub(super) fn states(&self) -> usize {
        self.depth.len()
    }
}

/// Adds a find that ends after all others. Finds that it covers are removed, and a find
/// that it overlaps grows.
fn add_find(found: &mut Vec<Find>, (range, owner): Find) {
    while found.last().is_some_and(|(last, _)| last.start >= range.start) {
        found.pop();
    }
    match found.last_mut() {
        Some((last, _)) if last.end > range.start => last.end = last.end.max(range.end),
        _ => found.push((range, owner)),
    }
}
