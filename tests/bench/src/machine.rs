//! The machine and the software versions of a report.

use std::fmt;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use exosphere_tests::postgres::Postgres;
use serde::Serialize;

/// The machine and versions that the results depend on.
#[derive(Debug, Serialize)]
pub struct Machine {
    processor: String,
    processors: usize,
    memory_gib: u64,
    kernel: String,
    rust: String,
    postgres: String,
    exosphere: String,
    /// The commit of the checkout that the benchmark was built from, if there is one.
    commit: Option<String>,
    /// The filesystem of the databases.
    filesystem: String,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { processor, processors, memory_gib, kernel, rust, postgres, .. } = self;
        let commit = self.commit.as_deref().unwrap_or("unknown");
        write!(
            f,
            "{} (commit {commit}) on {processors} processors ({processor}), {memory_gib} GiB, \
             {kernel}, {}, {rust}, {postgres}; `fsync` and `synchronous_commit` on, \
             `synchronous=FULL`.",
            self.exosphere, self.filesystem
        )
    }
}

/// Describes this machine.
pub fn describe(postgres: &Postgres) -> Result<Machine> {
    let field = |file: &str, name: &str| -> Result<String> {
        let text = fs::read_to_string(file)?;
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split_once(':')).context("no such line")?.1;
        Ok(value.trim().to_owned())
    };
    let memory = field("/proc/meminfo", "MemTotal")?;
    let kilobytes: u64 = memory.trim_end_matches(" kB").parse()?;
    let version = postgres.psql("postgres", "SHOW server_version")?;
    Ok(Machine {
        processor: field("/proc/cpuinfo", "model name").unwrap_or_else(|_| "unknown".into()),
        processors: std::thread::available_parallelism()?.get(),
        memory_gib: (kilobytes + 512 * 1024) / (1024 * 1024),
        kernel: output_of("uname", &["-sr"])?,
        rust: output_of("rustc", &["--version"])?,
        postgres: format!("Postgres {}", version.trim()),
        exosphere: format!(
            "Exosphere {}{}",
            env!("CARGO_PKG_VERSION"),
            if cfg!(debug_assertions) { " (debug build)" } else { "" }
        ),
        commit: output_of("git", &["describe", "--always", "--dirty"])
            .ok()
            .filter(|it| !it.is_empty()),
        filesystem: output_of(
            "stat",
            &["-f", "-c", "%T", &std::env::temp_dir().to_string_lossy()],
        )?,
    })
}

fn output_of(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
