//! The node `split`: a fanout of chunks.

use std::num::NonZeroU32;

use exosphere_sdk::prelude::*;

/// The longest chunk, in bytes. In JSON one byte may become six (`\u0001`), and an
/// output must stay below 4 MiB.
const MAX_CHUNK: usize = 512 * 1024;

#[derive(Deserialize, JsonSchema)]
pub struct Input {
    text: String,
    /// The most chunks, unless the text is so long that it needs more.
    #[serde(default = "eight")]
    chunks: NonZeroU32,
}

#[derive(Serialize, JsonSchema)]
pub struct Chunk {
    chunk: String,
}

fn eight() -> NonZeroU32 {
    const { NonZeroU32::new(8).unwrap() }
}

/// Cuts a text into chunks of about the same length, which join to the text.
pub fn split(input: Input) -> Result<Flow<Chunk>> {
    let mut rest = input.text.as_str();
    let wanted = (input.chunks.get() as usize).max(rest.len().div_ceil(MAX_CHUNK));
    let mut chunks = Vec::new();
    while !rest.is_empty() {
        let left = wanted.saturating_sub(chunks.len()).max(1);
        let about = rest.len().div_ceil(left).min(MAX_CHUNK);
        let (chunk, after) = rest.split_at(cut(rest, about)?);
        chunks.push(Chunk { chunk: chunk.to_owned() });
        rest = after;
    }
    log::debug!("{} bytes in {} chunks", input.text.len(), chunks.len());
    Ok(Flow::many(chunks))
}

/// Returns the position at which to cut a text after about `about` bytes, more than
/// zero: the last edge of a word before that, or else the first one after it.
fn cut(text: &str, about: usize) -> Result<usize> {
    let before = (1..=about).rev().find(|&at| is_edge(text, at));
    let at = before.or_else(|| (about..=text.len()).find(|&at| is_edge(text, at)));
    at.filter(|&at| at <= MAX_CHUNK).ok_or_else(|| {
        Error::permanent(format!("the text has a word of more than {MAX_CHUNK} bytes"))
    })
}

/// Returns whether a position is outside of words.
fn is_edge(text: &str, at: usize) -> bool {
    let letter = |at: usize| text.as_bytes().get(at).is_some_and(u8::is_ascii_alphabetic);
    text.is_char_boundary(at) && !(letter(at - 1) && letter(at))
}

#[cfg(test)]
mod tests {
    use exosphere_sdk::testing::Host;

    use super::*;
    use crate::PLUGIN;

    fn chunks(inputs: Value) -> Vec<String> {
        let outputs = Host::new().run(&PLUGIN, "split", inputs).outputs();
        outputs.iter().map(|output| output["chunk"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn split_cuts_no_word_and_loses_nothing() {
        let text = "The quick, brown fox – naïve 'n' lazy – jumps.\n".repeat(20);
        for wanted in [1, 2, 3, 7, 50, 1_000] {
            let found = chunks(json!({"text": text, "chunks": wanted}));
            assert!(found.len() <= wanted, "{wanted}");
            assert_eq!(found.concat(), text);
            for pair in found.windows(2) {
                let end = pair[0].ends_with(|c: char| c.is_ascii_alphabetic());
                let start = pair[1].starts_with(|c: char| c.is_ascii_alphabetic());
                assert!(!(end && start), "{pair:?}");
            }
        }
        assert_eq!(chunks(json!({"text": text})).len(), 8);
    }

    #[test]
    fn small_texts_get_few_chunks() {
        assert_eq!(chunks(json!({"text": ""})), Vec::<String>::new());
        assert_eq!(chunks(json!({"text": "word", "chunks": 3})), ["word"]);
        assert_eq!(chunks(json!({"text": "ab cd", "chunks": 2})), ["ab ", "cd"]);
        assert_eq!(chunks(json!({"text": " ", "chunks": 9})), [" "]);
    }

    #[test]
    fn long_texts_get_more_chunks() {
        let text = "word ".repeat(MAX_CHUNK);
        let found = chunks(json!({"text": text, "chunks": 1}));
        assert!(found.len() >= 5 && found.iter().all(|chunk| chunk.len() <= MAX_CHUNK));
        assert_eq!(found.concat(), text);
    }

    #[test]
    fn unsplittable_texts_fail_permanently() {
        let word = "x".repeat(MAX_CHUNK + 1);
        let attempt = Host::new().run(&PLUGIN, "split", json!({"text": word}));
        assert!(!attempt.failure().retryable);
        let attempt = Host::new().run(&PLUGIN, "split", json!({"text": "a", "chunks": 0}));
        assert!(attempt.failure().message.contains("at `chunks`"), "{attempt:?}");
    }
}
