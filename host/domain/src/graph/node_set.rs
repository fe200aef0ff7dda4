//! Bit sets of nodes, so that sets of a thousand nodes are compared in a few
//! steps.
//!
//! Not here: nodes. A set holds indices below the size that it was made for.

/// A set of node indices.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeSet(Vec<u64>);

impl NodeSet {
    /// Returns the empty set for indices below `size`.
    pub fn empty(size: usize) -> Self {
        NodeSet(vec![0; size.div_ceil(64)])
    }

    /// Returns whether an index is in the set.
    pub fn contains(&self, ix: usize) -> bool {
        self.0.get(ix / 64).is_some_and(|word| word & (1 << (ix % 64)) != 0)
    }

    /// Inserts an index.
    pub fn insert(&mut self, ix: usize) {
        if let Some(word) = self.0.get_mut(ix / 64) {
            *word |= 1 << (ix % 64);
        }
    }

    /// Removes an index.
    pub fn remove(&mut self, ix: usize) {
        if let Some(word) = self.0.get_mut(ix / 64) {
            *word &= !(1 << (ix % 64));
        }
    }

    /// Inserts all indices of another set.
    pub fn union_with(&mut self, other: &NodeSet) {
        self.0.iter_mut().zip(&other.0).for_each(|(own_bits, other_bits)| *own_bits |= other_bits);
    }

    /// Keeps the indices that another set has too.
    pub fn intersect_with(&mut self, other: &NodeSet) {
        self.0.iter_mut().zip(&other.0).for_each(|(own_bits, other_bits)| *own_bits &= other_bits);
    }

    /// Returns whether two sets intersect.
    pub fn intersects(&self, other: &NodeSet) -> bool {
        self.0.iter().zip(&other.0).any(|(own_bits, other_bits)| own_bits & other_bits != 0)
    }

    /// Iterates over the indices of the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().flat_map(|(at, word)| {
            // Each step clears the lowest bit.
            let rest = std::iter::successors(Some(*word), |rest| Some(rest & rest.wrapping_sub(1)));
            rest.take_while(|rest| *rest != 0)
                .map(move |rest| at * 64 + rest.trailing_zeros() as usize)
        })
    }
}
