//! The host: claims states, executes them in the sandbox and commits their results in the
//! store. Data goes one way. Every front end calls [`Host`].
//!
//! Layout: this file starts and stops a host from its configuration (`config`, `data_folder`,
//! `keys`) and its `inner`. Front ends call methods of `service`. States go through
//! `execution`. `cluster` coordinates with the other hosts on the database. The other modules
//! serve all of these.
//!
//! Not here: SQL, WebAssembly, HTTP, and the meaning of an outcome.

mod config;
mod private_file;
mod data_folder;
mod keys;
mod rates;
mod access;
mod inner;
mod service;
mod execution;
mod cluster;
mod cache;
mod host_work;
pub mod metrics;
mod watchers;
mod lifeline;
mod check;
mod error;
mod database_backoff;
mod system;
mod traces;

use std::sync::Arc;
use std::time::{Duration, Instant};

use exosphere_domain::clock::Clock;
use exosphere_domain::ids::{Millis, Name};
use exosphere_domain::limits::{Limit, Limits};
use exosphere_sandbox::{Compiler, Sandbox, SandboxConfig};
use exosphere_store::{Database, Notification, Store, StoreError};
use tokio::runtime::Handle;

pub use access::admin_key::admin_key_file;
pub use access::{AccessError, Caller};
pub use check::check;
pub use config::{
    Config, DEFAULT_AUDIT_RETENTION, DEFAULT_REQUESTS_PER_KEY, DEFAULT_SLOTS, machine_name,
    share_of,
};
pub use error::{Effect, Error, StartError};
pub use exosphere_domain as domain;
pub use exosphere_sandbox::{
    AdmissionError, AdmissionLimits, DEFAULT_CACHE_BYTES as DEFAULT_CODE_CACHE_BYTES, FairPermit,
    HttpConfig, IpNet, compiler::main as compile,
};
pub use exosphere_store::{
    ApiKeyRow, AttemptLog, AttemptRow, AuditFilter, AuditRow, BadCursor, BadKeys, BadLogCursor,
    BulkView, CheckError, Expected, FailureView, GraphEntry, GraphRow, HostView, KeyId, Keyring,
    ListedRun, LogCursor, LostSecrets, Page, PageRequest, Pause, PluginEntry, PluginRow, Report,
    RevisionEntry, RunCount, RunCounters, RunCursor, RunPageRequest, RunStart, RunView, SecretName,
    StatePageRequest, StateView, Uploads, Violation,
};
pub use inner::Unready;
pub use keys::file::KeyFileError;
pub use keys::rotation::{KeyRotation, Rotated, RotationError};
pub use keys::source::KeySource;
pub use service::admission::{AdmissionReport, Capability, UploadReport};
pub use service::catalog::{GraphApplied, PluginUpload, Uploaded};
pub use service::deletion::DeletedGraph;
pub use service::given::{RunGiven, StateGiven};
pub use service::insight::{Baseline, Interval};
pub use service::keys::{CreatedKey, KeyRequest};
pub use service::large_json::AnswerPermit;
pub use service::live::{RunFollower, RunsFollower};
pub use service::logs::{LogPage, LogRequest};
pub use service::namespaces::{NamespaceDetails, NamespaceSettings, PluginGrants};
pub use service::pauses::RunPause;
pub use service::queries::{RunDetails, RunSnapshot, StateDetails};
pub use service::quotas::NamespaceQuotas;
pub use service::results::{BadOutputCursor, OutputCursor, OutputPage, OutputView};
pub use service::run_control::Redriven;
pub use service::start::{StartRequest, Started};
pub use system::random_id;
pub use traces::{DEFAULT_OTLP_TIMEOUT, TraceConfig};

use access::WrongKeys;
use cluster::notifier::Notifier;
use cluster::probe::{self, Probe};
use cluster::recovery;
use cluster::session::CurrentSession;
use data_folder::DataFolder;
use database_backoff::{database_backoff, pause};
use execution::bulk::{self, Bulks};
use execution::committer::{self, Committer};
use execution::deadlines::{self, DeadlineWatch};
use execution::executor::Executor;
use execution::pauses::{self, Pauses};
use execution::prefetch::{MAX_AHEAD_PER_SLOT, Prefetch};
use execution::recall;
use execution::removals::{self, Removals};
use execution::sweeps::{self, Sweeps};
use host_work::HostWork;
use inner::{Caches, Cluster, DatabaseParts, HostInner, Pipeline, Settings};
use metrics::Metrics;
use service::large_json::LargeJsonPermits;
use service::quotas::StartRates;
use system::SystemClock;
use traces::Traces;
use watchers::Watchers;

/// Maximum number of states that are claimed for each slot: a running one, and those claimed
/// ahead while executions are fast.
const MAX_CLAIMS_PER_SLOT: u32 = 1 + MAX_AHEAD_PER_SLOT;

/// Time for which an execution waits for a database that is unavailable, before its
/// attempt is given back.
const READ_RETRY_TIMEOUT: Duration = Duration::from_secs(10);

/// The time for which a stopping host tries to end its session while the database is unavailable,
/// such as for a restart. Without that end, others take its states over later.
const END_SESSION_TIMEOUT: Duration = Duration::from_secs(3);

/// A host: a session on a database, and a sandbox. Cheap to clone.
#[derive(Clone)]
pub struct Host {
    inner: Arc<HostInner>,
    /// The caller for whom this handle works; `None` for the host itself.
    caller: Option<Caller>,
}

impl Host {
    /// Starts a host: locks the data folder, opens the database, reclaims the states of
    /// earlier hosts, and begins to execute.
    pub async fn start(config: Config) -> Result<Host, StartError> {
        let (mut folder, cipher) = DataFolder::take(&config.data, &config.keys)?;
        let database = match config.database {
            Some(url) => Database::Postgres(url),
            None => {
                folder.lock_database()?;
                Database::Sqlite(folder.database())
            }
        };
        let store = Store::open(&database, cipher).await?;
        let sandbox = Sandbox::new(SandboxConfig {
            slots: config.slots,
            limits: config.limits.clone(),
            cache_dir: folder.code_cache(),
            cache_key: folder.cache_key(),
            http: config.http,
            cache_bytes: config.code_cache_bytes,
            compiler: Compiler::from_current_exe(config.admission.clone()),
        })?;
        let traces = Traces::new(config.traces)?;
        let clock = SystemClock::with_offset(config.clock_offset);
        advance_clock(&clock, &store).await?;
        let session = store.begin_session(&folder.identity(&config.host_name), clock.now()).await?;
        if !config.no_auth {
            access::admin_key::create_if_first(&store, &config.data, clock.now()).await?;
        }
        let capacity = config.slots.saturating_mul(MAX_CLAIMS_PER_SLOT);
        let inner = Arc::new(HostInner {
            pipeline: Pipeline {
                committer: Committer::new(capacity),
                executor: Executor::new(config.slots, config.work.unwrap_or_else(Handle::current)),
                prefetch: Prefetch::new(config.slots),
                sweeps: Sweeps::default(),
                removals: Removals::default(),
                deadlines: DeadlineWatch::default(),
                pauses: Pauses::default(),
                bulks: Bulks::default(),
                watchers: Watchers::default(),
            },
            cluster: Cluster {
                session: CurrentSession::new(session),
                notifier: Notifier::new(store.is_shared()),
            },
            db: DatabaseParts {
                retrying_store: store.with_read_retries(READ_RETRY_TIMEOUT),
                store,
                clock,
                probe: Probe::default(),
            },
            sandbox,
            host_work: HostWork::start().map_err(StartError::Thread)?,
            large_json: LargeJsonPermits::new(),
            caches: Caches::default(),
            wrong_keys: WrongKeys::default(),
            start_rates: StartRates::default(),
            settings: Settings {
                host_name: config.host_name,
                limits: Arc::new(config.limits),
                slots: config.slots,
                namespace_slots: config.namespace_slots,
                admission: config.admission,
                requests_per_key: config.requests_per_key,
                audit_retention: config.audit_retention,
            },
            traces,
            lifeline: Arc::default(),
            metrics: Metrics::new(config.dropped_log_lines),
            folder,
        });
        pauses::read_namespaces(&inner).await?;
        traces::start(&inner).map_err(StartError::Thread)?;
        committer::start(inner.clone()).map_err(StartError::Thread)?;
        let lost = inner.db.store.lost_sessions(inner.db.clock.now()).await?;
        recovery::reclaim_states(&inner, &lost).await?;
        recovery::resend_spans(&inner, &lost).await?;
        sweeps::resume_sweeps(&inner).await?;
        cluster::start(&inner).map_err(StartError::Thread)?;
        probe::start(&inner);
        recall::start(&inner);
        removals::start(&inner);
        deadlines::start(&inner);
        pauses::start(&inner);
        bulk::start(&inner);
        access::upkeep::start(&inner);
        Ok(Host { inner, caller: None })
    }

    /// Stops the host gracefully: claims nothing more, lets running nodes end, and gives
    /// back states that have not begun. Returns when no claim is left.
    pub async fn stop(&self) -> Result<(), Error> {
        let inner = &self.inner;
        inner.pipeline.executor.close();
        inner.pipeline.prefetch.notify();
        inner.pipeline.committer.drain().await;
        inner.cluster.session.close();
        access::upkeep::record_uses(inner).await;
        self.end_session().await?;
        // This host alone knows of states that are due later.
        let notification = Notification {
            from: inner.cluster.session.current().0,
            work: true,
            ..Notification::default()
        };
        if let Err(error) = inner.db.store.notify(&notification).await {
            tracing::debug!(%error, "cannot notify the other hosts");
        }
        inner.traces.flush().await;
        inner.db.store.close().await;
        inner.cluster.session.end();
        Ok(())
    }

    /// Returns the database, as a handle that records changes as those of the caller.
    fn store(&self) -> Store {
        let store = &self.inner.db.store;
        match &self.caller {
            Some(caller) => store.on_behalf_of(caller.actor.clone()),
            None => store.clone(),
        }
    }

    /// Returns the id of the caller's key, if it has one.
    fn key_id(&self) -> Option<String> {
        self.caller.as_ref()?.actor.key.map(|key| key.to_string())
    }

    /// Ends the session, after an outage of at most [`END_SESSION_TIMEOUT`].
    async fn end_session(&self) -> Result<(), StoreError> {
        let inner = &self.inner;
        let session = inner.cluster.session.current();
        let started = Instant::now();
        let mut backoff = database_backoff();
        loop {
            let ended = inner.db.store.end_session(session, inner.db.clock.now()).await;
            let is_passing = matches!(ended, Err(StoreError::Unavailable(_)));
            if !is_passing || started.elapsed() > END_SESSION_TIMEOUT {
                return ended;
            }
            pause(&mut backoff).await;
        }
    }

    /// Returns whether the host is stopping: it reads and ends what is running, and starts nothing.
    pub fn is_stopping(&self) -> bool {
        self.inner.pipeline.committer.is_stopping()
    }

    /// Returns the executions that are running, at most `limit`, and the time by which the last of
    /// all has reached its deadline.
    pub async fn running(&self, limit: usize) -> (Vec<String>, Duration) {
        let (mut names, mut longest) = (Vec::new(), Duration::ZERO);
        let inner = &self.inner;
        for (run, node) in inner.pipeline.executor.running() {
            let Ok(run) = inner.caches.runs.get(&inner.db.store, run).await else { continue };
            let Some(node) = run.graph.get(node) else { continue };
            let mut limits = Limits::clone(&inner.settings.limits);
            run.graph.lower(node, &mut limits);
            longest = longest.max(limits.time(Limit::TimeoutMs));
            if names.len() < limit {
                names.push(format!("{} of run {}", node.identifier, run.id));
            }
        }
        (names, longest)
    }

    /// Returns the reason why this host cannot work, if any: its last commit failed, or its
    /// database does not answer.
    pub fn health(&self) -> Result<(), String> {
        self.inner.health()
    }

    /// Returns the reason why this host should get no requests, if any.
    pub fn readiness(&self) -> Result<(), Unready> {
        self.inner.readiness()
    }

    /// Waits until the host cannot continue, since the committer or the heartbeat has
    /// ended; returns the reason. After a graceful stop, it never returns.
    pub async fn failed(&self) -> String {
        self.inner.lifeline.failed().await
    }

    /// Returns the maximum size of an uploaded plugin, in bytes.
    pub fn upload_bytes(&self) -> u64 {
        self.inner.settings.admission.upload_bytes
    }

    /// Waits for a turn of a namespace to hold something large in memory. JSON that is
    /// read into values takes many times the memory of its text.
    pub async fn large(&self, namespace: &Name) -> Option<FairPermit<Name>> {
        self.inner.host_work.turn(namespace).await
    }

    /// Waits for a permit of a namespace to receive a large body.
    pub async fn large_body(&self, namespace: &Name) -> Option<FairPermit<Name>> {
        self.inner.large_json.body(namespace).await
    }

    /// Returns the maximum memory of JSON as values, in bytes.
    pub fn json_bytes(&self) -> u64 {
        self.inner.settings.limits.get(Limit::JsonBytes)
    }

    /// Returns the runtime for long work on behalf of guests and callers.
    pub fn work(&self) -> &Handle {
        self.inner.pipeline.executor.work()
    }

    /// Returns the number of states that this host has claimed: running, or about to run.
    pub fn holding(&self) -> u32 {
        self.inner.pipeline.committer.claimed()
    }
}

/// Makes the clock of a host that is alone on its database continue from the latest commit. So
/// no state waits longer if the machine's clock was set back.
async fn advance_clock(clock: &SystemClock, store: &Store) -> Result<(), StoreError> {
    if store.is_shared() {
        return Ok(());
    }
    let lead_ms = clock.advance_to(store.latest_time().await?);
    if lead_ms > MAX_SILENT_CLOCK_LEAD_MS {
        tracing::warn!(
            ahead_s = lead_ms / 1000,
            "the clock of this machine is behind the latest commit in the database; this host continues \
             from there, and is ahead of the clock until that has caught up: set it right"
        );
    }
    Ok(())
}

/// Lead of a database over the clock that is not reported, in milliseconds: small
/// corrections of a clock are normal.
const MAX_SILENT_CLOCK_LEAD_MS: Millis = 2_000;
