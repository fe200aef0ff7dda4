//! The harness of the end-to-end tests and of the benchmark: starts the real binary on a temporary
//! folder and calls it over HTTP. The tests are in `tests/`, the cases in `cases/` and `hostile/`,
//! the benchmark in `bench/`, further programs in `src/bin/`.
//!
//! Not here: the host's own code. The tests run the shipped binary. Only `fuzz` calls its crates,
//! since it tries too many inputs to start a process for each. Answers are read by the host's own
//! JSON reader.

pub mod host;
pub mod postgres;
pub mod honest_traffic;
pub mod proxy;
pub mod collector;
pub mod cluster;
pub mod both_databases;
pub mod events;
pub mod tenant;
pub mod process_stats;
pub mod guest;
pub mod tool;
pub mod acts;
pub mod expand;
pub mod fuzz;
pub mod soak;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use reqwest::blocking::Response;
use serde_json::Value;

pub use host::{Host, path_of};

/// Timeout of each wait of a test.
pub const MAX_WAIT: Duration = Duration::from_secs(120);

/// Returns the checkout's folder.
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns the path of the binary, as built beside this test.
pub fn binary() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    // A test is in `deps/`, a program beside the binary.
    let mut folders = test.ancestors().skip(1).take(2).map(|folder| folder.join("exosphere"));
    folders
        .find(|binary| binary.is_file())
        .context("the exosphere binary is not built: run `cargo xtask test`")
}

/// Reads the component of a plugin of this project, as `cargo xtask plugins` built it.
pub fn component(name: &str) -> Result<Vec<u8>> {
    let file = checkout().join(format!("plugins/target/wasm32-wasip2/release/{name}.wasm"));
    std::fs::read(&file)
        .with_context(|| format!("{} is not built: run `cargo xtask plugins`", file.display()))
}

/// Returns the body of an answer that must be a success.
pub fn good(response: Response) -> Result<Value> {
    let (status, url) = (response.status(), response.url().clone());
    let text = response.text()?;
    ensure!(status.is_success(), "{url}: {status}: {text}");
    // serde_json's reader is not used: it takes one key of untrusted JSON for raw JSON text.
    exosphere_domain::json::read_stored(&text)
        .map_err(|error| anyhow!("{url}: the answer is not JSON: {error}"))
}

/// Returns the status and the problem of an answer that must be an error.
pub fn problem(response: Response) -> Result<(u16, Value)> {
    let status = response.status();
    let kind = response.headers().get("content-type").cloned();
    let text = response.text()?;
    ensure!(!status.is_success(), "the request was accepted: {text}");
    let json = kind.is_some_and(|kind| kind == "application/problem+json");
    ensure!(json, "{status} without a problem document: {text}");
    let problem: Value = serde_json::from_str(&text)?;
    ensure!(problem["status"] == status.as_u16(), "{problem}");
    Ok((status.as_u16(), problem))
}

/// Polls until `poll` returns a value.
pub fn until<T>(event: &str, mut poll: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + MAX_WAIT;
    loop {
        if let Some(found) = poll()? {
            return Ok(found);
        }
        ensure!(Instant::now() < end, "timed out: {event}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Returns the error text of a `serve` that must fail to start.
pub fn failing_start(arguments: &[&str]) -> Result<String> {
    let mut serve = Command::new(binary()?);
    let mut serve = serve
        .arg("serve")
        .args(arguments)
        // A test may listen elsewhere.
        .env("EXOSPHERE_LISTEN", "127.0.0.1:0")
        .env("EXOSPHERE_LOG", "warn")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let ended = until("the end of the host", || Ok(serve.try_wait()?));
    if ended.is_err() {
        serve.kill()?;
    }
    let output = serve.wait_with_output()?;
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!ended?.success(), "the host started and ended without an error: {message}");
    Ok(message)
}

/// Returns the last `max` lines of a file that match `wanted`.
pub fn tail(file: &Path, max: usize, wanted: impl Fn(&str) -> bool) -> String {
    let bytes = std::fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter(|line| wanted(line)).collect();
    lines[lines.len().saturating_sub(max)..].join("\n")
}

/// Checks all invariants with `exosphere check`, which must find no violation.
pub fn check(arguments: &[&str]) -> Result<()> {
    let output = Command::new(binary()?).arg("check").args(arguments).output()?;
    let printed =
        [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
    ensure!(output.status.success(), "exosphere check: {}\n{}", output.status, printed.join("\n"));
    Ok(())
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
