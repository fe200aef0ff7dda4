//! Rules for the words of comments and documents.

use super::File;

/// Beginnings of comments that do not name their subject.
const OPENINGS: [&str; 4] = ["What", "Who", "So many", "Its "];

/// Beginnings of a doc comment that do not name its subject, and that are valid in its
/// later lines.
const FIRST_OPENINGS: [&str; 2] = ["Whether ", "The same "];

/// Marks of comments: of an item, of a module, and of SQL.
const MARKS: [&str; 3] = ["/// ", "//! ", "-- "];

/// Phrases with a plainer form, and that form.
const PHRASES: [(&str, &str); 13] = [
    ("at hand", "cached"),
    ("anew", "again"),
    ("so many", "up to `n`"),
    ("of ours", "internal error"),
    ("what it comes to", "the result"),
    ("what they come to", "the results"),
    ("in good order", "gracefully"),
    ("go on", "continue"),
    ("goes on", "continues"),
    ("gone on", "continued"),
    ("is not there", "does not exist"),
    ("nobody", "no host, no caller"),
    ("when first needed", "on the first use"),
];

/// Finds comments and prose with words that the style rules out.
pub fn banned(file: &File) -> Vec<String> {
    let is_source = file.has_extension("rs") || file.has_extension("sql");
    let (mut breaches, mut is_code, mut previous) = (Vec::new(), false, "");
    for (number, line) in file.lines() {
        let text = line.trim_start();
        if is_source {
            let opening = opening(line).or_else(|| first_opening(text, previous));
            breaches.extend(opening.map(|found| {
                file.breach(number, &format!("a comment begins with `{found}`: name the subject"))
            }));
        }
        is_code ^= file.has_extension("md") && text.starts_with("```");
        let is_prose = if is_source {
            ["//", "--"].iter().any(|mark| text.starts_with(mark))
        } else {
            file.has_extension("md") && !is_code
        };
        if is_prose {
            breaches.extend(phrases(line).map(|(phrase, replacement)| {
                file.breach(
                    number,
                    &format!("`{phrase}`: write \"{replacement}\", or say it plainly"),
                )
            }));
        }
        previous = text;
    }
    breaches
}

/// Returns the banned opening of a comment in a line.
fn opening(line: &str) -> Option<&'static str> {
    OPENINGS.into_iter().find(|opening| {
        MARKS
            .iter()
            .any(|mark| line.split(mark).skip(1).any(|comment| comment.starts_with(opening)))
    })
}

/// Returns the banned opening of a doc comment that begins in a line.
fn first_opening(text: &str, previous: &str) -> Option<&'static str> {
    let comment = text.strip_prefix("/// ").filter(|_| !previous.starts_with("///"))?;
    FIRST_OPENINGS.into_iter().find(|opening| comment.starts_with(opening))
}

/// Returns the banned phrases of a line, in whole words and any case.
fn phrases(line: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let line = line.to_lowercase();
    PHRASES.into_iter().filter(move |(phrase, _)| {
        line.match_indices(phrase).any(|(start, _)| {
            let is_end = |letter: Option<char>| letter.is_none_or(|it| !it.is_alphanumeric());
            is_end(line[..start].chars().next_back())
                && is_end(line[start + phrase.len()..].chars().next())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[test]
    fn comments_name_their_subject() {
        for opening in OPENINGS {
            let invalid = format!("    /// {opening}ever\n");
            assert_eq!(banned(&file("a.rs", &invalid)).len(), 1, "{invalid}");
        }
        let invalid = ["a();\n/// Wheth", "er it is.\n/// The same again.\n"].concat();
        assert_eq!(banned(&file("a.rs", &invalid)).len(), 1);
        let valid = "/// Returns the names.\n/// Whether one is free, it does not tell.\n";
        assert_eq!(banned(&file("a.rs", valid)), Vec::<String>::new());
        assert_eq!(banned(&file("a.sql", &["-- W", "ho has it\n"].concat())).len(), 1);
    }

    #[test]
    fn phrases_have_plain_forms() {
        for (phrase, _) in PHRASES {
            let text = format!("It is {phrase}.\n```\n{phrase}\n```\n");
            assert_eq!(banned(&file("a.md", &text)).len(), 1, "{phrase}");
            let source = format!("// It is {phrase}.\nlet text = \"{phrase}\";\n");
            assert_eq!(banned(&file("a.rs", &source)).len(), 1, "{phrase}");
        }
        assert_eq!(banned(&file("a.md", "A chanterelle at handover.\n")), Vec::<String>::new());
    }
}
