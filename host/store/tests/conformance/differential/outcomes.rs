//! Random outcomes: graphs, outcomes of executions and writes, all from a seed.

use exosphere_domain::failure::{Failure, FailureKind};
use exosphere_domain::graph::testing::GraphBuilder;
use exosphere_domain::journal::{Entry, Journal};
use exosphere_domain::limits::Usage;
use exosphere_domain::outcome::Outcome;
use exosphere_domain::testing::SeededRng;
use serde_json::{Value, json};

/// The unit of all delays: 15 minutes. A test takes less time, so that its duration does not decide
/// which states are due.
pub const QUARTER_HOUR_MS: i64 = 15 * 60 * 1000;

/// Returns graphs that use every feature of the store: nested and parallel unites, strategies,
/// retry policies, store values.
pub fn builders() -> Vec<GraphBuilder> {
    let fan = || GraphBuilder::from_text("R > U; U > X; X > W; W(U) > Z");
    let nested = || GraphBuilder::from_text("A > B C; B > G F; G > E; E(B) > D; C > D; D(A)");
    let policy = |max_retries: u32, strategy: &str, backoff: i64| {
        json!({"max_retries": max_retries, "strategy": strategy,
               "backoff_factor": backoff})
    };
    let all = vec![
        fan().with("X", |node| node["retry_policy"] = policy(2, "FIXED", 0)),
        fan()
            .with("X", |node| {
                node["retry_policy"] = policy(3, "FIXED_EQUAL_JITTER", 4 * QUARTER_HOUR_MS)
            })
            .with("W", |node| node["unites"]["on_empty"] = json!("RUN"))
            .store(json!({"keep": true, "default_values": {"a": "default"}}))
            .input("X", "a", "${{ store.a }}")
            .input("Z", "a", "${{ store.a }}"),
        nested()
            .with("E", |node| {
                node["unites"]["strategy"] = json!("ALL_DONE");
                node["unites"]["max_failed"] = json!("40%");
            })
            .with("G", |node| node["retry_policy"] = policy(1, "LINEAR", QUARTER_HOUR_MS)),
        nested().store(json!({"keep": true})),
        GraphBuilder::from_text("U > X; X > Y Z; Y > W1; Z > W2; W1(U) > J; W2(U) > J; J(U)")
            .with("W1", |node| node["unites"]["strategy"] = json!("ALL_DONE")),
        GraphBuilder::from_text("A > B; B > C D")
            .store(json!({"default_values": {"a": "1", "n": "0"}}))
            .input("B", "a", "${{ store.a }} and ${{ store.n }}")
            .input("D", "n", "${{ store.n }}"),
    ];
    // All other retries are due after a quarter of an hour, too.
    let nodes = ["R", "U", "X", "W", "Z", "A", "B", "C", "D", "E", "F", "G", "Y", "W1", "W2", "J"];
    let other = |node: &mut Value| {
        if node["retry_policy"].is_null() {
            node["retry_policy"] = policy(2, "EXPONENTIAL", QUARTER_HOUR_MS);
        }
    };
    let each = |builder: GraphBuilder| {
        nodes.iter().fold(builder, |builder, node| builder.with(node, other))
    };
    all.into_iter().map(each).collect()
}

/// Texts that are difficult for databases.
const TEXTS: [&str; 7] = ["", "plain", "7", "NUL \0 and \u{1}0", "\u{1}", "ä𝄞'\"\\", "a\nb\tc"];

/// Draws the outcome of one execution.
pub fn outcome(rng: &mut SeededRng, is_root: bool) -> Outcome {
    let text = TEXTS[rng.below(TEXTS.len())];
    match rng.below(if is_root { 70 } else { 100 }) {
        0..55 => {
            let count = [0, 1, 1, 1, 2, 2, 3, 4][rng.below(8)];
            let body = |at| json!({"at": at, "said": text}).to_string();
            Outcome::Outputs((0..count).map(body).collect())
        }
        55..60 => Outcome::RequeueAfter(QUARTER_HOUR_MS * (1 + rng.below(4) as i64)),
        60..64 => Outcome::Released,
        64..67 => Outcome::HostLost,
        67..70 => Outcome::Conflict,
        70..75 => Outcome::Prune(rng.percent(50).then(|| json!({"why": text}).to_string())),
        _ => {
            let kinds = [
                FailureKind::Retryable,
                FailureKind::Retryable,
                FailureKind::Timeout,
                FailureKind::Permanent,
                FailureKind::InvalidOutput,
                FailureKind::Trap,
            ];
            let failure = Failure::new(kinds[rng.below(kinds.len())], text);
            Outcome::Failed(if rng.percent(30) {
                failure.with(json!({"said": text, "limit": rng.below(99)}))
            } else {
                failure
            })
        }
    }
}

/// Draws the journal of an execution, for a run whose store holds `entries`.
pub fn journal(rng: &mut SeededRng, entries: &[(String, Entry)]) -> Journal {
    let mut journal = Journal::default();
    if rng.percent(15) {
        journal.record_snapshot(entries.iter().cloned());
    }
    for _ in 0..1 + rng.below(3) {
        let key = ["a", "b", "n", "n", "\u{1}0", "c", "d", "e"][rng.below(8)];
        if rng.percent(40) {
            let found = entries.iter().find(|(known, _)| known == key);
            journal.record_read(key, found.map(|(_, entry)| entry.clone()));
        }
        // A value that it read has changed since.
        if rng.percent(8) {
            journal.record_read(key, Some(Entry { value: "old".into(), version: 0 }));
        }
        let written = match rng.below(10) {
            0..4 => journal.set(key, TEXTS[rng.below(TEXTS.len())].into()),
            4 => journal.remove(key),
            5 => journal.set(key, "x".repeat(rng.below(250))),
            6 => journal.increment(key, i64::MAX - rng.below(3) as i64),
            _ => journal.increment(key, rng.below(9) as i64 - 4),
        };
        // An attempt that cannot add continues without the write.
        drop(written);
    }
    journal
}

pub fn logs(rng: &mut SeededRng) -> Option<String> {
    rng.percent(20).then(|| json!([TEXTS[rng.below(TEXTS.len())]]).to_string())
}

pub fn usage(rng: &mut SeededRng) -> Option<Usage> {
    rng.percent(80).then(|| Usage {
        cpu_us: rng.below(1 << 40) as u64,
        peak_memory_bytes: rng.below(1 << 32) as u64,
        host_calls: rng.below(99) as u32,
        input_bytes: rng.below(999) as u64,
        output_bytes: rng.below(999) as u64,
    })
}
