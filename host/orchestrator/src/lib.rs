//! Where store and sandbox meet: states are claimed, executed and committed,
//! and data goes one way. Every front end calls [`Host`].
//!
//! Not here: SQL, WebAssembly, HTTP, and what an outcome means.

mod admission;
mod ambient;
mod cache;
mod catalog;
mod check;
mod committer;
mod dispatcher;
mod control;
mod data_folder;
mod descriptions;
mod error;
mod executor;
mod heartbeat;
mod host_work;
mod inputs;
mod key_file;
mod keys;
mod lifeline;
mod namespaces;
mod output_check;
mod plugins;
mod prefetch;
mod probe;
mod read;
mod reading;
mod recall;
mod recovery;
mod request;
mod claims;
mod rotation;
mod runs;
mod secrets;
mod staging;
mod sweeps;
mod notifier;
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
    AdmissionLimits, DEFAULT_CACHE_BYTES as DEFAULT_CODE_CACHE_BYTES, FairPermit, HttpConfig,
    IpNet, Refused, compiler::main as compile,
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

/// How a host is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// The folder that is this host's alone: key, code cache, and its database
    /// unless that is elsewhere.
    pub data: PathBuf,
    /// The URL of a Postgres database, which many hosts may share.
    pub database: Option<String>,
    /// Where the keys are that seal secrets. Hosts that share a database share
    /// them.
    pub keys: Keys,
    /// So many nodes run at a time.
    pub slots: u32,
    /// So many of them of one namespace, unless it has a number of its own.
    pub namespace_slots: u32,
    /// What an attempt may use.
    pub limits: Limits,
    /// Where requests of nodes may go, beyond the public internet.
    pub http: HttpConfig,
    /// What the admission of a plugin may take.
    pub admission: AdmissionLimits,
    /// Bytes of compiled code that the folder may hold.
    pub code_cache_bytes: u64,
    /// So many milliseconds this host's clock is off, for tests.
    pub clock_offset: Millis,
    /// The runtime for executions and whatever else strangers make the host do
    /// [default: the one that starts the host]. What commits, heartbeats and
    /// answers depend on does not run there.
    pub work: Option<Handle>,
}

impl Config {
    /// A host in a folder, with defaults for the rest.
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

/// Nodes that run at a time, unless the operator says otherwise.
pub const DEFAULT_SLOTS: u32 = 64;

/// How many of a host's slots one namespace may have, unless the operator says
/// otherwise: three of four, so that whatever it does others go on.
pub fn share_of(slots: u32) -> u32 {
    slots.saturating_sub(slots / 4).max(1)
}

/// States that may be held for each slot: one that runs, and those that are claimed
/// ahead while executions are fast.
const HELD_PER_SLOT: u32 = 1 + MAX_AHEAD_PER_SLOT;

/// For so long an execution waits for a database that is unavailable before its
/// attempt is given back.
const PATIENCE: Duration = Duration::from_secs(10);

/// A host: a session on a database, and a sandbox. Cheap to clone.
#[derive(Clone)]
pub struct Host {
    parts: Arc<Parts>,
}

/// What a host is made of.
pub(crate) struct Parts {
    pub store: Store,
    /// The same, for executions: its reads wait for a database that is away.
    pub patient: Store,
    pub sandbox: Sandbox,
    pub runs: Runs,
    pub graphs: Graphs,
    pub descriptions: Descriptions,
    pub declared: Declared,
    pub secret_sets: SecretSets,
    /// Threads for the host's own work for callers and guests.
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
    /// Keeps the folder's lock.
    folder: DataFolder,
}

impl Parts {
    /// What this host is known by to the others.
    pub(crate) fn host(&self) -> &str {
        self.folder.host()
    }

    /// How many states may be held now.
    pub(crate) fn targets(&self) -> Targets {
        self.prefetch.targets(|namespace| self.slots_of(self.tenants.slots(namespace)))
    }
}

impl Host {
    /// Starts a host: takes the folder, opens the database, takes back what an
    /// earlier host left behind, and begins to execute.
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
            compiler: Compiler::own(config.admission.clone()),
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

    /// Stops in good order: claims nothing more, lets running nodes end, gives
    /// back what was not begun. Ends when nothing is held.
    pub async fn stop(&self) -> Result<(), Error> {
        let parts = &self.parts;
        parts.executor.close();
        parts.prefetch.notify();
        parts.committer.drain().await;
        parts.session.close();
        parts.store.end_session(parts.session.current(), parts.clock.now()).await?;
        // Whatever is due later is known to this host alone.
        let notice =
            Notification { from: parts.session.current().0, work: true, ..Notification::default() };
        if let Err(error) = parts.store.notify(&notice).await {
            tracing::debug!(%error, "cannot tell the other hosts");
        }
        parts.store.close().await;
        parts.session.end();
        Ok(())
    }

    /// Returns why this host cannot work, if so: its last commit failed, or its
    /// database does not answer.
    pub fn health(&self) -> Result<(), String> {
        self.parts.lifeline.health()?;
        self.parts.committer.health().and_then(|()| self.parts.probe.health())
    }

    /// Waits until the host cannot go on, since the committer or the heartbeat has ended;
    /// returns the reason. A host that stops in good order never gets there.
    pub async fn failed(&self) -> String {
        self.parts.lifeline.failed().await
    }

    /// Bytes that an uploaded plugin may have.
    pub fn upload_bytes(&self) -> u64 {
        self.parts.admission.upload_bytes
    }

    /// Waits for the turn of a namespace to have something large in memory: JSON
    /// that is read into values takes many times its text.
    pub async fn large(&self, namespace: &Name) -> Option<FairPermit<Name>> {
        self.parts.work.turn(namespace).await
    }

    /// Waits for the turn of a namespace to send a large body.
    pub async fn large_body(&self, namespace: &Name) -> Option<FairPermit<Name>> {
        self.parts.large.body(namespace).await
    }

    /// Bytes of memory that JSON may take which is read into values.
    pub fn json_bytes(&self) -> u64 {
        self.parts.limits.get(Limit::JsonBytes)
    }

    /// Returns the runtime for whatever takes time on behalf of strangers.
    pub fn work(&self) -> &Handle {
        self.parts.executor.work()
    }

    /// States that this host holds: running, or about to.
    pub fn holding(&self) -> u32 {
        self.parts.committer.holding()
    }
}

/// Lets the clock of a host that is alone on its database go on from the latest
/// commit there: what waits in it waits no longer because the clock of the machine
/// has gone back.
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

/// How far a database may be ahead of the clock without a word, in milliseconds:
/// a clock that is set right now and then is no trouble.
const CLOCK_SLACK: Millis = 2_000;
