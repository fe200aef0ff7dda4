//! `cargo xtask tidy`: rules that no lint checks, each a small function with a test.
//!
//! Not here: format and lints, which cargo checks (`test`).

mod source;
mod words;
mod links;
mod shell;
mod manifest;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::project::Project;

/// Endings of the files that are checked.
const ENDINGS: [&str; 5] = [".rs", ".md", ".sql", "Cargo.toml", "rust-toolchain.toml"];

/// Folders of generated files, which are skipped.
const GENERATED: [&str; 2] = ["target", "node_modules"];

/// The folder of migrations. A released one never changes, so no rule applies to it.
const MIGRATIONS: &str = "migrations";

/// A file of the checkout.
struct File {
    /// The path from the root.
    name: PathBuf,
    text: String,
}

impl File {
    /// Returns whether the name ends with `.` and an extension.
    fn has_extension(&self, extension: &str) -> bool {
        self.name.extension().is_some_and(|found| found == extension)
    }

    /// Describes a breach on a line, counted from 0.
    fn breach(&self, line: usize, message: &str) -> String {
        format!("  {}:{}: {message}", self.name.display(), line + 1)
    }

    /// Returns the lines with their numbers.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate()
    }
}

/// Checks every source and every document against the rules.
///
/// # Errors
///
/// All breaches at once, each with its file and line.
pub fn run(project: &Project) -> Result<()> {
    let root = project.at("");
    let mut paths = Vec::new();
    collect(&root, &mut paths)?;
    let read = |path: PathBuf| -> Result<File> {
        let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
        Ok(File { name: path.strip_prefix(&root).unwrap_or(&path).to_owned(), text })
    };
    let files: Vec<File> = paths.into_iter().map(read).collect::<Result<_>>()?;
    let mut breaches = Vec::new();
    for file in &files {
        breaches.extend(check(&root, file)?);
        if file.name.ends_with("Cargo.toml") {
            breaches.extend(manifest::unused(file, &files));
        }
    }
    breaches.extend(manifest::other_versions(&files));
    breaches.extend(wide(&files));
    if breaches.is_empty() {
        return Ok(());
    }
    bail!("{} breaches of the rules in CONTRIBUTING.md:\n{}", breaches.len(), breaches.join("\n"))
}

/// Finds lines of Rust and SQL that are too long.
fn wide(files: &[File]) -> Vec<String> {
    let is_source = |file: &&File| file.has_extension("rs") || file.has_extension("sql");
    files.iter().filter(is_source).flat_map(source::wide).collect()
}

/// Finds the files to check below a folder, in the order of their names.
fn collect(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    let mut entries: Vec<_> = fs::read_dir(folder)?.collect::<std::io::Result<_>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            let is_skipped = GENERATED.contains(&&*name) || name == MIGRATIONS;
            if !name.starts_with('.') && !is_skipped {
                collect(&path, paths)?;
            }
        } else if ENDINGS.iter().any(|ending| name.ends_with(ending)) {
            paths.push(path);
        }
    }
    Ok(())
}

/// Returns the breaches of the rules that look at one file alone.
fn check(root: &Path, file: &File) -> Result<Vec<String>> {
    let mut breaches = words::banned(file);
    if file.has_extension("rs") {
        breaches.extend(source::header(file));
        breaches.extend(source::long(file));
        breaches.extend(source::predicates(file));
    }
    if file.has_extension("md") {
        breaches.extend(links::dead(root, file));
        breaches.extend(shell::unparsable(file)?);
    }
    breaches.extend(links::missing(root, file));
    Ok(breaches)
}

#[cfg(test)]
fn file(name: &str, text: &str) -> File {
    File { name: name.into(), text: text.to_owned() }
}
