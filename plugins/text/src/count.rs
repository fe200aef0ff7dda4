//! The node `count`: counts words, in each branch of the fanout.

use std::collections::BTreeMap;

use exosphere_sdk::prelude::*;

#[derive(Deserialize, JsonSchema)]
pub struct Input {
    chunk: String,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// The number of occurrences of each word.
    counts: BTreeMap<String, u64>,
    /// The number of words.
    words: u64,
}

/// Counts the words of a chunk.
pub fn count(input: Input) -> Result<Output> {
    let mut counts = BTreeMap::new();
    let mut words = 0;
    for word in input.chunk.split(|c: char| !c.is_ascii_alphabetic()).filter(|w| !w.is_empty()) {
        *counts.entry(word.to_ascii_lowercase()).or_default() += 1;
        words += 1;
    }
    // Other branches add at the same time: increments merge, a set would conflict.
    store::increment("words", i64::try_from(words)?);
    store::increment("chunks", 1);
    Ok(Output { counts, words })
}

#[cfg(test)]
mod tests {
    use exosphere_sdk::testing::Host;

    use super::*;
    use crate::PLUGIN;

    #[test]
    fn words_are_lower_case_ascii_runs() {
        let mut host = Host::new().store("words", "10");
        let chunk = "Don't stop, naïve DON: x2y_z";
        let output = host.run(&PLUGIN, "count", json!({"chunk": chunk})).output();
        let counts = json!({"don": 2, "t": 1, "stop": 1, "na": 1, "ve": 1, "x": 1, "y": 1, "z": 1});
        assert_eq!(output, json!({"counts": counts, "words": 9}));
        assert_eq!((host.stored("words"), host.stored("chunks")), (Some("19"), Some("1")));
    }

    #[test]
    fn a_chunk_without_words_counts_zero() {
        let output = Host::new().run(&PLUGIN, "count", json!({"chunk": " 1, 2!\n"})).output();
        assert_eq!(output, json!({"counts": {}, "words": 0}));
    }
}
