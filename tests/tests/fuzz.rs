//! A short run of each fuzzing target with a fixed seed (`src/fuzz/`). Long ones:
//! `cargo run -p exosphere-tests --bin fuzz`.

use std::time::Duration;

use anyhow::{Result, ensure};
use exosphere_tests::fuzz;

fn short_run(target: &str) -> Result<()> {
    let tried = fuzz::run(target, 1, Duration::from_secs(2))?;
    println!("{target}: {tried:?}");
    // A target that accepts nothing, or everything, tests nothing.
    ensure!(tried.accepted > 0 && tried.accepted < tried.inputs, "{tried:?}");
    Ok(())
}

#[test]
fn graph_fuzzing_breaks_no_promise() -> Result<()> {
    short_run("graph")
}

#[test]
fn template_fuzzing_breaks_no_promise() -> Result<()> {
    short_run("template")
}

#[test]
fn upload_fuzzing_breaks_no_promise() -> Result<()> {
    short_run("upload")
}

#[test]
fn completion_fuzzing_breaks_no_promise() -> Result<()> {
    short_run("completion")
}
