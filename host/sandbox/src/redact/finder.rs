//! Finds needles in a text in one pass: an automaton of Aho and Corasick that knows
//! at each place the longest needle that ends there, and the longest beginning of
//! one. Its time is linear in the text whatever the needles are, and its memory
//! linear in the needles.
//!
//! Not here: which needles those are, and what stands in their place.

use std::collections::HashMap;
use std::ops::Range;

use zeroize::Zeroizing;

/// A text to be found.
pub(super) struct Needle {
    pub(super) text: Zeroizing<String>,
    /// The number of its secret.
    pub(super) owner: usize,
    /// Whether it is only the beginning of what to hide: then everything after it
    /// is hidden as well.
    pub(super) is_beginning: bool,
}

/// A part of a text that is to be hidden, and the number of its secret.
pub(super) type Find = (Range<usize>, usize);

/// The state before anything is found.
const ROOT: u32 = 0;

/// No needle ends here.
const NONE: u32 = u32::MAX;

/// Bytes of memory of one state.
pub(super) const STATE_BYTES: usize = 18;

/// The automaton. A state stands for the beginning of a needle; states of one
/// needle mostly follow each other.
pub(super) struct Finder {
    /// The last byte of each state's beginning.
    bytes: Zeroizing<Vec<u8>>,
    /// The length of each state's beginning.
    depth: Vec<u32>,
    /// The state of the longest other beginning that ends in the same way.
    fail: Vec<u32>,
    /// The longest needle that ends in each state.
    longest: Vec<u32>,
    /// The first needle with each state's beginning.
    first: Vec<u32>,
    /// Whether a needle ends in the state after which everything is hidden.
    hides_rest: Vec<bool>,
    /// The next states of the root.
    roots: Vec<u32>,
    /// The next states of others, but for those that follow them.
    branches: HashMap<(u32, u8), u32>,
    /// Length and owner of each needle.
    needles: Vec<(u32, usize)>,
}

impl Finder {
    /// Makes a finder of needles.
    pub(super) fn new(mut needles: Vec<Needle>) -> Finder {
        needles.sort_by(|a, b| a.text.as_str().cmp(b.text.as_str()));
        let mut finder = Finder {
            bytes: Zeroizing::new(vec![0]),
            depth: vec![0],
            fail: vec![ROOT],
            longest: vec![NONE],
            first: vec![NONE],
            hides_rest: vec![false],
            roots: vec![ROOT; 256],
            branches: HashMap::new(),
            needles: Vec::with_capacity(needles.len()),
        };
        let mut parents = vec![ROOT];
        // The states of the needle before, which comes before this one in order.
        let mut path: Vec<u32> = Vec::new();
        let mut before: &[u8] = &[];
        for needle in &needles {
            let text = needle.text.as_bytes();
            let common = text.iter().zip(before).take_while(|(a, b)| a == b).count();
            path.truncate(common);
            for byte in text.get(common..).unwrap_or_default() {
                let parent = path.last().copied().unwrap_or(ROOT);
                path.push(finder.add(parent, *byte, &mut parents));
            }
            finder.end(path.last().copied().unwrap_or(ROOT), needle);
            before = text;
        }
        finder.link(&parents);
        finder
    }

    fn add(&mut self, parent: u32, byte: u8, parents: &mut Vec<u32>) -> u32 {
        let state = self.depth.len() as u32;
        self.bytes.push(byte);
        self.depth.push(self.depth[parent as usize] + 1);
        self.fail.push(ROOT);
        self.longest.push(NONE);
        self.first.push(self.needles.len() as u32);
        self.hides_rest.push(false);
        parents.push(parent);
        if parent == ROOT {
            self.roots[usize::from(byte)] = state;
        } else if parent + 1 != state {
            self.branches.insert((parent, byte), state);
        }
        state
    }

    fn end(&mut self, state: u32, needle: &Needle) {
        let at = state as usize;
        if state != ROOT && self.longest[at] == NONE {
            self.longest[at] = self.needles.len() as u32;
        }
        self.hides_rest[at] |= needle.is_beginning;
        self.needles.push((self.depth[at], needle.owner));
    }

    /// Sets where each state goes on when its next byte does not come, those of
    /// short beginnings first.
    fn link(&mut self, parents: &[u32]) {
        let mut order: Vec<u32> = (1..self.depth.len() as u32).collect();
        order.sort_by_key(|state| self.depth[*state as usize]);
        for state in order {
            let at = state as usize;
            let (parent, byte) = (parents[at], self.bytes[at]);
            let fail = match parent {
                ROOT => ROOT,
                parent => self.next(self.fail[parent as usize], byte),
            };
            self.fail[at] = fail;
            if self.longest[at] == NONE {
                self.longest[at] = self.longest[fail as usize];
            }
            self.hides_rest[at] |= self.hides_rest[fail as usize];
        }
    }

    /// The state whose beginning is that of `state` and one byte more, if there is
    /// one.
    fn child(&self, state: u32, byte: u8) -> Option<u32> {
        if state == ROOT {
            return Some(self.roots[usize::from(byte)]).filter(|child| *child != ROOT);
        }
        let (at, next) = (state as usize, state as usize + 1);
        let follows = self.bytes.get(next) == Some(&byte)
            && self.depth.get(next) == Some(&(self.depth[at] + 1));
        match follows {
            true => Some(state + 1),
            false => self.branches.get(&(state, byte)).copied(),
        }
    }

    /// Goes on by one byte.
    fn next(&self, mut state: u32, byte: u8) -> u32 {
        loop {
            if let Some(child) = self.child(state, byte) {
                return child;
            }
            if state == ROOT {
                return ROOT;
            }
            state = self.fail[state as usize];
        }
    }

    /// Finds what is to be hidden in a text, in order; what overlaps is one. If the
    /// text was cut, the beginning of a needle at its end, of at least `fewest`
    /// characters, is hidden, too.
    pub(super) fn find(&self, text: &str, cut: Option<usize>) -> Vec<Find> {
        let mut found = Vec::new();
        // Half a character, which would be the end of none.
        let whole = text.trim_end_matches('\u{fffd}').len();
        let (mut state, mut last) = (ROOT, ROOT);
        for (at, byte) in text.bytes().enumerate() {
            state = self.next(state, byte);
            let here = state as usize;
            if let Some((length, owner)) = self.needles.get(self.longest[here] as usize) {
                let start = (at + 1).saturating_sub(*length as usize);
                let end = if self.hides_rest[here] { text.len() } else { at + 1 };
                hide(&mut found, (start..end, *owner));
                if self.hides_rest[here] {
                    return found;
                }
            }
            if at + 1 == whole {
                last = state;
            }
        }
        if let Some(fewest) = cut.filter(|_| last != ROOT) {
            let start = whole - self.depth[last as usize] as usize;
            let is_enough = |end: &str| end.chars().nth(fewest.saturating_sub(1)).is_some();
            if text.get(start..whole).is_some_and(is_enough)
                && let Some((_, owner)) = self.needles.get(self.first[last as usize] as usize)
            {
                hide(&mut found, (start..whole, *owner));
            }
        }
        found
    }

    /// The number of its states.
    pub(super) fn states(&self) -> usize {
        self.depth.len()
    }
}

/// Adds a find that ends behind all others: those that it covers go, and one that
/// it overlaps grows.
fn hide(found: &mut Vec<Find>, (range, owner): Find) {
    while found.last().is_some_and(|(last, _)| last.start >= range.start) {
        found.pop();
    }
    match found.last_mut() {
        Some((last, _)) if last.end > range.start => last.end = last.end.max(range.end),
        _ => found.push((range, owner)),
    }
}
