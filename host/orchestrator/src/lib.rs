//! Where store and sandbox meet: states are claimed, executed and committed,
//! and nothing goes back up that street. Every front end calls [`Host`].
//!
//! Not here: SQL, WebAssembly, HTTP, and what an outcome means.

mod admission;
mod ambient;
mod catalog;
mod check;
mod committer;
mod hand_on;
mod control;
mod data_folder;
mod error;
mod executor;
mod heart;
mod inputs;
mod key_file;
mod keys;
mod namespaces;
mod plugins;
mod prefetch;
mod read;
mod reading;
mod recall;
mod recovery;
mod room;
mod rotation;
mod runs;
mod secrets;
mod teller;
mod tenants;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use exosphere_domain::clock::Clock;
use exosphere_domain::ids::{Millis, Name};
use exosphere_domain::limits::{Limit, Limits};
use exosphere_sandbox::{Compiler, Sandbox, SandboxConfig};
use exosphere_store::{Database, Notice, Store};

pub use admission::{Capability, Checked, Remarks};
pub use catalog::{GraphApplied, PluginUpload, Uploaded};
pub use check::check;
pub use control::{Redriven, StartRequest, Started};
pub use error::{Error, StartError};
pub use exosphere_domain as domain;
pub use exosphere_sandbox::{
    AdmissionLimits, DEFAULT_CACHE_BYTES as DEFAULT_CODE_CACHE_BYTES, HttpConfig, IpNet, Turn,
    compiler::main as compile,
};
pub use exosphere_store::{
    AttemptRow, BadKeys, CheckError, Expected, GraphRow, KeyId, Keyring, Page, PluginRow, Report,
    RunFilter, RunView, StateFilter, StateView, Unopened, Violation,
};
pub use key_file::KeyFileError;
pub use keys::Keys;
pub use namespaces::{NamespaceDetails, NamespaceSettings, PluginGrants};
pub use read::{RunDetails, StateDetails};
pub use rotation::{Rotated, RotationError, Sealing};

use ambient::SystemClock;
use committer::Committer;
use data_folder::DataFolder;
use executor::Executor;
use heart::Session;
use plugins::Plugins;
use prefetch::{MAX_AHEAD_PER_SLOT, Prefetch, Targets};
use reading::Large;
use runs::{Descriptions, Graphs, Runs};
use secrets::Declared;
use teller::Teller;
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
    pub plugins: Plugins,
    pub runs: Runs,
    pub graphs: Graphs,
    pub descriptions: Descriptions,
    pub declared: Declared,
    pub watchers: Watchers,
    pub committer: Committer,
    pub executor: Executor,
    pub prefetch: Arc<Prefetch>,
    pub teller: Teller,
    pub clock: SystemClock,
    pub session: Session,
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
        let (folder, vault) = DataFolder::take(&config.data, &config.keys)?;
        let database = match config.database {
            Some(url) => Database::Postgres(url),
            None => Database::Sqlite(folder.database()),
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
        let session = store.begin_session(folder.host(), clock.now()).await?;
        let capacity = config.slots.saturating_mul(HELD_PER_SLOT);
        let (committer, work) = Committer::new(capacity);
        let parts = Arc::new(Parts {
            plugins: Plugins::default(),
            runs: Runs::default(),
            graphs: Graphs::default(),
            descriptions: Descriptions::default(),
            declared: Declared::default(),
            watchers: Watchers::default(),
            executor: Executor::new(config.slots),
            prefetch: Prefetch::new(config.slots),
            teller: Teller::new(store.is_shared()),
            patient: store.patient(PATIENCE),
            store,
            sandbox,
            committer,
            clock,
            session: Session::new(session),
            tenants: Tenants::default(),
            large: Large::new(),
            limits: Arc::new(config.limits),
            slots: config.slots,
            namespace_slots: config.namespace_slots,
            admission: config.admission,
            folder,
        });
        work.start(parts.clone()).map_err(StartError::Thread)?;
        let lost = parts.store.lost_sessions(clock.now()).await?;
        recovery::take_back(&parts, &lost).await?;
        recovery::go_on_sweeping(&parts).await?;
        heart::start(&parts);
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
        let notice = Notice { from: parts.session.current().0, work: true, ..Notice::default() };
        if let Err(error) = parts.store.notify(&notice).await {
            tracing::debug!(%error, "cannot tell the other hosts");
        }
        parts.store.close().await;
        Ok(())
    }

    /// Whether the last commit went through, and if not, why.
    pub fn health(&self) -> Result<(), String> {
        self.parts.committer.health()
    }

    /// Bytes that an uploaded plugin may have.
    pub fn upload_bytes(&self) -> u64 {
        self.parts.admission.upload_bytes
    }

    /// Waits for the turn of a namespace to have something large in memory: JSON
    /// that is read into values takes many times its text.
    pub async fn large(&self, namespace: &Name) -> Option<Turn<Name>> {
        self.parts.large.turn(namespace).await
    }

    /// Waits for the turn of a namespace to send a large body.
    pub async fn large_body(&self, namespace: &Name) -> Option<Turn<Name>> {
        self.parts.large.body(namespace).await
    }

    /// Bytes of memory that JSON may take which is read into values.
    pub fn json_bytes(&self) -> u64 {
        self.parts.limits.get(Limit::JsonBytes)
    }

    /// States that this host holds: running, or about to.
    pub fn holding(&self) -> u32 {
        self.parts.committer.holding()
    }
}
