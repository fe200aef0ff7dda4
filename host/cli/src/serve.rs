//! `exosphere serve`: a host with its HTTP API.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use exosphere_api::ApiSettings;
use exosphere_domain::limits::{LimitValues, Limits};
use exosphere_orchestrator::{
    Config, DEFAULT_SLOTS, Host, HttpConfig, IpNet, KeySource, machine_name, share_of,
};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::admission::Admission;
use crate::connections::{Connections, raise_descriptors};
use crate::error::Error;
use crate::exposure::Exposure;
use crate::hardening::{self, KeyArgs, MasterKey};
use crate::log::{self, Log};
use crate::traces::TraceArgs;

/// Run a host: accept plugins and graphs, and execute runs durably.
#[derive(Debug, Args)]
#[command(after_help = "\
The first interrupt (Ctrl-C or SIGTERM) lets running nodes end and gives back \
states that have not begun; a second one stops at once. Nothing is lost either way.")]
pub struct Serve {
    /// The data folder: database, key and code cache. It belongs to one host at a
    /// time.
    #[arg(long, env = "EXOSPHERE_DATA", default_value = "./exosphere-data", value_name = "DIR")]
    data: PathBuf,
    /// A Postgres database instead of the one in the folder, which many hosts
    /// may share: postgres://USER:PASSWORD@HOST:PORT/DATABASE
    ///
    /// Any number of hosts on one database are one system: any host that has room
    /// executes a state, and the others take over the states of a host that dies.
    #[arg(long, env = "EXOSPHERE_DATABASE", value_name = "URL", hide_env_values = true)]
    database: Option<String>,
    #[command(flatten)]
    key: KeyArgs,
    /// The address to listen on. Port 0 stands for any free port.
    ///
    /// An address beyond the loopback needs TLS (--tls-cert, --tls-key), or
    /// --insecure-http behind a proxy that has it.
    #[arg(long, env = "EXOSPHERE_LISTEN", default_value = "127.0.0.1:7070", value_name = "HOST:PORT",
          value_parser = listen_address)]
    listen: SocketAddr,
    /// The name of this host in lists and timelines [default: the name of the machine]
    #[arg(long, env = "EXOSPHERE_NAME", value_name = "NAME",
          value_parser = NonEmptyStringValueParser::new())]
    name: Option<String>,
    /// The number of nodes that may run at a time.
    #[arg(long, env = "EXOSPHERE_SLOTS", default_value_t = DEFAULT_SLOTS, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    slots: u32,
    /// The number of slots that one namespace may have, so that others always have
    /// some [default: three quarters of --slots]
    ///
    /// `exosphere namespace set` gives a namespace a number of its own.
    #[arg(long, env = "EXOSPHERE_NAMESPACE_SLOTS", value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    namespace_slots: Option<u32>,
    /// A limit of an attempt, repeatable: --limit memory_bytes=256MiB --limit
    /// cpu_ms=10s
    ///
    /// Namespaces, graphs and nodes may lower it, and not raise it. `exosphere
    /// namespace show` lists all limits and their values.
    #[arg(
        long = "limit",
        env = "EXOSPHERE_LIMITS",
        value_name = "NAME=VALUE",
        value_delimiter = ','
    )]
    limits: Vec<LimitValues>,
    /// A network that HTTP requests of nodes may reach, repeatable: 10.1.0.0/16
    ///
    /// Without it, they reach the public internet only, and there only the
    /// destinations that their grants allow.
    #[arg(
        long = "http-allow-net",
        env = "EXOSPHERE_HTTP_ALLOW_NETS",
        value_name = "NETWORK",
        value_delimiter = ',',
        value_parser = network
    )]
    http_allow_nets: Vec<IpNet>,
    #[command(flatten)]
    admission: Admission,
    #[command(flatten)]
    exposure: Exposure,
    #[command(flatten)]
    traces: TraceArgs,
    #[command(flatten)]
    connections: Connections,
    /// Write the log as JSON lines.
    #[arg(long, env = "EXOSPHERE_LOG_JSON")]
    log_json: bool,
    /// Allow core dumps and debuggers, which expose the memory of the host and the
    /// secrets in it.
    #[arg(long, env = "EXOSPHERE_ALLOW_CORE_DUMPS", hide = true)]
    allow_core_dumps: bool,
    /// The offset of this host's clock, in milliseconds, for tests.
    #[arg(
        long,
        env = "EXOSPHERE_CLOCK_OFFSET_MS",
        hide = true,
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    clock_offset_ms: i64,
}

/// Parses a network of `--http-allow-net`.
fn network(text: &str) -> Result<IpNet, String> {
    text.parse().map_err(|error| match text.parse().map(|address: IpAddr| IpNet::from(address)) {
        Ok(exclusive) => format!(
            "this is an address, not a network; the network of this address alone is {exclusive}"
        ),
        Err(_) => format!("{error}; a network looks like 10.1.0.0/16"),
    })
}

/// Parses an address to listen on: an IP address or the name of one, with a port.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let addresses = text.to_socket_addrs().map_err(|error| {
        format!("{error}; an address looks like 127.0.0.1:7070 or localhost:7070")
    })?;
    // The default address of clients is one of IPv4.
    addresses.min_by_key(SocketAddr::is_ipv6).ok_or_else(|| "this name has no address".to_owned())
}

/// The number of running nodes that the log names when the host stops.
const MAX_LOGGED_NODES: usize = 10;

/// Logs what a stopping host waits for, and for how long at most.
async fn log_drain(host: &Host) {
    let (nodes, longest) = host.running(MAX_LOGGED_NODES).await;
    if nodes.is_empty() {
        tracing::info!("stopping; no node is running");
        return;
    }
    tracing::info!(
        holding = host.holding(),
        at_most_s = longest.as_secs(),
        nodes = nodes.join(", "),
        "stopping: waiting for the running nodes until their deadlines; reads are answered, starts \
         are refused; a second interrupt stops at once"
    );
}

/// Runs a host until it is interrupted or fails.
pub fn run(args: Serve, master_key: Option<MasterKey>) -> Result<(), Error> {
    let start_error = |error: std::io::Error| Error::Start(error.to_string());
    args.exposure.check(args.listen)?;
    hardening::keep_files_private();
    let log = log::begin(args.log_json).map_err(start_error)?;
    exosphere_allocator::release_freed_memory();
    if !args.allow_core_dumps {
        hardening::keep_memory_private();
    }
    let keys = args.key.keys(master_key)?;
    // Nodes, and other work on untrusted input, have threads of their own, so that
    // heartbeats, requests and the effects of commits never wait for them.
    let (front, work) =
        (runtime("front").map_err(start_error)?, runtime("work").map_err(start_error)?);
    let served = front.block_on(serve(args, keys, work.handle().clone(), &log));
    // Remaining work, such as a read from a hung disk, ends with the process.
    front.shutdown_background();
    work.shutdown_background();
    served
}

fn runtime(name: &str) -> std::io::Result<Runtime> {
    Builder::new_multi_thread().thread_name(name).enable_all().build()
}

/// The longest wait at shutdown for requests under way. Long polls may take longer;
/// their callers ask another host.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

async fn serve(args: Serve, keys: KeySource, work: Handle, log: &Log) -> Result<(), Error> {
    let start_error = |error: &dyn std::fmt::Display| Error::Start(error.to_string());
    let namespace_slots = args.namespace_slots.unwrap_or(share_of(args.slots));
    if namespace_slots > args.slots {
        tracing::warn!(
            namespace_slots,
            slots = args.slots,
            "--namespace-slots is above --slots: one namespace may take all slots"
        );
    }
    let connections = args.connections.limits(raise_descriptors(), args.slots);
    let _signal = ignore_file_size_signal().map_err(|error| start_error(&error))?;
    // Bound before the data folder is opened, so that a port in use changes nothing.
    let listener = TcpListener::bind(args.listen).await.map_err(|error| {
        Error::Start(format!(
            "cannot listen on {}: {error}; choose another with --listen",
            args.listen
        ))
    })?;
    let address = listener.local_addr().map_err(|error| start_error(&error))?;
    let (tls, asks_for_keys) = (args.exposure.tls()?, args.exposure.asks_for_keys());
    let scheme = if tls.is_some() { "https" } else { "http" };
    let host_name = args.name.unwrap_or_else(machine_name);
    let traces = args.traces.config(&host_name)?;
    let host = Host::start(Config {
        host_name,
        traces,
        database: args.database,
        keys,
        slots: args.slots,
        namespace_slots,
        limits: args.limits.iter().fold(Limits::default(), Limits::set),
        http: HttpConfig { allow_nets: args.http_allow_nets, ..HttpConfig::default() },
        clock_offset: args.clock_offset_ms,
        code_cache_bytes: args.admission.code_cache_bytes,
        admission: args.admission.limits(),
        work: Some(work),
        dropped_log_lines: log.dropped_lines(),
        requests_per_key: args.exposure.requests_per_key,
        audit_retention: args.exposure.audit_retention(),
        no_auth: !asks_for_keys,
        ..Config::new(args.data)
    });
    let host = host.await.map_err(|error| start_error(&error))?;
    let mut interrupts = Interrupts::new().map_err(|error| start_error(&error))?;
    // The reader of standard output may be gone, which is not an error.
    let _ = writeln!(std::io::stdout(), "exosphere is listening on {scheme}://{address}");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let settings = ApiSettings { connections, tls, asks_for_keys };
    let api = exosphere_api::serve(listener, host.clone(), settings, async {
        let _ = stopped.await;
    });
    let mut api = tokio::spawn(api);
    tokio::select! {
        ended = &mut api => {
            let ended = ended.map_err(|error| start_error(&error))?;
            return ended.map_err(|error| start_error(&error));
        }
        cause = host.failed() => return Err(Error::Start(cause)),
        () = interrupts.next() => {}
    }
    log_drain(&host).await;
    // The API continues meanwhile: it answers reads, and refuses starts.
    tokio::select! {
        stopped = host.stop() => stopped.map_err(|error| start_error(&error))?,
        cause = host.failed() => return Err(Error::Start(cause)),
        () = interrupts.next() => {
            tracing::warn!("stopped at once; the next start reclaims the claimed states");
            return Ok(());
        }
    }
    let _ = stop.send(());
    tokio::select! {
        _ = tokio::time::timeout(DRAIN_TIMEOUT, api) => {}
        () = interrupts.next() => {}
    }
    Ok(())
}

/// Listens for SIGXFSZ, whose default action ends the process. A file at the limit of
/// the process (`ulimit -f`) then fails only its own write, like a full disk.
fn ignore_file_size_signal() -> std::io::Result<Signal> {
    signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))
}

/// Listeners for Ctrl-C and SIGTERM.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn new() -> std::io::Result<Self> {
        Ok(Interrupts {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
