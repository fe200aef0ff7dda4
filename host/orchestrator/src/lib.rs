//! The host: claims states, executes them in the sandbox and commits their results in the
//! store. Data goes one way. Every front end calls [`Host`].
//!
//! Not here: SQL, WebAssembly, HTTP, and the meaning of an outcome.

mod admission;
mod ambient;
mod cache;
mod catalog;
mod check;
mod claims;
mod committer;
mod control;
mod data_folder;
mod descriptions;
mod dispatcher;
mod error;
mod executor;
mod heartbeat;
mod host_work;
mod inputs;
mod key_file;
mod keys;
mod lifeline;
mod namespaces;
mod notifier;
mod output_check;
mod plugins;
mod prefetch;
mod probe;
mod read;
mod reading;
mod recall;
mod recovery;
mod request;
mod rotation;
mod runs;
mod secrets;
mod staging;
mod sweeps;
mod tenants;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use exosphere_domain::clock::Clock;
use exosphere_domain::ids::{Millis, Name};
use exosphere_domain::limits::{Limit, Limits};
use exosphere_sandbox::{Compiler, Sandbox, SandboxConfig};
use exosphere_store::{Database, Notification, Store, StoreError};
use tokio::runtime::Handle;

pub use admission::{Capability, Checked, Remarks};
pub use catalog::{GraphApplied, PluginUpload, Uploaded};
pub use check::check;
pub use control::{Redriven, StartRequest, Started};
pub use error::{Effect, Error, StartError};
pub use exosphere_domain as domain;
pub use exosphere_sandbox::{
    AdmissionError, AdmissionLimits, DEFAULT_CACHE_BYTES as DEFAULT_CODE_CACHE_BYTES, FairPermit,
    HttpConfig, IpNet, compiler::main as compile,
};
pub use exosphere_store::{
    AttemptRow, BadKeys, CheckError, Expected, FailureView, GraphEntry, GraphRow, KeyId, Keyring,
    Page, Part, PluginEntry, PluginRow, Report, RunFilter, RunView, StateFilter, StateView,
    Unopened, Violation,
};
pub use key_file::KeyFileError;
pub use keys::Keys;
pub use namespaces::{NamespaceDetails, NamespaceSettings, PluginGrants};
pub use read::{RunDetails, StateDetails};
pub use reading::AnswerPlace;
pub use rotation::{Rotated, RotationError, Sealing};

use ambient::SystemClock;
use committer::Committer;
use data_folder::DataFolder;
use descriptions::Descriptions;
use executor::Executor;
use heartbeat::Session;
use host_work::HostWork;
use lifeline::Lifeline;
use notifier::Notifier;
use prefetch::{MAX_AHEAD_PER_SLOT, Prefetch, Targets};
use probe::Probe;
use reading::Large;
use runs::{Graphs, Runs};
use secrets::{Declared, SecretSets};
use sweeps::Sweeps;
use tenants::Tenants;
use watch::Watchers;

/// The configuration of a host.
#[derive(Debug, Clone)]
pub struct Config {
    /// The data folder of this host alone: key, code cache, and the database unless that
    /// is elsewhere.
    pub data: PathBuf,
    /// The URL of a Postgres database, which many hosts may share.
    pub database: Option<String>,
    /// The source of the keys that encrypt secrets. Hosts that share a database share
    /// them.
    pub keys: Keys,
    /// Slots: nodes that run at a time.
    pub slots: u32,
    /// Slots of one namespace, unless it has a number of its own.
    pub namespace_slots: u32,
    /// Limits of an attempt.
    pub limits: Limits,
    /// Destinations of nodes' HTTP requests, beyond the public internet.
    pub http: HttpConfig,
    /// Limits of the admission of a plugin.
    pub admission: AdmissionLimits,
    /// Bytes of compiled code that the folder may hold.
    pub code_cache_bytes: u64,
    /// Offset of this host's clock in milliseconds, for tests.
    pub clock_offset: Millis,
    /// The runtime for executions and other work on behalf of guests and callers
    /// [default: the runtime that starts the host]. Commits, heartbeats and answers do
    /// not depend on it.
    pub work: Option<Handle>,
}

impl Config {
    /// Creates the configuration of a host in a folder, with defaults for the rest.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Config {
            data: data.into(),
            database: None,
            keys: Keys::default(),
            slots: DEFAULT_SLOTS,
            namespace_slots: share_of(DEFAULT_SLOTS),
            limits: Limits::default(),
            http: HttpConfig::default(),
            admission: AdmissionLimits::default(),
            code_cache_bytes: DEFAULT_CODE_CACHE_BYTES,
            clock_offset: 0,
            work: None,
        }
    }
}

/// Slots of a host, unless the operator sets them.
pub const DEFAULT_SLOTS: u32 = 64;

/// Returns how many of a host's slots one namespace may have, unless the operator sets
/// that. It is three of four, so that other namespaces always have some.
pub fn share_of(slots: u32) -> u32 {
    slots.saturating_sub(slots / 4).max(1)
}

/// States that may be claimed for each slot: a running one, and those claimed ahead while
/// executions are fast.
const HELD_PER_SLOT: u32 = 1 + MAX_AHEAD_PER_SLOT;

/// Time for which an execution waits for a database that is unavailable, before its
/// attempt is given back.
const PATIENCE: Duration = Duration::from_secs(10);

/// A host: a session on a database, and a sandbox. Cheap to clone.
#[derive(Clone)]
pub struct Host {
    parts: Arc<Parts>,
}

/// The parts of a host.
pub(crate) struct Parts {
    pub store: Store,
    /// The store for executions, whose reads wait for an unavailable database.
    pub patient: Store,
    pub sandbox: Sandbox,
    pub runs: Runs,
    pub graphs: Graphs,
    pub descriptions: Descriptions,
    pub declared: Declared,
    pub secret_sets: SecretSets,
    /// Threads for host work.
    pub work: HostWork,
    pub watchers: Watchers,
    pub committer: Committer,
    pub executor: Executor,
    pub prefetch: Arc<Prefetch>,
    pub notifier: Notifier,
    pub clock: SystemClock,
    pub session: Session,
    pub probe: Probe,
    pub lifeline: Arc<Lifeline>,
    pub sweeps: Sweeps,
    pub tenants: Tenants,
    pub large: Large,
    pub limits: Arc<Limits>,
    pub slots: u32,
    pub namespace_slots: u32,
    pub admission: AdmissionLimits,
    /// Holds the lock of the data folder.
    folder: DataFolder,
}

impl Parts {
    /// Returns the id by which other hosts know this one.
    pub(crate) fn host(&self) -> &str {
        self.folder.host()
    }

    /// Returns the prefetch targets of now.
    pub(crate) fn targets(&self) -> Targets {
        self.prefetch.targets(|namespace| self.slots_of(self.tenants.slots(namespace)))
    }
}

impl Host {
    /// Starts a host: locks the data folder, opens the database, reclaims the states of
    /// earlier hosts, and begins to execute.
    pub async fn start(config: Config) -> Result<Host, StartError> {
        let (mut folder, vault) = DataFolder::take(&config.data, &config.keys)?;
        let database = match config.database {
            Some(url) => Database::Postgres(url),
            None => {
                folder.lock_database()?;
                Database::Sqlite(folder.database())
            }
        };
        let store = Store::open(&database, vault).await?;
        let sandbox = Sandbox::new(SandboxConfig {
            slots: config.slots,
            limits: config.limits.clone(),
            cache_dir: folder.code_cache(),
            cache_key: folder.cache_key(),
            http: config.http,
            cache_bytes: config.code_cache_bytes,
            compiler: Compiler::of_this_program(config.admission.clone()),
        })?;
        let clock = SystemClock::off_by(config.clock_offset);
        go_on_from(&clock, &store).await?;
        let session = store.begin_session(folder.host(), clock.now()).await?;
        let capacity = config.slots.saturating_mul(HELD_PER_SLOT);
        let (committer, work) = Committer::new(capacity);
        let parts = Arc::new(Parts {
            runs: Runs::default(),
            graphs: Graphs::default(),
            descriptions: Descriptions::default(),
            declared: Declared::default(),
            secret_sets: SecretSets::default(),
            work: HostWork::start().map_err(StartError::Thread)?,
            watchers: Watchers::default(),
            executor: Executor::new(config.slots, config.work.unwrap_or_else(Handle::current)),
            prefetch: Prefetch::new(config.slots),
            notifier: Notifier::new(store.is_shared()),
            patient: store.patient(PATIENCE),
            store,
            sandbox,
            committer,
            clock,
            session: Session::new(session),
            probe: Probe::default(),
            lifeline: Arc::default(),
            sweeps: Sweeps::default(),
            tenants: Tenants::default(),
            large: Large::new(),
            limits: Arc::new(config.limits),
            slots: config.slots,
            namespace_slots: config.namespace_slots,
            admission: config.admission,
            folder,
        });
        work.start(parts.clone()).map_err(StartError::Thread)?;
        let lost = parts.store.lost_sessions(parts.clock.now()).await?;
        recovery::take_back(&parts, &lost).await?;
        sweeps::go_on(&parts).await?;
        heartbeat::start(&parts).map_err(StartError::Thread)?;
        probe::start(&parts);
        recall::start(&parts);
        Ok(Host { parts })
    }

    /// Stops the host gracefully: claims nothing more, lets running nodes end, and gives
    /// back states that have not begun. Returns when no claim is left.
    pub async fn stop(&self) -> Result<(), Error> {
        let parts = &self.parts;
        parts.executor.close();
        parts.prefetch.notify();
        parts.committer.drain().await;
        parts.session.close();
        parts.store.end_session(parts.session.current(), parts.clock.now()).await?;
        // This host alone knows of states that are due later.
        let notice =
            Notification { from: parts.session.current().0, work: true, ..Notification::default() };
        if let Err(error) = parts.store.notify(&notice).await {
            tracing::debug!(%error, "cannot tell the other hosts");
        }
        parts.store.close().await;
        parts.session.end();
        Ok(())
    }

    /// Returns the reason for which this host cannot work, if any: its last commit
    /// failed, or its database does not answer.
    pub fn health(&self) -> Result<(), String> {
        self.parts.lifeline.health()?;
        self.parts.committer.health().and_then(|()| self.parts.probe.health())
    }

    /// Waits until the host cannot continue, since the committer or the heartbeat has
    /// ended; returns the reason. After a graceful stop, it never returns.
    pub async fn failed(&self) -> String {
        self.parts.lifeline.failed().await
    }

    /// Returns the bytes that an uploaded plugin may have.
    pub fn upload_bytes(&self) -> u64 {
        self.parts.admission.upload_bytes
    }

    /// Waits for a turn of a namespace to hold something large in memory. JSON that is
    /// read into values takes many times the memory of its text.
    pub async fn large(&self, namespace: &Name) -> Option<FairPermit<Name>> {
        self.parts.work.turn(namespace).await
    }

    /// Waits for a permit of a namespace to receive a large body.
    pub async fn large_body(&self, namespace: &Name) -> Option<FairPermit<Name>> {
        self.parts.large.body(namespace).await
    }

    /// Returns the bytes of memory that JSON may take as values.
    pub fn json_bytes(&self) -> u64 {
        self.parts.limits.get(Limit::JsonBytes)
    }

    /// Returns the runtime for long work on behalf of guests and callers.
    pub fn work(&self) -> &Handle {
        self.parts.executor.work()
    }

    /// Returns the number of states that this host has claimed: running, or about to run.
    pub fn holding(&self) -> u32 {
        self.parts.committer.holding()
    }
}

/// Makes the clock of a host that is alone on its database continue from the latest
/// commit. So no state waits longer because the machine's clock was set back.
async fn go_on_from(clock: &SystemClock, store: &Store) -> Result<(), StoreError> {
    if store.is_shared() {
        return Ok(());
    }
    let ahead = clock.go_on_from(store.latest_time().await?);
    if ahead > CLOCK_SLACK {
        tracing::warn!(
            ahead_s = ahead / 1000,
            "the clock of this machine is behind the latest commit in the database; this host goes on \
             from there, and is ahead of the clock until that has caught up: set it right"
        );
    }
    Ok(())
}

/// Lead of a database over the clock that is not reported, in milliseconds: small
/// corrections of a clock are normal.
const CLOCK_SLACK: Millis = 2_000;
