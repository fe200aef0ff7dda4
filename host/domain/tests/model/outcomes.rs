//! Random fates of executions. A draw depends on the state's path and on how often it was executed,
//! never on the order in which states were created.
//!
//! Not here: the effects of an outcome.

use crate::shape::Graph;

/// A small, fast and portable random generator (splitmix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Creates a generator that depends on a seed alone.
    pub fn new(seed: u64) -> Self {
        Dice(seed)
    }

    /// Creates a generator that depends on a seed, a text and a number.
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

    /// Returns a number below `most`, which is not 0.
    pub fn below(&mut self, most: usize) -> usize {
        (self.roll() % most as u64) as usize
    }

    /// Returns true with a probability of `often` percent.
    pub fn percent(&mut self, often: u32) -> bool {
        self.below(100) < often as usize
    }

    /// Returns an element of a list that is not empty.
    pub fn pick<T: Clone>(&mut self, several: &[T]) -> T {
        several[self.below(several.len())].clone()
    }

    /// Shuffles a list.
    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        (1..things.len()).rev().for_each(|at| things.swap(at, self.below(at + 1)));
    }
}

/// The fate of one execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// A success with this many outputs.
    Outputs(u32),
    /// A prune: the branch ends.
    Prune,
    /// A requeue: again, later.
    Requeue,
    /// A failure of this kind.
    Fail(&'static str),
    /// A poison state: the host dies of it, with all its claims.
    KillsHost,
    /// A release: the host stopped before it began.
    Released,
    /// A store conflict: a key had changed.
    Conflict,
}

/// The fates of one run.
#[derive(Debug, Clone)]
pub struct Fates {
    /// The seed of all draws.
    pub seed: u64,
    /// Percentage of executions that fail.
    pub fails: u32,
    /// Percentage of executions that prune their branch.
    pub prunes: u32,
    /// Percentage of executions that requeue.
    pub repeats: u32,
    /// Maximum of outputs.
    pub fanout: u32,
}

/// Executions of a state after which it comes to an end.
const PATIENCE: u32 = 12;

impl Fates {
    /// Draws the fate of an execution of the state at `key`, which ended `before` times already. An
    /// execution that was lost with a host counts only if it killed that host. So no draw depends
    /// on what happened to other states.
    pub fn draw(&self, key: &str, before: u32) -> Fate {
        // Some states are unlucky: each attempt has the same trouble.
        let luck = Dice::of(self.seed ^ 1, key, 0).below(100);
        let mut dice = Dice::of(self.seed, key, before);
        // A run whose root fails ends at once and shows little, so roots are spared.
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
        // No output at all is a case of its own, though not a common one.
        if dice.percent(8 / spared) {
            return Fate::Outputs(0);
        }
        Fate::Outputs(1 + dice.below(self.fanout as usize) as u32)
    }
}

/// Returns the largest fanout, up to 4, with which a run has at most `most` states in every case.
pub fn fanout_within(graph: &Graph, most: u64) -> Option<u32> {
    (1..=4).rev().find(|fanout| {
        let states = (0..graph.nodes.len()).map(|node| states_at(graph, node, *fanout));
        states.fold(0, u64::saturating_add) <= most
    })
}

/// Returns the maximum of states at a node.
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
