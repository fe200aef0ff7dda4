//! DBOS: a Python library that keeps its steps in SQLite or Postgres. The script
//! `peers/dbos/loads.py` uses it, and takes the times itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::json;

use super::install::{once, output_of};
use super::process::Process;
use super::{BRANCHES, CHAIN_LENGTH, CHAIN_RUNS, CLIENTS, LATENCY_RUNS, SINGLE_RUNS, Times};
use crate::results::Results;

const REQUIREMENTS: &str = include_str!("../../peers/dbos/requirements.txt");
const LOADS: &str = include_str!("../../peers/dbos/loads.py");

/// Timeout of all loads; on an idle machine they take half a minute.
const MAX_WAIT: Duration = Duration::from_secs(600);

/// DBOS in a virtual environment.
pub struct Dbos {
    folder: PathBuf,
    python: PathBuf,
    version: String,
    /// The prefix of its database URLs in Postgres.
    postgres: String,
    /// Databases used so far on Postgres.
    databases: u32,
}

/// The report that the script prints.
#[derive(Debug, Deserialize)]
struct Report {
    durability: [String; 2],
    fanout: f64,
    chains: f64,
    singles: f64,
    latencies: Vec<f64>,
}

impl Dbos {
    /// Installs DBOS. On Postgres it uses databases whose URLs begin with `postgres`.
    pub fn install(folder: &Path, postgres: String) -> Result<Dbos> {
        let python = folder.join("venv/bin/python");
        once(folder, REQUIREMENTS, || {
            fs::write(folder.join("requirements.txt"), REQUIREMENTS)?;
            output_of(Command::new("python3").args(["-m", "venv"]).arg(folder.join("venv")))?;
            let mut pip = Command::new(&python);
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
            output_of(pip.arg("--requirement").arg(folder.join("requirements.txt"))).map(drop)
        })?;
        fs::write(folder.join("loads.py"), LOADS)?;
        let version = output_of(Command::new(&python).arg("--version"))?;
        Ok(Dbos { folder: folder.to_owned(), python, version, postgres, databases: 0 })
    }

    /// Describes the version and settings.
    pub fn describe(&self) -> String {
        let wanted = |line: &&str| line.starts_with("dbos==");
        let version = REQUIREMENTS.lines().find(wanted).unwrap_or_default();
        format!(
            "DBOS {} on {}, one process. It is a library without a server: the workflows are \
             started inside its process, without HTTP, which spares it work that the others \
             do. The fanout is an async workflow that gathers async steps (child workflows \
             and queues were slower), all else plain workflows called from threads. At most \
             16 executor threads (with as many as there are steps, its default, the fanout \
             was slower), else its defaults. On SQLite a write-ahead log (its default, a \
             rollback journal, was several times slower) and synchronous=FULL, which is its \
             default; on Postgres synchronous_commit=on, in the cluster that we use too.",
            version.trim_start_matches("dbos=="),
            self.version,
        )
    }

    /// Runs all loads on both databases.
    pub fn round(&mut self, results: &mut Results) -> Result<()> {
        self.sqlite().context("on SQLite")?.add_to("DBOS on SQLite", results);
        self.postgres().context("on Postgres")?.add_to("DBOS on Postgres", results);
        Ok(())
    }

    /// Runs all loads on a new SQLite file.
    fn sqlite(&self) -> Result<Times> {
        let data = tempfile::tempdir_in(&self.folder)?;
        let file = fs::canonicalize(data.path())?.join("dbos.sqlite");
        // WAL and FULL, by SQLite's numbers.
        self.run(&format!("sqlite:///{}", file.display()), data.path(), ["wal", "2"])
    }

    /// Runs all loads on a new Postgres database.
    fn postgres(&mut self) -> Result<Times> {
        let data = tempfile::tempdir_in(&self.folder)?;
        self.databases += 1;
        let url = format!("{}_{}", self.postgres, self.databases);
        // SQLAlchemy knows the scheme by its longer name alone.
        let url = url.replacen("postgres://", "postgresql://", 1);
        self.run(&url, data.path(), ["on", "on"])
    }

    fn run(&self, url: &str, data: &Path, durability: [&str; 2]) -> Result<Times> {
        let sizes = json!({
            "branches": BRANCHES,
            "chains": CHAIN_RUNS,
            "length": CHAIN_LENGTH,
            "singles": SINGLE_RUNS,
            "clients": CLIENTS,
            "alone": LATENCY_RUNS,
        });
        let mut command = Command::new(&self.python);
        command.arg(self.folder.join("loads.py")).arg(url).arg(sizes.to_string());
        let line = Process::start(&mut command, &data.join("log"))?.last_line(MAX_WAIT)?;
        let report: Report = serde_json::from_str(&line).with_context(|| line.clone())?;
        ensure!(report.durability == durability, "not as durable as ours: {report:?}");
        Ok(Times {
            fanout: Duration::try_from_secs_f64(report.fanout)?,
            chains: Duration::try_from_secs_f64(report.chains)?,
            singles: Duration::try_from_secs_f64(report.singles)?,
            latencies: report.latencies,
        })
    }
}
