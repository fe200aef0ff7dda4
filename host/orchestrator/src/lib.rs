//! The host: claims states, executes them in the sandbox and commits their results in the
//! store. Data goes one way. Every front end calls [`Host`].
//!
//! Not here: SQL, WebAssembly, HTTP, and the meaning of an outcome.

mod config;
mod data_folder;
mod keys;
mod service;
mod execution;
mod cluster;
mod cache;
mod host_work;
mod watch;
mod lifeline;
mod check;
mod error;
mod system;

use std::sync::Arc;
use std::time::Duration;

use exosphere_domain::clock::Clock;
use exosphere_domain::ids::{Millis, Name};
use exosphere_domain::limits::{Limit, Limits};
use exosphere_sandbox::{Compiler, Sandbox, SandboxConfig};
use exosphere_store::{Database, Notification, Store, StoreError};
use tokio::runtime::Handle;

pub use check::check;
pub use config::{Config, DEFAULT_SLOTS, share_of};
pub use error::{Effect, Error, StartError};
pub use execution::json_budget::AnswerPlace;
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
pub use keys::file::KeyFileError;
pub use keys::rotation::{Rotated, RotationError, Sealing};
pub use keys::source::Keys;
pub use service::admission::{Capability, Checked, Remarks};
pub use service::catalog::{GraphApplied, PluginUpload, Uploaded};
pub use service::namespaces::{NamespaceDetails, NamespaceSettings, PluginGrants};
pub use service::queries::{RunDetails, StateDetails};
pub use service::start::{Redriven, StartRequest, Started};

use cache::descriptions::Descriptions;
use cache::namespaces::Tenants;
use cache::runs::{Graphs, Runs};
use cluster::heartbeat::Session;
use cluster::notifier::Notifier;
use cluster::probe::Probe;
use cluster::{heartbeat, probe, recovery};
use data_folder::DataFolder;
use execution::committer::Committer;
use execution::executor::Executor;
use execution::json_budget::Large;
use execution::prefetch::{MAX_AHEAD_PER_SLOT, Prefetch, Targets};
use execution::secrets::{Declared, SecretSets};
use execution::sweeps::Sweeps;
use execution::{recall, sweeps};
use host_work::HostWork;
use lifeline::Lifeline;
use system::SystemClock;
use watch::Watchers;

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
