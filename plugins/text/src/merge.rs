//! The node `merge`: unites the branches.

use std::collections::BTreeMap;

use exosphere_sdk::prelude::*;

#[derive(Deserialize, JsonSchema)]
pub struct Input {
    /// The counts of each chunk; null where its branch failed.
    counts: Vec<Option<BTreeMap<String, u64>>>,
    /// The number of most frequent words to return.
    #[serde(default = "ten")]
    top: u32,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// The most frequent words, those of the same count in alphabetical order.
    top: Vec<Word>,
    /// The number of words.
    words: u64,
    /// The number of different words.
    distinct: usize,
    /// The number of missing chunks.
    missing: usize,
}

#[derive(Serialize, JsonSchema)]
struct Word {
    word: String,
    count: u64,
}

fn ten() -> u32 {
    10
}

/// Adds up the counts of all chunks.
pub fn merge(input: Input) -> Result<Output> {
    let missing = input.counts.iter().filter(|counts| counts.is_none()).count();
    let mut sums = BTreeMap::<String, u64>::new();
    for (word, count) in input.counts.into_iter().flatten().flatten() {
        *sums.entry(word).or_default() += count;
    }
    let words = sums.values().sum();
    let distinct = sums.len();
    let mut top: Vec<_> = sums.into_iter().map(|(word, count)| Word { word, count }).collect();
    // The sort is stable, and the words are already in alphabetical order.
    top.sort_by_key(|word| std::cmp::Reverse(word.count));
    top.truncate(input.top as usize);
    Ok(Output { top, words, distinct, missing })
}

#[cfg(test)]
mod tests {
    use exosphere_sdk::testing::Host;

    use super::*;
    use crate::PLUGIN;

    #[test]
    fn merge_sums_counts_and_ranks_words() {
        let counts = json!([{"b": 2, "c": 1}, null, {"a": 2, "c": 3}, {}]);
        let output =
            Host::new().run(&PLUGIN, "merge", json!({"counts": counts, "top": 2})).output();
        let top = json!([{"word": "c", "count": 4}, {"word": "a", "count": 2}]);
        assert_eq!(output, json!({"top": top, "words": 8, "distinct": 3, "missing": 1}));
    }

    #[test]
    fn merge_lists_ten_words_by_default() {
        let counts: BTreeMap<_, _> = ('a'..='z').map(|letter| (letter.to_string(), 1)).collect();
        let output = Host::new().run(&PLUGIN, "merge", json!({"counts": [counts]})).output();
        assert_eq!(output["top"].as_array().map(Vec::len), Some(10));
        assert_eq!(output["top"][9]["word"], "j");
    }

    #[test]
    fn merging_nothing_gives_zero() {
        let output = Host::new().run(&PLUGIN, "merge", json!({"counts": []})).output();
        assert_eq!(output, json!({"top": [], "words": 0, "distinct": 0, "missing": 0}));
    }

    #[test]
    fn the_three_nodes_work_together() {
        let text = "the cat and the hat and the bat ".repeat(30);
        let mut host = Host::new();
        let chunks = host.run(&PLUGIN, "split", json!({"text": text})).outputs();
        let counts: Vec<_> = chunks
            .into_iter()
            .map(|chunk| host.run(&PLUGIN, "count", chunk).output()["counts"].clone())
            .collect();
        let output = host.run(&PLUGIN, "merge", json!({"counts": counts})).output();
        assert_eq!(output["top"][0], json!({"word": "the", "count": 90}));
        assert_eq!(output["top"][1], json!({"word": "and", "count": 60}));
        assert_eq!(host.stored("words"), Some("240"));
        assert_eq!(host.stored("chunks"), Some("8"));
    }
}
