//! A cluster: several hosts on one Postgres, each with its own folder and log, which a test kills,
//! freezes and restarts. The logs show which host executes a state.
//!
//! Not here: random faults, which `chaos` injects.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::postgres::Postgres;
use crate::proxy::Proxy;
use crate::{Host, check, tail, until};

/// Log filter: warnings, and the begin of each execution.
const LOG_FILTER: &str = "warn,exosphere_orchestrator=debug";

/// The settings of a host.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Slots of the host.
    pub slots: u32,
    /// Slots of one namespace, or none for the default.
    pub namespace_slots: Option<u32>,
    /// True if the host connects to Postgres through a proxy.
    pub proxied: bool,
    /// Offset of the host's clock in milliseconds.
    pub clock_offset_ms: i64,
    /// Further arguments of the host.
    pub arguments: Vec<String>,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            slots: 8,
            namespace_slots: None,
            proxied: false,
            clock_offset_ms: 0,
            arguments: Vec::new(),
        }
    }
}

impl Setup {
    /// Creates settings with this many slots.
    pub fn slots(slots: u32) -> Self {
        Setup { slots, ..Setup::default() }
    }

    /// Creates settings with `slots` slots, all of which one namespace may have.
    pub fn one_namespace(slots: u32) -> Self {
        Setup { slots, namespace_slots: Some(slots), ..Setup::default() }
    }
}

/// The begin of an execution, from the host's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Execution {
    /// The run and the path of the state.
    pub state: String,
    /// The number of the attempt.
    pub attempt: i64,
}

/// A host that may be down: its settings, and its process.
#[derive(Debug)]
pub struct Member {
    data: PathBuf,
    log: PathBuf,
    /// The key file that all hosts of the database share.
    key: PathBuf,
    database: String,
    setup: Setup,
    proxy: Option<Proxy>,
    host: Option<Host>,
}

impl Member {
    fn new(folder: &Path, postgres: &Postgres, database: &str, setup: Setup) -> Result<Member> {
        fs::create_dir_all(folder)?;
        let proxy = setup.proxied.then(|| Proxy::start(postgres.address())).transpose()?;
        let address = proxy.as_ref().map_or(postgres.address(), Proxy::address);
        let database = Postgres::url_at(address, database);
        let (data, log) = (folder.join("data"), folder.join("log"));
        let key = folder.with_file_name("shared.key");
        Ok(Member { data, log, key, database, setup, proxy, host: None })
    }

    /// Starts the host, on its earlier folder if it had one.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.host.is_none(), "the host is already running");
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let slots = self.setup.slots.to_string();
        let key = self.key.to_str().context("the path of the key is not UTF-8")?;
        let mut arguments =
            vec!["--database", &self.database, "--key", key, "--slots", &slots, "--log-json"];
        // Some nodes of these tests wait for minutes during faults.
        arguments.extend(["--limit", "timeout_ms=600s"]);
        let namespace_slots = self.setup.namespace_slots.map(|slots| slots.to_string());
        if let Some(slots) = &namespace_slots {
            arguments.extend(["--namespace-slots", slots]);
        }
        arguments.extend(self.setup.arguments.iter().map(String::as_str));
        let offset = self.setup.clock_offset_ms;
        let started = Host::start_with(&self.data, &arguments, move |command: &mut Command| {
            command.env("EXOSPHERE_LOG", LOG_FILTER).stderr(log);
            if offset != 0 {
                command.env("EXOSPHERE_CLOCK_OFFSET_MS", offset.to_string());
            }
        });
        self.host = Some(started.with_context(|| tail(&self.log, 5, |_| true))?);
        Ok(())
    }

    /// Returns the host, which must be up.
    pub fn host(&self) -> Result<&Host> {
        self.host.as_ref().context("this host is down")
    }

    /// Returns whether the host has a process.
    pub fn is_up(&self) -> bool {
        self.host.is_some()
    }

    /// Returns the proxy between the host and Postgres, which must exist.
    pub fn proxy(&self) -> Result<&Proxy> {
        self.proxy.as_ref().context("this host has no proxy")
    }

    /// Kills the host (SIGKILL).
    pub fn kill(&mut self) -> Result<()> {
        self.host.take().context("this host is down")?.kill()
    }

    /// Waits for the host to end, after a SIGTERM.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.host.take().context("this host is down")?.wait()
    }

    /// Freezes the host (SIGSTOP): its threads stop, and its connections stay open.
    pub fn freeze(&self) -> Result<()> {
        self.host()?.signal(Signal::STOP)
    }

    /// Thaws the host (SIGCONT): its threads continue.
    pub fn thaw(&self) -> Result<()> {
        self.host()?.signal(Signal::CONT)
    }

    /// Returns the exit status, if the host ended by itself.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.host.as_mut().map_or(Ok(None), Host::ended)
    }

    /// Returns the number of states that the host has claimed, if it is healthy.
    pub fn holding(&self) -> Result<u64> {
        self.host()?.holding()
    }

    /// Returns all executions that the host has begun, in order.
    pub fn executions(&self) -> Result<Vec<Execution>> {
        let bytes = fs::read(&self.log)?;
        let text = String::from_utf8_lossy(&bytes);
        text.lines().filter_map(|line| execution(line).transpose()).collect()
    }

    /// Returns whether the host has begun to execute a state.
    pub fn read_begun(&self, state: &str) -> Result<bool> {
        Ok(self.executions()?.iter().any(|execution| execution.state == state))
    }
}

/// Parses the execution from a line of the log.
fn execution(line: &str) -> Result<Option<Execution>> {
    if !line.contains("\"executing\"") {
        return Ok(None);
    }
    // A killed host may have left half a line.
    let Ok(line) = serde_json::from_str::<Value>(line) else { return Ok(None) };
    let fields = &line["fields"];
    let missing = |name: &str| format!("an execution in the log has no {name}: {line}");
    let state = fields["state"].as_str().with_context(|| missing("state"))?.to_owned();
    let attempt = fields["attempt"].as_i64().with_context(|| missing("attempt"))?;
    Ok(Some(Execution { state, attempt }))
}

/// Several hosts on one database.
#[derive(Debug)]
pub struct Cluster {
    members: Vec<Member>,
    database: String,
    postgres_address: String,
    folder: TempDir,
}

impl Cluster {
    /// Starts hosts on a new database, all at the same time.
    pub fn start(postgres: &Postgres, database: &str, setups: &[Setup]) -> Result<Cluster> {
        let postgres_address = postgres.create_database(database)?;
        let (folder, database) = (tempfile::tempdir()?, database.to_owned());
        let mut cluster = Cluster { members: Vec::new(), database, postgres_address, folder };
        for setup in setups {
            cluster.add(postgres, setup.clone())?;
        }
        let started: Vec<Result<()>> = std::thread::scope(|scope| {
            let start = |member| scope.spawn(|| Member::start(member));
            let starts: Vec<_> = cluster.members.iter_mut().map(start).collect();
            let join = |start: std::thread::ScopedJoinHandle<'_, _>| start.join();
            starts
                .into_iter()
                .map(|start| join(start).unwrap_or_else(|_| bail!("the start of a host panicked")))
                .collect()
        });
        let hosts = cluster.members.iter_mut().filter_map(|member| member.host.as_mut());
        hosts.into_iter().try_for_each(|host| host.find_key(&cluster.database))?;
        match started.into_iter().collect::<Result<()>>() {
            Ok(()) => Ok(cluster),
            Err(error) => Err(error.context(cluster.tails())),
        }
    }

    /// Adds a member, which is not started yet.
    pub fn add(&mut self, postgres: &Postgres, setup: Setup) -> Result<&mut Member> {
        let folder = self.folder.path().join(format!("host{}", self.members.len()));
        self.members.push(Member::new(&folder, postgres, &self.database, setup)?);
        self.members.last_mut().context("it was just added")
    }

    /// Returns the members, in order.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Returns a member by its index.
    pub fn member(&mut self, at: usize) -> &mut Member {
        &mut self.members[at]
    }

    /// Returns the host of a member, which must be up.
    pub fn host(&self, at: usize) -> Result<&Host> {
        self.members[at].host()
    }

    /// Returns the name of the database.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Returns a member that has begun to execute a state, `except` for one.
    pub fn executor(&self, state: &str, except: Option<usize>) -> Result<Option<usize>> {
        for (at, member) in self.members.iter().enumerate() {
            if Some(at) != except && member.read_begun(state)? {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// Waits until a member executes a state, `except` for one.
    pub fn wait_for_executor(&self, state: &str, except: Option<usize>) -> Result<usize> {
        until("an execution", || self.executor(state, except))
    }

    /// Checks all invariants of the database.
    pub fn check(&self) -> Result<()> {
        check(&["--database", &self.postgres_address])
    }

    /// Returns the ends of all logs, without executions.
    pub fn tails(&self) -> String {
        let tail = |(at, member): (usize, &Member)| {
            let lines = tail(&member.log, 15, |line| !line.contains("\"executing\""));
            format!("--- host {at}\n{lines}\n")
        };
        self.members.iter().enumerate().map(tail).collect()
    }
}

impl Cluster {
    /// Prints the ends of the logs after a failure, and keeps the logs.
    pub fn report_failure(&mut self, postgres: &Postgres) {
        println!("{}--- Postgres\n{}", self.tails(), postgres.tail());
        self.folder.disable_cleanup(true);
        println!("the logs are in {}", self.folder.path().display());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.tails());
        }
    }
}

/// Runs a test on a cluster, and then checks all invariants. A failure prints the ends of the logs.
pub fn with_cluster(
    postgres: &Postgres,
    database: &str,
    setups: &[Setup],
    test: impl FnOnce(&mut Cluster) -> Result<()>,
) -> Result<()> {
    let mut cluster = Cluster::start(postgres, database, setups)?;
    let tested = test(&mut cluster).and_then(|()| cluster.check());
    tested.inspect_err(|_| cluster.report_failure(postgres))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executions_are_parsed_from_logs() -> Result<()> {
        let line =
            r#"{"level":"DEBUG","fields":{"message":"executing","state":"r/a","attempt":2}}"#;
        assert_eq!(execution(line)?, Some(Execution { state: "r/a".to_owned(), attempt: 2 }));
        assert_eq!(execution(&line[..line.len() - 5])?, None);
        assert_eq!(execution(r#"{"fields":{"message":"a claim failed"}}"#)?, None);
        assert!(execution(r#"{"fields":{"message":"executing"}}"#).is_err());
        Ok(())
    }
}
