//! The text of the demo, and a reference count of its words.
//!
//! A word is a maximal run of ASCII letters, in lower case.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::MAX_SHOWN_WORDS;

/// A word, and its number of occurrences.
pub type Word = (String, u64);

/// The longest text, in bytes. It goes to the host as one input of a run.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// A text file.
pub struct Text {
    path: PathBuf,
    text: String,
}

impl Text {
    /// Reads a file, if its text is valid for the demo.
    pub fn read(path: PathBuf) -> Result<Self> {
        let name = path.display();
        let size = fs::metadata(&path).with_context(|| format!("cannot read {name}"))?.len();
        ensure!(
            size <= MAX_BYTES,
            "{name} has {size} bytes; the demo takes texts of up to {MAX_BYTES} (16 MiB), so cut \
             off a part: head -c {MAX_BYTES}"
        );
        let bytes = fs::read(&path).with_context(|| format!("cannot read {name}"))?;
        let text = String::from_utf8(bytes);
        let text = text.with_context(|| format!("{name} is not UTF-8; convert it with iconv"))?;
        ensure!(!text.is_empty(), "{name} is empty: there is nothing to count");
        Ok(Text { path, text })
    }

    /// Returns the file as the input `text` on a command line.
    pub fn as_input(&self) -> OsString {
        let mut input = OsString::from("text=@");
        input.push(&self.path);
        input
    }

    /// Fails unless `words` are the most frequent words.
    pub fn compare(&self, words: &[Word]) -> Result<()> {
        let expected = top(&self.text);
        ensure!(
            words == expected,
            "the run counted wrongly: it has {words:?}, a plain count has {expected:?}"
        );
        Ok(())
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.file_name().unwrap_or(self.path.as_os_str());
        write!(f, "{} ({} bytes)", path.display(), self.text.len())
    }
}

/// Returns the most frequent words; words of equal count are in alphabetical order.
fn top(text: &str) -> Vec<Word> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let text = text.to_ascii_lowercase();
    for word in text.split(|c: char| !c.is_ascii_lowercase()).filter(|word| !word.is_empty()) {
        *counts.entry(word.to_owned()).or_default() += 1;
    }
    let mut words: Vec<Word> = counts.into_iter().collect();
    // The sort is stable, so words of equal count stay in alphabetical order.
    words.sort_by_key(|(_, count)| Reverse(*count));
    words.truncate(MAX_SHOWN_WORDS);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[(&str, u64)]) -> Vec<Word> {
        words.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect()
    }

    #[test]
    fn words_are_runs_of_ascii_letters() {
        assert_eq!(top("Don't!\nnaïve don"), words(&[("don", 2), ("na", 1), ("t", 1), ("ve", 1)]));
        assert_eq!(top("b a 1 c_b"), words(&[("b", 2), ("a", 1), ("c", 1)]));
        assert_eq!(top("0 - ü"), words(&[]));
        assert_eq!(top("a b c d e f g h i j k").len(), MAX_SHOWN_WORDS);
    }

    #[test]
    fn uncountable_texts_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        let refused = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            Text::read(path.clone()).err().map(|error| format!("{error:#}"))
        };
        assert!(refused(b"").unwrap().contains("empty"));
        assert!(refused(b"\xff").unwrap().contains("UTF-8"));
        assert!(refused(&vec![b'a'; MAX_BYTES as usize + 1]).unwrap().contains("16 MiB"));
        assert_eq!(refused(&vec![b'a'; MAX_BYTES as usize]), None);
        assert!(Text::read(folder.path().join("none")).is_err());
    }
}
