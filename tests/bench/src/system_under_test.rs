//! The system under test: a host on SQLite or Postgres, with the graphs of the loads.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use exosphere_tests::guest;
use exosphere_tests::postgres::Postgres;
use exosphere_tests::{Host, binary, good};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::closed_loop::Work;
use crate::graphs;

/// A host with everything that the loads need.
pub struct SystemUnderTest {
    /// The database: `SQLite` or `Postgres`.
    pub name: &'static str,
    pub host: Host,
    binary: PathBuf,
    folder: TempDir,
    database: Option<String>,
    arguments: Vec<String>,
}

impl SystemUnderTest {
    /// Starts a host on a database of its own: on Postgres, or else on a file.
    pub fn start(postgres: Option<&Postgres>, database: &str) -> Result<SystemUnderTest> {
        SystemUnderTest::start_binary(&binary()?, postgres, database)
    }

    /// Starts a host of a chosen binary, on a database of its own.
    pub fn start_binary(
        binary: &Path,
        postgres: Option<&Postgres>,
        database: &str,
    ) -> Result<SystemUnderTest> {
        SystemUnderTest::start_with(binary, postgres, database, &[])
    }

    /// Starts a host of a chosen binary with further arguments, on a database of its own.
    pub fn start_with(
        binary: &Path,
        postgres: Option<&Postgres>,
        database: &str,
        arguments: &[&str],
    ) -> Result<SystemUnderTest> {
        let url = postgres.map(|it| it.create_database(database)).transpose()?;
        let name = if url.is_some() { "Postgres" } else { "SQLite" };
        SystemUnderTest::new(binary, name, url, arguments)
    }

    /// Starts one host on each database.
    pub fn both(postgres: &Postgres, database: &str) -> Result<[SystemUnderTest; 2]> {
        Ok([
            SystemUnderTest::start(None, database)?,
            SystemUnderTest::start(Some(postgres), database)?,
        ])
    }

    fn new(
        binary: &Path,
        name: &'static str,
        database: Option<String>,
        arguments: &[&str],
    ) -> Result<SystemUnderTest> {
        let folder = tempfile::tempdir()?;
        let arguments: Vec<String> = HOST_ARGUMENTS
            .iter()
            .chain(arguments)
            .map(|argument| argument.to_string())
            .chain(database.iter().flat_map(|url| ["--database".into(), url.clone()]))
            .collect();
        let host = start(binary, &folder, &arguments)?;
        host.push("lab")?;
        good(host.upload("minimal", guest::component(&guest::Changes::default())?)?)?;
        for (name, graph) in graphs::all() {
            host.apply(name, &graph)?;
        }
        Ok(SystemUnderTest { name, host, binary: binary.to_owned(), folder, database, arguments })
    }

    /// Stops the host gracefully and starts it again. Returns the time from the start until the
    /// host is healthy.
    pub fn restart(&mut self) -> Result<Duration> {
        self.host.terminate()?;
        self.host.wait()?;
        let started = Instant::now();
        self.host = start(&self.binary, &self.folder, &self.arguments)?;
        self.host.get("//health")?;
        Ok(started.elapsed())
    }

    /// Returns the database's name in the Postgres cluster.
    pub fn database(&self) -> Option<&str> {
        self.database.as_deref().and_then(|url| url.rsplit('/').next())
    }

    /// Returns the work of starting a run of a graph and waiting for its end.
    pub fn work(&self, graph: &str, inputs: &Value) -> Work {
        Work {
            url: self.host.url().to_owned(),
            authorization: self.host.authorization(),
            path: format!("/v1/namespaces/default/graphs/{graph}/runs?wait_ms=30000"),
            body: Bytes::from(json!({"inputs": inputs}).to_string()),
        }
    }
}

/// Arguments of the host: one namespace may use all slots.
const HOST_ARGUMENTS: [&str; 2] = ["--namespace-slots", "128"];

fn start(binary: &Path, folder: &TempDir, arguments: &[String]) -> Result<Host> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Host::start_of(binary, folder.path(), &arguments, |_| ())
}
