//! Rules for what a text refers to: its files, links and headings exist.

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::File;

/// Folders whose files are named in texts by their path from the root.
const ROOTS: [&str; 8] =
    ["host/", "tests/", "docs/", "xtask/", "plugins/", "guest-sdk/", "migrations/", "wit/"];

/// Folders that a program creates when it first needs them; they may be missing.
const CREATED: [&str; 1] = ["tests/fuzz/crashes"];

/// Finds paths in documents and comments that lead to no file.
pub fn missing(root: &Path, file: &File) -> Vec<String> {
    let is_document = file.has_extension("md");
    let is_missing =
        |path: &&str| !root.join(path).exists() && !CREATED.contains(&path.trim_end_matches('/'));
    let mut breaches = Vec::new();
    for (number, line) in file.lines() {
        let text = line.trim_start();
        if is_document || text.starts_with("//") {
            let missing = quoted(line).chain(documents(line)).filter(is_missing);
            breaches.extend(
                missing.map(|path| file.breach(number, &format!("there is no file {path}"))),
            );
        }
    }
    breaches
}

/// Finds links of a document that lead to no file or to no heading.
pub fn dead(root: &Path, file: &File) -> Vec<String> {
    let is_dead = |link: &&str| !leads_somewhere(root, file, link);
    let breaches = file.lines().flat_map(|(number, line)| {
        let dead = targets(line).filter(is_dead);
        dead.map(move |link| file.breach(number, &format!("dead link {link}")))
    });
    breaches.collect()
}

/// Returns the paths that a line names between backquotes.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    let quoted = line.split('`').skip(1).step_by(2);
    let is_plain = |text: &&str| text.chars().all(is_path_char) && !text.contains("NNNN");
    quoted.filter(|text| ROOTS.iter().any(|root| text.starts_with(root))).filter(is_plain)
}

/// Returns the documents that a line names without backquotes or a link.
fn documents(line: &str) -> impl Iterator<Item = &str> {
    let words = line.split(|letter: char| !is_path_char(letter));
    let words = words.map(|word| word.trim_end_matches('.'));
    words.filter(|word| word.starts_with("docs/") && word.ends_with(".md"))
}

fn is_path_char(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "/._-".contains(letter)
}

/// Returns the targets of the links in a line, except those to other sites.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.is_empty() && !target.contains([':', ' ']))
}

/// Returns whether a link leads to a file, and to a heading if it names one.
fn leads_somewhere(root: &Path, document: &File, link: &str) -> bool {
    let (path, heading) = link.split_once('#').map_or((link, None), |(path, it)| (path, Some(it)));
    if path.is_empty() {
        return heading.is_none_or(|heading| has_heading(&document.text, heading));
    }
    let path = root.join(beside(&document.name, path));
    match heading {
        Some(heading) if link.contains(".md#") => {
            fs::read_to_string(path).is_ok_and(|text| has_heading(&text, heading))
        }
        _ => path.exists(),
    }
}

/// Returns the path to which a relative path leads from a document.
fn beside(document: &Path, link: &str) -> PathBuf {
    let mut path = document.parent().map(Path::to_path_buf).unwrap_or_default();
    for part in Path::new(link).components() {
        match part {
            Component::ParentDir => _ = path.pop(),
            part => path.push(part),
        }
    }
    path
}

/// Returns whether a document has a heading with this anchor.
fn has_heading(text: &str, anchor: &str) -> bool {
    let headings = text.lines().filter_map(|line| line.strip_prefix('#'));
    headings.map(|heading| anchor_of(heading.trim_start_matches('#'))).any(|it| it == anchor)
}

/// Returns the anchor of a heading.
fn anchor_of(heading: &str) -> String {
    let letters = heading.trim().chars().filter_map(|letter| match letter {
        ' ' => Some('-'),
        '-' | '_' => Some(letter),
        letter => letter.is_alphanumeric().then(|| letter.to_ascii_lowercase()),
    });
    letters.collect()
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[test]
    fn missing_files_are_found() {
        let text = "See `host/nowhere.rs`, docs/nowhere.md and `migrations/NNNN.sql`.\n";
        let document = file("docs/a.md", text);
        assert_eq!(missing(Path::new("/nowhere"), &document).len(), 2);
        let source =
            file("a.rs", "// It is in docs/nowhere.md.\nlet path = \"docs/nowhere.md\";\n");
        assert_eq!(missing(Path::new("/nowhere"), &source).len(), 1);
    }

    #[test]
    fn dead_links_are_found() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("b.md"), "# B\n## The host's `work`, again\n").unwrap();
        let text = "# One part\n[a](b.md) [b](b.md#the-hosts-work-again) [c](#one-part)\n\
                    [d](https://a.example/x) [e](b.md#none) [f](c.md) [g](#none)\n";
        let dead = dead(folder.path(), &file("a.md", text));
        assert_eq!(dead.len(), 3, "{dead:?}");
    }
}
