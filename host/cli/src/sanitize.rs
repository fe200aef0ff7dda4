//! Sanitizes text from a host for a terminal. Logs, messages and names are untrusted,
//! and a terminal obeys control characters.

use std::fmt::Write as _;

use exosphere_domain::unicode::{is_invisible, is_separator};

/// Returns whether a terminal might act on this character, or mislead a reader by it. These are
/// C0 and C1 controls, the line separators of Unicode, and invisible characters: for example marks
/// that change the direction of text.
fn is_unsafe(c: char) -> bool {
    c.is_control() || is_separator(c) || is_invisible(c)
}

/// Returns the text on one line, with unsafe characters escaped: `\n`, `\u{1b}`.
pub fn line(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) {
            clean.extend(c.escape_default());
        } else {
            clean.push(c);
        }
    }
    clean
}

/// Returns the text with unsafe characters escaped and its line breaks kept.
pub fn lines(text: &str) -> String {
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Returns equivalent JSON without unsafe characters. In JSON text they occur only
/// inside strings, where they may be written as escapes, and as white space.
pub fn json(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => clean.push(c),
            '\r' => clean.push(' '),
            c if is_unsafe(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // A write to a string cannot fail.
                    let _ = write!(clean, "\\u{unit:04x}");
                }
            }
            c => clean.push(c),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE_TEXT: &str =
        "a\u{1b}[2Jb\r\u{9b}31m\u{7f}\u{202e}c\u{feff}\u{200b}\u{ad}\u{e0041}ü✓";

    #[test]
    fn unsafe_characters_are_escaped() {
        for clean in [line(HOSTILE_TEXT), lines(HOSTILE_TEXT)] {
            assert!(!clean.chars().any(is_unsafe), "{clean:?}");
            assert!(clean.contains("\\u{1b}[2J") && clean.ends_with("ü✓"), "{clean:?}");
        }
    }

    #[test]
    fn line_breaks_are_kept() {
        assert_eq!(lines("a\nb\tc"), "a\nb\\tc");
        assert_eq!(line("a\nb"), "a\\nb");
    }

    #[test]
    fn json_keeps_its_meaning() {
        let value =
            serde_json::json!({ "k\u{9b}": ["\u{202e}\u{7f}\u{200b}\u{e0041}", "\n\u{1b}"] });
        let text = json(&serde_json::to_string_pretty(&value).unwrap());
        let read = exosphere_domain::json::read_stored(&text);
        assert_eq!(read.unwrap(), value);
        assert!(!text.chars().any(|c| is_unsafe(c) && c != '\n'), "{text:?}");
    }
}
