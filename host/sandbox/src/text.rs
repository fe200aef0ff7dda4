//! Makes a guest's words safe to show: in a terminal, a log or a page.
//!
//! Only what a program would act on is taken out. Escaping for HTML or JSON is
//! the business of whoever writes those.

/// Whether a character may be shown: no control character but the tab, and
/// none that turns the direction of the text around it.
fn is_shown(c: char) -> bool {
    let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !turns && (c == '\t' || !c.is_control())
}

/// One line, without escape sequences and control characters.
pub(crate) fn clean_line(line: &str) -> String {
    let mut clean = String::with_capacity(line.len());
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        if c == '\u{1b}' {
            skip_escape(&mut rest);
        } else if is_shown(c) {
            clean.push(c);
        }
    }
    clean
}

/// Several lines; the line ends stay.
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

/// The longest beginning of a text that has at most so many bytes.
pub(crate) fn cut(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default()
}

/// Goes past what follows an ESC: `[` up to the final byte of a control
/// sequence, `]` up to the bell or the string's end, or one character.
fn skip_escape(rest: &mut std::str::Chars<'_>) {
    match rest.next() {
        Some('[') => {
            rest.find(|c| ('\u{40}'..='\u{7e}').contains(c));
        }
        Some(']') => {
            while let Some(c) = rest.next() {
                match c {
                    '\u{7}' => break,
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
    fn what_a_terminal_would_act_on_goes() {
        assert_eq!(clean_line("\u{1b}[31mred\u{1b}[0m\ttab\u{8}\u{7}"), "red\ttab");
        assert_eq!(clean_line("\u{1b}]0;title\u{7}a\u{1b}]8;;x\u{1b}\\b"), "ab");
        assert_eq!(clean_line("a\u{202e}b\u{9b}c\u{1b}"), "abc");
        assert_eq!(clean_lines("a\r\nb\u{1b}[2J\n"), "a\nb");
        assert_eq!(cut("häh", 2), "h");
    }
}
