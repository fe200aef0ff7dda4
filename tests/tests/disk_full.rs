//! A full or read-only disk: a host whose database cannot be written becomes unhealthy, waits, and
//! resumes. No state is lost, and none fails.
//!
//! A test that needs its own file system is skipped with a message if mounting is not allowed.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use exosphere_tests::postgres::Postgres;
use exosphere_tests::{Host, check, failing_start, tail, until};
use rustix::process::{Pid, Resource, Rlimit, getuid, prlimit};
use serde_json::{Value, json};
use tempfile::TempDir;

const BRANCHES: usize = 1_500;

/// Returns a load of some seconds that writes continuously: each branch increments a counter and
/// returns an output.
fn graph() -> Value {
    json!({
        "nodes": [
            {"node_name": "fan", "identifier": "splitter", "next_nodes": ["worker"],
             "inputs": {"n": BRANCHES, "value": "x".repeat(500)}},
            {"node_name": "chore", "identifier": "worker", "next_nodes": ["echo"],
             "inputs": {"i": "${{ splitter.outputs.i }}", "key": "effects", "ms": 15}},
            {"node_name": "echo", "identifier": "echo", "next_nodes": ["merger"],
             "inputs": {"value": "${{ splitter.outputs.value }}"}},
            {"node_name": "collect", "identifier": "merger", "next_nodes": [],
             "inputs": {"values": "${{ worker.outputs.value }}"},
             "unites": {"identifier": "splitter"}},
        ],
        "store_config": {"keep": true},
    })
}

/// A host under load, and the path of its log.
struct Loaded {
    host: Host,
    run: String,
    log: PathBuf,
    _folder: TempDir,
}

impl Loaded {
    fn start(data: &Path, arguments: &[&str]) -> Result<Loaded> {
        // The log is on another disk than the database, so that it can be written.
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("log");
        let file = File::create(&log)?;
        let arguments = [&["--slots", "4"], arguments].concat();
        let host = Host::start_with(data, &arguments, |command: &mut Command| {
            command.stderr(file);
        })?;
        host.push("lab")?;
        host.apply("load", &graph())?;
        let run = host.run("load", &json!({}), &json!({}))?;
        host.wait_until(&run, |run| run["counts"]["success"].as_u64() > Some(100))?;
        Ok(Loaded { host, run, log, _folder: folder })
    }

    /// Waits until the host is unhealthy and has logged one of these words.
    fn becomes_unhealthy(&self, causes: &[&str]) -> Result<()> {
        self.with_log(until("the host to be unhealthy", || {
            let status = self.host.request("GET", "//health")?.send()?.status();
            Ok((status == 503).then_some(()))
        }))?;
        // The log is written by a thread of its own.
        let last = self.with_log(until("the cause in the log", || {
            let log = tail(&self.log, 50, |_| true).to_lowercase();
            let is_clear = causes.iter().any(|word| log.contains(word));
            Ok(is_clear.then(|| log.lines().last().unwrap_or_default().to_owned()))
        }))?;
        println!("{last}");
        Ok(())
    }

    /// Waits until the host is healthy, and its run has succeeded.
    fn recovers(&self) -> Result<()> {
        self.with_log(until("the host to be healthy", || Ok(self.host.get("//health").ok())))?;
        let found = self.with_log(self.host.wait_for(&self.run))?;
        ensure!(found["status"] == "SUCCESS", "{found:#}");
        ensure!(found["counts"]["retries"] == 0, "{found:#}");
        ensure!(found["store"] == json!({"effects": BRANCHES.to_string()}), "{found:#}");
        let merged = self.host.output(&self.run, "merger")?;
        ensure!(merged["values"] == json!((0..BRANCHES).collect::<Vec<_>>()), "{merged}");
        Ok(())
    }

    /// Stops the host, and checks all invariants.
    fn stops_cleanly(mut self, database: &[&str]) -> Result<()> {
        self.host.terminate()?;
        let status = self.host.wait()?;
        ensure!(status.success(), "{status}: {}", tail(&self.log, 20, |_| true));
        check(database)
    }

    fn with_log<T>(&self, result: Result<T>) -> Result<T> {
        result.with_context(|| tail(&self.log, 20, |_| true))
    }
}

/// A file system in memory, unmounted when it is dropped.
struct Mount(TempDir);

impl Mount {
    /// Mounts a file system, or returns `None` if mounting is not allowed.
    fn of_bytes(bytes: u64) -> Result<Option<Mount>> {
        let folder = tempfile::tempdir()?;
        let size = format!("size={bytes}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "exosphere-tests"]).arg(folder.path());
        match mount.output() {
            Ok(output) if output.status.success() => Ok(Some(Mount(folder))),
            _ => {
                println!("skipped: no file system can be mounted here");
                Ok(None)
            }
        }
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn remount(&self, option: &str) -> Result<()> {
        let options = format!("remount,{option}");
        let status = Command::new("mount").args(["-o", &options]).arg(self.0.path()).status()?;
        ensure!(status.success(), "mount: {status}");
        Ok(())
    }

    /// Writes a file until the file system is full.
    fn fill(&self) -> Result<PathBuf> {
        let path = self.0.path().join("filler");
        let mut file = File::create(&path)?;
        for size in [1 << 20, 1 << 12, 1] {
            let chunk = vec![0; size];
            loop {
                match file.write(&chunk) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(path)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A lazy unmount succeeds even while a host is running.
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is text")
}

/// The commit is tried in parts that claim nothing; due states must still be claimed afterwards.
#[test]
fn a_rejected_run_does_not_block_others() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start_with(folder.path(), &["--slots", "4"], |_| ())?;
    host.push("lab")?;
    let refuse = "CREATE TRIGGER refused BEFORE INSERT ON output WHEN NEW.body LIKE '%poison%' \
                  BEGIN SELECT RAISE(ABORT, 'no poison here'); END";
    rusqlite::Connection::open(host.data().join("exosphere.db"))?.execute_batch(refuse)?;
    host.apply("refused", &json!({"nodes": [
        {"node_name": "wait", "identifier": "only", "inputs": {"ms": 300, "value": "poison"}, "next_nodes": []},
    ]}))?;
    host.apply("wide", &json!({"nodes": [
        {"node_name": "fan", "identifier": "splitter", "inputs": {"n": 300}, "next_nodes": ["worker"]},
        {"node_name": "wait", "identifier": "worker", "inputs": {"ms": 10}, "next_nodes": []},
    ]}))?;
    let refused = host.run("refused", &json!({}), &json!({}))?;
    let wide = host.run("wide", &json!({}), &json!({}))?;
    let found = host.wait_for(&refused)?;
    ensure!(found["status"] == "FAILED", "{found:#}");
    let found = host.wait_for(&wide)?;
    ensure!(found["status"] == "SUCCESS", "{found:#}");
    Ok(())
}

#[test]
fn commits_resume_after_disk_full() -> Result<()> {
    let Some(mount) = Mount::of_bytes(64 << 20)? else { return Ok(()) };
    let data = mount.data();
    let loaded = Loaded::start(&data, &[])?;
    let filler = mount.fill()?;
    // Free space within the log file may last for some time.
    loaded.becomes_unhealthy(&["full", "no space"])?;
    fs::remove_file(filler)?;
    loaded.recovers()?;
    loaded.stops_cleanly(&["--data", text(&data)?])
}

#[test]
fn commits_resume_after_a_size_limit() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let loaded = Loaded::start(folder.path(), &[])?;
    let pid = Pid::from_raw(i32::try_from(loaded.host.pid())?);
    let limit = |current| {
        prlimit(pid, Resource::Fsize, Rlimit { current, maximum: None }).map(|old| old.current)
    };
    let largest = largest_file(folder.path())?;
    let before = limit(Some(largest))?;
    // Without a handler for the signal, exceeding the limit would kill the process.
    loaded.becomes_unhealthy(&["full", "too large", "disk i/o"])?;
    limit(before)?;
    loaded.recovers()?;
    loaded.stops_cleanly(&["--data", text(folder.path())?])
}

/// Returns the size of the largest of the database's files.
fn largest_file(data: &Path) -> Result<u64> {
    let mut largest = 0;
    for entry in fs::read_dir(data)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("exosphere.db") {
            largest = largest.max(entry.metadata()?.len());
        }
    }
    Ok(largest)
}

#[test]
fn a_read_only_folder_is_rejected() -> Result<()> {
    let Some(mount) = Mount::of_bytes(32 << 20)? else { return Ok(()) };
    let data = mount.data();
    stop(Host::start_in(&data)?)?;
    mount.remount("ro")?;
    let message = failing_start(&["--data", text(&data)?])?;
    ensure!(message.to_lowercase().contains("read-only"), "the message has no cause: {message}");
    mount.remount("rw")?;
    stop(Host::start_in(&data)?)
}

#[test]
fn a_read_only_file_is_rejected() -> Result<()> {
    if getuid().is_root() {
        println!("skipped: root may write to any file");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    stop(Host::start_in(folder.path())?)?;
    let file = folder.path().join("exosphere.db");
    let mut permissions = fs::metadata(&file)?.permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&file, permissions)?;
    ensure!(OpenOptions::new().append(true).open(&file).is_err());
    let message = failing_start(&["--data", text(folder.path())?])?;
    let message = message.to_lowercase();
    ensure!(
        message.contains("read") && message.contains("only"),
        "the message has no cause: {message}"
    );
    Ok(())
}

#[test]
fn a_read_only_postgres_is_rejected() -> Result<()> {
    let postgres = Postgres::shared()?;
    let url = postgres.create_database("refused")?;
    let (first, second) = (tempfile::tempdir()?, tempfile::tempdir()?);
    stop(Host::start_with(first.path(), &["--database", &url], |_| ())?)?;
    postgres.psql("postgres", "ALTER DATABASE refused SET default_transaction_read_only = on")?;
    let message = failing_start(&["--data", text(second.path())?, "--database", &url])?;
    ensure!(message.to_lowercase().contains("read-only"), "the message has no cause: {message}");
    Ok(())
}

#[test]
fn commits_resume_after_postgres_was_read_only() -> Result<()> {
    let postgres = Postgres::start()?;
    let url = postgres.create_database("turned")?;
    let folder = tempfile::tempdir()?;
    let loaded = Loaded::start(folder.path(), &["--database", &url])?;
    let read_only = |state: &str| -> Result<()> {
        let set = format!("ALTER SYSTEM SET default_transaction_read_only = {state}");
        postgres.psql("postgres", &set)?;
        postgres.psql("postgres", "SELECT pg_reload_conf()")?;
        Ok(())
    };
    read_only("on")?;
    loaded.becomes_unhealthy(&["read-only"])?;
    read_only("off")?;
    loaded.recovers()?;
    loaded.stops_cleanly(&["--database", &url])
}

fn stop(mut host: Host) -> Result<()> {
    host.terminate()?;
    let status = host.wait()?;
    ensure!(status.success(), "it ended badly: {status}");
    Ok(())
}
