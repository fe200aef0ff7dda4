//! Random graphs, outcomes of executions and writes. All of it follows from a seed.

use exosphere_domain::failure::{Failure, FailureKind};
use exosphere_domain::graph::sketch::Sketch;
use exosphere_domain::journal::{Entry, Journal};
use exosphere_domain::limits::Usage;
use exosphere_domain::outcome::Outcome;
use serde_json::{Value, json};

/// The unit of all delays in milliseconds. A history takes less time, so that chance does not
/// decide which states are due.
pub const QUARTER: i64 = 15 * 60 * 1000;

/// A small and portable random generator (splitmix64).
pub struct Dice(pub u64);

impl Dice {
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
    pub fn percent(&mut self, often: usize) -> bool {
        self.below(100) < often
    }

    /// Returns an element of a list, if there are any.
    pub fn pick<'a, T>(&mut self, several: &'a [T]) -> Option<&'a T> {
        match several.len() {
            0 => None,
            count => several.get(self.below(count)),
        }
    }

    /// Takes an element out of a list, if there are any.
    pub fn take<T>(&mut self, several: &mut Vec<T>) -> Option<T> {
        match several.len() {
            0 => None,
            count => Some(several.swap_remove(self.below(count))),
        }
    }
}

/// Returns graphs with every feature of the store: unites in unites and beside each other,
/// strategies, policies, store values.
pub fn sketches() -> Vec<Sketch> {
    let fan = || Sketch::of("R > U; U > X; X > W; W(U) > Z");
    let nested = || Sketch::of("A > B C; B > G F; G > E; E(B) > D; C > D; D(A)");
    let policy = |max_retries: u32, strategy: &str, backoff: i64| json!({"max_retries": max_retries, "strategy": strategy, "backoff_factor": backoff});
    let all = vec![
        fan().with("X", |node| node["retry_policy"] = policy(2, "FIXED", 0)),
        fan()
            .with("X", |node| node["retry_policy"] = policy(3, "FIXED_EQUAL_JITTER", 4 * QUARTER))
            .with("W", |node| node["unites"]["on_empty"] = json!("RUN"))
            .store(json!({"keep": true, "default_values": {"a": "default"}}))
            .input("X", "a", "${{ store.a }}")
            .input("Z", "a", "${{ store.a }}"),
        nested()
            .with("E", |node| {
                node["unites"]["strategy"] = json!("ALL_DONE");
                node["unites"]["max_failed"] = json!("40%");
            })
            .with("G", |node| node["retry_policy"] = policy(1, "LINEAR", QUARTER)),
        nested().store(json!({"keep": true})),
        Sketch::of("U > X; X > Y Z; Y > W1; Z > W2; W1(U) > J; W2(U) > J; J(U)")
            .with("W1", |node| node["unites"]["strategy"] = json!("ALL_DONE")),
        Sketch::of("A > B; B > C D")
            .store(json!({"default_values": {"a": "1", "n": "0"}}))
            .input("B", "a", "${{ store.a }} and ${{ store.n }}")
            .input("D", "n", "${{ store.n }}"),
    ];
    // Nothing else becomes due within seconds, either.
    let nodes = ["R", "U", "X", "W", "Z", "A", "B", "C", "D", "E", "F", "G", "Y", "W1", "W2", "J"];
    let other = |node: &mut Value| {
        if node["retry_policy"].is_null() {
            node["retry_policy"] = policy(2, "EXPONENTIAL", QUARTER);
        }
    };
    let each = |sketch: Sketch| nodes.iter().fold(sketch, |sketch, node| sketch.with(node, other));
    all.into_iter().map(each).collect()
}

/// Texts that are difficult for databases.
const TEXTS: [&str; 7] = ["", "plain", "7", "NUL \0 and \u{1}0", "\u{1}", "ä𝄞'\"\\", "a\nb\tc"];

/// Draws the outcome of one execution.
pub fn outcome(dice: &mut Dice, is_root: bool) -> Outcome {
    let words = TEXTS[dice.below(TEXTS.len())];
    match dice.below(if is_root { 70 } else { 100 }) {
        0..55 => {
            let count = [0, 1, 1, 1, 2, 2, 3, 4][dice.below(8)];
            let body = |at| json!({"at": at, "said": words}).to_string();
            Outcome::Outputs((0..count).map(body).collect())
        }
        55..60 => Outcome::RequeueAfter(QUARTER * (1 + dice.below(4) as i64)),
        60..64 => Outcome::Released,
        64..67 => Outcome::HostLost,
        67..70 => Outcome::Conflict,
        70..75 => Outcome::Prune(dice.percent(50).then(|| json!({"why": words}).to_string())),
        _ => {
            let kinds = [
                FailureKind::Retryable,
                FailureKind::Retryable,
                FailureKind::Timeout,
                FailureKind::Permanent,
                FailureKind::InvalidOutput,
                FailureKind::Trap,
            ];
            let failure = Failure::new(kinds[dice.below(kinds.len())], words);
            Outcome::Failed(match dice.percent(30) {
                true => failure.with(json!({"said": words, "limit": dice.below(99)})),
                false => failure,
            })
        }
    }
}

/// Draws the journal of an execution, for a run whose store holds `entries`.
pub fn journal(dice: &mut Dice, entries: &[(String, Entry)]) -> Journal {
    let mut journal = Journal::default();
    if dice.percent(15) {
        journal.record_snapshot(entries.iter().cloned());
    }
    for _ in 0..1 + dice.below(3) {
        let key = ["a", "b", "n", "n", "\u{1}0", "c", "d", "e"][dice.below(8)];
        if dice.percent(40) {
            let found = entries.iter().find(|(known, _)| known == key);
            journal.record_read(key, found.map(|(_, entry)| entry.clone()));
        }
        // A value that it read has changed since.
        if dice.percent(8) {
            journal.record_read(key, Some(Entry { value: "old".into(), version: 0 }));
        }
        let written = match dice.below(10) {
            0..4 => journal.set(key, TEXTS[dice.below(TEXTS.len())].into()),
            4 => journal.remove(key),
            5 => journal.set(key, "x".repeat(dice.below(250))),
            6 => journal.increment(key, i64::MAX - dice.below(3) as i64),
            _ => journal.increment(key, dice.below(9) as i64 - 4),
        };
        // An attempt that cannot add goes on without the write.
        drop(written);
    }
    journal
}

pub fn logs(dice: &mut Dice) -> Option<String> {
    dice.percent(20).then(|| json!([TEXTS[dice.below(TEXTS.len())]]).to_string())
}

pub fn usage(dice: &mut Dice) -> Option<Usage> {
    dice.percent(80).then(|| Usage {
        cpu_us: dice.below(1 << 40) as u64,
        peak_memory_bytes: dice.below(1 << 32) as u64,
        host_calls: dice.below(99) as u32,
        input_bytes: dice.below(999) as u64,
        output_bytes: dice.below(999) as u64,
    })
}
