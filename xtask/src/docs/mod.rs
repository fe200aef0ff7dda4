//! `cargo xtask docs`: writes the pages of the reference that the compiled `exosphere` knows.
//! `cargo xtask test` compares them.
//!
//! Not here: the pages themselves (`cli`, `api`).

mod api;
mod cli;

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::build;
use crate::project::Project;

/// Writes each page to its path.
pub fn write(project: &Project) -> Result<()> {
    for (path, page) in pages(project)? {
        fs::write(project.at(path), page).with_context(|| format!("cannot write {path}"))?;
    }
    Ok(())
}

/// Fails unless every page is up to date.
pub fn check(project: &Project) -> Result<()> {
    for (path, page) in pages(project)? {
        let written = fs::read_to_string(project.at(path)).with_context(|| format!("no {path}"))?;
        ensure!(written == page, "{path} is out of date: run `cargo xtask docs`");
    }
    Ok(())
}

/// Returns the pages with their paths from the root.
fn pages(project: &Project) -> Result<[(&'static str, String); 3]> {
    let program = build::host(project)?;
    let document = api::document(&program)?;
    Ok([
        ("docs/reference/cli.md", cli::page(&program)?),
        ("docs/reference/api.md", api::page(&document)?),
        ("docs/reference/openapi.json", document),
    ])
}
