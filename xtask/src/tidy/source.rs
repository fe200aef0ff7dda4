//! Rules for sources: modules have a header, predicates return `bool`, and neither files nor lines
//! are too long.

use super::File;

/// Prefixes of functions that return `bool` and change nothing.
const PREDICATES: [&str; 3] = ["fn is_", "fn has_", "fn can_"];

/// The longest signature of a function, in lines.
const SIGNATURE_LINES: usize = 12;

/// The longest line of a source, in columns.
const MAX_COLUMNS: usize = 120;

/// The longest source, in lines. A longer one holds more than one idea.
const MAX_LINES: usize = 610;

/// Finds a source that is too long.
pub fn long(file: &File) -> Option<String> {
    let lines = file.text.lines().count();
    let message =
        format!("the file has {lines} lines, more than {MAX_LINES}: split it by its ideas");
    (lines > MAX_LINES).then(|| file.breach(0, &message))
}

/// Finds a module without a header.
pub fn header(file: &File) -> Option<String> {
    (!file.text.starts_with("//!"))
        .then(|| file.breach(0, "the module does not say what it is: begin with `//!`"))
}

/// Finds predicates that do not return `bool`.
pub fn predicates(file: &File) -> Vec<String> {
    let lines: Vec<&str> = file.text.lines().collect();
    let breach = |number: usize| Some(file.breach(number, &predicate(&lines[number..])?));
    (0..lines.len()).filter_map(breach).collect()
}

/// Finds lines that are too long. rustfmt breaks neither texts nor comments.
pub fn wide(file: &File) -> Vec<String> {
    let wide = file.lines().filter(|(_, line)| line.chars().count() > MAX_COLUMNS);
    wide.map(|(number, _)| {
        file.breach(number, &format!("the line has more than {MAX_COLUMNS} columns"))
    })
    .collect()
}

/// Returns the breach of a predicate that is defined on the first of some lines.
fn predicate(lines: &[&str]) -> Option<String> {
    let (prefix, rest) =
        PREDICATES.iter().find_map(|prefix| Some((prefix, lines[0].split_once(prefix)?.1)))?;
    let is_code = lines[0].trim_start().starts_with(['p', 'f', 'a', 'c', 'u']);
    if !is_code || !lines[0].contains('(') {
        return None;
    }
    let mut signature = String::new();
    for line in lines.iter().take(SIGNATURE_LINES) {
        signature.push_str(line);
        if line.contains(['{', ';']) {
            break;
        }
    }
    let name = rest.split(['(', '<']).next().unwrap_or_default();
    let prefix = prefix.trim_start_matches("fn ");
    (!signature.contains("-> bool"))
        .then(|| format!("`{prefix}{name}` does not return `bool`: name it by what it does"))
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[test]
    fn predicates_return_bool() {
        let valid = "fn is_empty(&self) -> bool {\npub fn has_room(\n    a: u8,\n) -> bool {\n";
        assert_eq!(predicates(&file("a.rs", valid)), Vec::<String>::new());
        let invalid = ["//! A module.\n    pub(crate) fn ", "is_large(&mut self) {\n"].concat();
        let invalid = predicates(&file("a.rs", &invalid));
        assert!(invalid.len() == 1 && invalid[0].contains("a.rs:2: `is_large`"), "{invalid:?}");
    }

    #[test]
    fn long_files_are_found() {
        let lines = |count: usize| file("a.rs", &"x\n".repeat(count));
        assert_eq!(long(&lines(MAX_LINES)), None);
        let found = long(&lines(MAX_LINES + 1)).unwrap_or_default();
        assert!(found.contains("a.rs:1:") && found.contains("611 lines"), "{found}");
    }

    #[test]
    fn long_lines_are_found() {
        let line = |columns: usize| "ü".repeat(columns) + "\n";
        let text = line(MAX_COLUMNS) + &line(MAX_COLUMNS + 1);
        let found = wide(&file("a.sql", &text));
        assert!(found.len() == 1 && found[0].contains("a.sql:2:"), "{found:?}");
    }

    #[test]
    fn modules_have_headers() {
        assert!(header(&file("a.rs", "fn main() {}\n")).is_some());
        assert_eq!(header(&file("a.rs", "//! A module.\n")), None);
    }
}
