//! `cargo xtask tidy`: rules that no lint checks. Modules have a `//!` header,
//! predicates return `bool`, and no file or link that a text names is missing.
//!
//! Not here: format and lints, which cargo checks (`test`).

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::project::Project;

/// Prefixes of functions that return `bool` and change nothing.
const PREDICATES: [&str; 3] = ["fn is_", "fn has_", "fn can_"];

/// Folders whose files are named in texts by their path from the root.
const ROOTS: [&str; 8] =
    ["host/", "tests/", "docs/", "xtask/", "plugins/", "guest-sdk/", "migrations/", "wit/"];

/// Folders of generated files, which are skipped.
const MADE: [&str; 2] = ["target", "node_modules"];

/// Folders that a program creates when it first needs them; they may be missing.
const CREATED: [&str; 1] = ["tests/fuzz/crashes"];

/// The longest signature of a function, in lines.
const SIGNATURE_LINES: usize = 12;

/// Checks every source and every document against the rules.
///
/// # Errors
///
/// All breaches at once, each with its file and line.
pub fn run(project: &Project) -> Result<()> {
    let root = project.at("");
    let mut files = Vec::new();
    collect(&root, &mut files)?;
    let mut breaches = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?;
        let name = file.strip_prefix(&root).unwrap_or(&file);
        breaches.extend(check(&root, name, &text));
    }
    if breaches.is_empty() {
        return Ok(());
    }
    bail!("{} breaches of the rules in CONTRIBUTING.md:\n{}", breaches.len(), breaches.join("\n"))
}

/// Finds sources and documents below a folder, in the order of their names.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let mut entries: Vec<_> = fs::read_dir(folder)?.collect::<std::io::Result<_>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            if !name.starts_with('.') && !MADE.contains(&&*name) {
                collect(&path, files)?;
            }
        } else if name.ends_with(".rs") || name.ends_with(".md") {
            files.push(path);
        }
    }
    Ok(())
}

/// Returns the breaches of one file.
fn check(root: &Path, name: &Path, text: &str) -> Vec<String> {
    let is_source = name.extension().is_some_and(|extension| extension == "rs");
    let at = |line: usize, what: &str| format!("  {}:{}: {what}", name.display(), line + 1);
    let mut breaches = Vec::new();
    if is_source && !text.starts_with("//!") {
        breaches.push(at(0, "the module does not say what it is: begin with `//!`"));
    }
    let lines: Vec<&str> = text.lines().collect();
    for (number, line) in lines.iter().enumerate() {
        if is_source {
            breaches.extend(predicate(&lines[number..]).map(|why| at(number, &why)));
        } else {
            let missing = links(line).filter(|link| !exists(root, name, link));
            breaches.extend(missing.map(|link| at(number, &format!("dead link {link}"))));
        }
        if !is_source || line.trim_start().starts_with("//") {
            let is_missing = |path: &&str| {
                !root.join(path).exists() && !CREATED.contains(&path.trim_end_matches('/'))
            };
            let missing = paths(line).filter(is_missing);
            breaches.extend(missing.map(|path| at(number, &format!("there is no file {path}"))));
        }
    }
    breaches
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

/// Returns the files that a line names between backquotes.
fn paths(line: &str) -> impl Iterator<Item = &str> {
    let quoted = line.split('`').skip(1).step_by(2);
    let is_plain = |text: &&str| {
        let is_path = |letter: char| letter.is_ascii_alphanumeric() || "/._-".contains(letter);
        text.chars().all(is_path) && !text.contains("NNNN")
    };
    quoted.filter(|text| ROOTS.iter().any(|root| text.starts_with(root))).filter(is_plain)
}

/// Returns the files to which a line of a document links.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = targets.map(|target| target.split('#').next().unwrap_or_default());
    files.filter(|file| !file.is_empty() && !file.contains(':') && !file.contains(' '))
}

/// Tells whether a link of a document leads to a file.
fn exists(root: &Path, document: &Path, link: &str) -> bool {
    let mut path = document.parent().map(Path::to_path_buf).unwrap_or_default();
    for part in Path::new(link).components() {
        match part {
            Component::ParentDir => _ = path.pop(),
            part => path.push(part),
        }
    }
    root.join(path).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, text: &str) -> Vec<String> {
        check(Path::new("/nowhere"), Path::new(name), text)
    }

    #[test]
    fn predicates_return_bool() {
        let good = "//! A module.\nfn is_empty(&self) -> bool {\npub fn has_room(\n    a: u8,\n) -> bool {\n";
        assert_eq!(found("a.rs", good), Vec::<String>::new());
        let bad = ["//! A module.\n    pub(crate) fn ", "is_large(&mut self) {\n"].concat();
        let bad = found("a.rs", &bad);
        assert!(bad.len() == 1 && bad[0].contains("a.rs:2: `is_large`"), "{bad:?}");
    }

    #[test]
    fn modules_say_what_they_are() {
        assert_eq!(found("a.rs", "fn main() {}\n").len(), 1);
    }

    #[test]
    fn missing_files_are_found() {
        let text = "See `host/nowhere.rs` and [that](../b.md#part), [this](https://a.example).\n";
        let found = found("docs/a.md", text);
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
