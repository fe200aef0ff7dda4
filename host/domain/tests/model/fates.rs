//! What becomes of executions, by lot. A lot depends on the state's place and
//! on how often it was executed, never on the order in which states came.
//!
//! Not here: what an outcome brings about.

use crate::shape::Graph;

/// A source of lots: small, fast, the same everywhere (splitmix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Lots that depend on a seed alone.
    pub fn new(seed: u64) -> Self {
        Dice(seed)
    }

    /// Lots that depend on a seed, a text and a number.
    pub fn of(seed: u64, text: &str, number: u32) -> Self {
        let mix = |hash: u64, byte: u8| Dice(hash ^ u64::from(byte)).roll();
        Dice(text.bytes().fold(Dice(seed).roll() ^ u64::from(number), mix))
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `most`, which is not 0.
    pub fn below(&mut self, most: usize) -> usize {
        (self.roll() % most as u64) as usize
    }

    /// True so often in a hundred.
    pub fn percent(&mut self, often: u32) -> bool {
        self.below(100) < often as usize
    }

    /// One of several, of which there is at least one.
    pub fn pick<T: Clone>(&mut self, several: &[T]) -> T {
        several[self.below(several.len())].clone()
    }

    /// Brings things into another order.
    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        (1..things.len()).rev().for_each(|at| things.swap(at, self.below(at + 1)));
    }
}

/// What one execution comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// So many outputs.
    Outputs(u32),
    /// The branch ends.
    Prune,
    /// Again, later.
    Requeue,
    /// A failure of this kind.
    Fail(&'static str),
    /// The host dies of it, with all that it holds.
    KillsHost,
    /// The host stopped before it began.
    Released,
    /// A store key had changed.
    Conflict,
}

/// The lots of one run.
#[derive(Debug, Clone)]
pub struct Fates {
    /// What they all depend on.
    pub seed: u64,
    /// How many executions in a hundred fail.
    pub fails: u32,
    /// How many in a hundred end their branch.
    pub prunes: u32,
    /// How many in a hundred are to come again.
    pub repeats: u32,
    /// How many outputs there are at most.
    pub fanout: u32,
}

/// From so many executions on, a state comes to an end.
const PATIENCE: u32 = 12;

impl Fates {
    /// What the execution of the state at `key` comes to, which came to
    /// something `before` times. An execution that was lost with a host counts
    /// only if the host died of it: so no lot depends on what befell others.
    pub fn draw(&self, key: &str, before: u32) -> Fate {
        // Some states have it hard: each attempt meets the same misfortune.
        let luck = Dice::of(self.seed ^ 1, key, 0).below(100);
        let mut dice = Dice::of(self.seed, key, before);
        // A run whose root fails is soon told.
        let spared = if key == "/" { 6 } else { 1 };
        match (luck, before) {
            (0, ..PATIENCE) if self.repeats > 0 => return Fate::KillsHost,
            (1, ..PATIENCE) if self.repeats > 0 => return Fate::Conflict,
            _ => {}
        }
        if before < PATIENCE && dice.percent(self.repeats) {
            let kinds = [Fate::Requeue, Fate::Released, Fate::Conflict];
            return dice.pick(&kinds);
        }
        if dice.percent(self.fails / spared) {
            return match before < PATIENCE {
                true => Fate::Fail(dice.pick(&[
                    "retryable",
                    "retryable",
                    "timeout",
                    "permanent",
                    "permanent",
                    "invalid-output",
                ])),
                false => Fate::Fail("permanent"),
            };
        }
        if dice.percent(self.prunes / spared) {
            return Fate::Prune;
        }
        // None at all is worth a case of its own, though not a common one.
        if dice.percent(8 / spared) {
            return Fate::Outputs(0);
        }
        Fate::Outputs(1 + dice.below(self.fanout as usize) as u32)
    }
}

/// The most outputs, up to 4, with which a run of a graph has at most `most`
/// states, whatever happens.
pub fn fanout_within(graph: &Graph, most: u64) -> Option<u32> {
    (1..=4).rev().find(|fanout| {
        let states = (0..graph.nodes.len()).map(|node| states_at(graph, node, *fanout));
        states.fold(0, u64::saturating_add) <= most
    })
}

/// The most states at a node.
fn states_at(graph: &Graph, node: usize, fanout: u32) -> u64 {
    if let Some(unites) = &graph.nodes[node].unites {
        return states_at(graph, unites.source, fanout);
    }
    let parents: Vec<_> =
        (0..graph.nodes.len()).filter(|&at| graph.nodes[at].next.contains(&node)).collect();
    match parents.is_empty() {
        true => 1,
        false => parents
            .into_iter()
            .map(|parent| states_at(graph, parent, fanout).saturating_mul(fanout.into()))
            .fold(0, u64::saturating_add),
    }
}
