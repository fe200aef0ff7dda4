//! Makes a guest's text safe to show in a terminal, a log or a page.
//!
//! Removes only characters that a program would act on, and invisible ones. Not here:
//! escaping for HTML or JSON, which the writer of those does.

use std::str::Chars;

use exosphere_domain::unicode::{is_invisible, is_separator};

/// Returns whether a character may be shown.
fn is_shown(c: char) -> bool {
    c == '\t' || !(c.is_control() || is_separator(c) || is_invisible(c))
}

/// Cleans one line: removes escape sequences, control characters and invisible
/// characters.
pub(crate) fn clean_line(line: &str) -> String {
    let mut clean = String::with_capacity(line.len());
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => skip_escape(&mut rest),
            // A sequence that begins with a single C1 control character.
            '\u{80}'..='\u{9f}' => skip_body(char::from(c as u8 - 0x40), &mut rest),
            c if is_shown(c) => clean.push(c),
            _ => {}
        }
    }
    clean
}

/// Cleans several lines; the line ends stay.
pub(crate) fn clean_lines(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for (i, line) in text.lines().enumerate() {
        if i > 0 {
            clean.push('\n');
        }
        clean.push_str(&clean_line(line));
    }
    clean
}

/// Returns the longest prefix of a text that has at most `bytes` bytes.
pub(crate) fn cut(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default()
}

/// Skips the rest of a sequence after an ESC: intermediate characters, the one that
/// names its kind, and its body.
fn skip_escape(rest: &mut Chars<'_>) {
    if let Some(kind) = rest.find(|c| !('\u{20}'..='\u{2f}').contains(c)) {
        skip_body(kind, rest);
    }
}

/// Skips the body of a sequence. After `[` it extends to the final byte of a control
/// sequence; after `]` and the other string openers, to the bell or the string's end.
fn skip_body(kind: char, rest: &mut Chars<'_>) {
    match kind {
        '[' => {
            rest.find(|c| ('\u{40}'..='\u{7e}').contains(c));
        }
        'P' | 'X' | ']' | '^' | '_' => {
            while let Some(c) = rest.next() {
                match c {
                    '\u{7}' | '\u{9c}' => break,
                    '\u{1b}' => {
                        rest.next();
                        break;
                    }
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_sequences_are_removed() {
        for (text, expected) in [
            ("\u{1b}[31mred\u{1b}[0m\ttab\u{8}\u{7}", "red\ttab"),
            ("\u{1b}]0;title\u{7}a\u{1b}]8;;x\u{1b}\\b", "ab"),
            ("a\u{9b}31mb\u{9d}title\u{9c}c\u{85}d\u{1b}", "abcd"),
            (
                "a\u{1b}Pq#0\u{1b}\\b\u{1b}_x\u{7}c\u{1b}^x\u{9c}d\u{1b}Xx\u{1b}\\e\u{90}x\u{9c}f",
                "abcdef",
            ),
            ("a\u{1b}(Bb\u{1b}#8c\u{1b}cd\u{1b}7e", "abcde"),
            ("a\u{1b}[", "a"),
            ("a\u{1b}", "a"),
            ("a\u{1b}(", "a"),
            ("a\u{0}b\u{7f}c\rd", "abcd"),
        ] {
            assert_eq!(clean_line(text), expected, "{text:?}");
        }
        assert_eq!(clean_lines("a\r\nb\u{1b}[2J\n"), "a\nb");
        assert_eq!(cut("häh", 2), "h");
    }

    #[test]
    fn invisible_characters_are_removed() {
        for (case, characters) in [
            ("line separators", "\u{2028}\u{2029}\u{85}"),
            ("marks of direction", "\u{61c}\u{200e}\u{200f}\u{202a}\u{202e}\u{2066}\u{2069}"),
            ("no width", "\u{200b}\u{200c}\u{200d}\u{2060}\u{feff}\u{180e}\u{ad}\u{34f}"),
            ("variations", "\u{fe00}\u{fe0f}\u{e0100}\u{e01ef}\u{180b}"),
            ("tags", "\u{e0001}\u{e0041}\u{e007f}"),
            ("annotations", "\u{fff9}\u{fffa}\u{fffb}"),
            ("fillers", "\u{115f}\u{1160}\u{3164}\u{ffa0}"),
        ] {
            for c in characters.chars() {
                assert_eq!(clean_line(&format!("a{c}b")), "ab", "{case}: {c:?}");
            }
        }
        let kept = "ä 𝄞 \u{a0}e\u{301}\u{fffd} 日本 🦀\t…";
        assert_eq!(clean_line(kept), kept);
    }
}
