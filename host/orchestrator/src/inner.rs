//! The parts of a host, grouped by use: the database, caches, the pipeline that executes
//! states, the cluster, and settings.
//!
//! Not here: how they are started and stopped ([`Host`](crate::Host)).

use std::sync::Arc;
use std::time::Duration;

use exosphere_domain::ids::Name;
use exosphere_domain::limits::{LimitValues, Limits};
use exosphere_sandbox::{AdmissionLimits, Sandbox};
use exosphere_store::{HostIdentity, Store};

use crate::access::WrongKeys;
use crate::access::key_cache::KeyCache;
use crate::cache::descriptions::DescriptionCache;
use crate::cache::graphs::GraphCache;
use crate::cache::namespaces::NamespaceCache;
use crate::cache::runs::RunCache;
use crate::cluster::notifier::Notifier;
use crate::cluster::probe::Probe;
use crate::cluster::session::CurrentSession;
use crate::data_folder::DataFolder;
use crate::execution::bulk::Bulks;
use crate::execution::committer::Committer;
use crate::execution::deadlines::DeadlineWatch;
use crate::execution::executor::Executor;
use crate::execution::pauses::Pauses;
use crate::execution::prefetch::{Prefetch, Targets};
use crate::execution::removals::Removals;
use crate::execution::secrets::{SecretDeclarations, SecretSets};
use crate::execution::sweeps::Sweeps;
use crate::host_work::HostWork;
use crate::lifeline::Lifeline;
use crate::metrics::Metrics;
use crate::service::large_json::LargeJsonPermits;
use crate::service::quotas::StartRates;
use crate::system::SystemClock;
use crate::traces::Traces;
use crate::watchers::Watchers;

/// The shared internals of a running host, grouped by use.
pub(crate) struct HostInner {
    pub db: DatabaseParts,
    pub sandbox: Sandbox,
    /// Threads for host work.
    pub host_work: HostWork,
    pub large_json: LargeJsonPermits,
    pub caches: Caches,
    pub wrong_keys: WrongKeys,
    pub start_rates: StartRates,
    pub pipeline: Pipeline,
    pub cluster: Cluster,
    pub traces: Traces,
    pub settings: Settings,
    pub lifeline: Arc<Lifeline>,
    pub metrics: Metrics,
    /// Holds the lock of the data folder.
    pub folder: DataFolder,
}

/// The database, its clock and its health.
pub(crate) struct DatabaseParts {
    pub store: Store,
    /// The store for executions: its reads are retried while the database is unavailable.
    pub retrying_store: Store,
    pub clock: SystemClock,
    pub probe: Probe,
}

/// The caches of this crate. The sandbox has its own cache for compiled code.
#[derive(Default)]
pub(crate) struct Caches {
    pub runs: RunCache,
    pub graphs: GraphCache,
    pub descriptions: DescriptionCache,
    pub namespaces: NamespaceCache,
    pub api_keys: KeyCache,
    pub secret_declarations: SecretDeclarations,
    pub secret_sets: SecretSets,
}

/// The pipeline of a state through the host, and the watchers of runs.
pub(crate) struct Pipeline {
    pub committer: Committer,
    pub executor: Executor,
    pub prefetch: Arc<Prefetch>,
    pub sweeps: Sweeps,
    pub removals: Removals,
    pub deadlines: DeadlineWatch,
    pub pauses: Pauses,
    pub bulks: Bulks,
    pub watchers: Watchers,
}

/// The membership of this host in the cluster.
pub(crate) struct Cluster {
    pub session: CurrentSession,
    pub notifier: Notifier,
}

/// The operator's settings for this host.
pub(crate) struct Settings {
    /// The name of this host, for people.
    pub host_name: String,
    pub limits: Arc<Limits>,
    pub slots: u32,
    pub namespace_slots: u32,
    pub admission: AdmissionLimits,
    /// Requests a second with one key, unless the key has a rate of its own.
    pub requests_per_key: u32,
    /// The time for which the audit log is kept.
    pub audit_retention: Duration,
}

impl Settings {
    /// Returns the limits of an attempt in a namespace with limits of its own.
    pub(crate) fn attempt_limits(&self, namespace: &Name, own: &LimitValues) -> Limits {
        let mut limits = Limits::clone(&self.limits);
        limits.lower_for(namespace, own);
        limits
    }

    /// Returns the slots of a namespace on this host: its `own` number, or else the default.
    pub(crate) fn slots_of(&self, own: Option<u32>) -> u32 {
        own.unwrap_or(self.namespace_slots).clamp(1, self.slots)
    }
}

/// The reason why a host should get no requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unready {
    /// The host stops: it starts no run, and lets running nodes end.
    #[error("the host is stopping: it starts no runs, and lets the running nodes end")]
    Stopping,
    /// The database does not answer.
    #[error("the database is unavailable: the host's log has the reason")]
    DatabaseUnavailable,
    /// A part of the host has ended.
    #[error("the host cannot continue: its log has the reason; restart it")]
    Failed,
}

impl HostInner {
    /// Returns the reason why the database does not answer, if it does not.
    pub(crate) fn database_health(&self) -> Result<(), String> {
        self.pipeline.committer.health().and_then(|()| self.db.probe.health())
    }

    /// Returns the reason why this host cannot work, if any.
    pub(crate) fn health(&self) -> Result<(), String> {
        self.lifeline.health()?;
        self.database_health()
    }

    /// Returns the reason why this host should get no requests, if any.
    pub(crate) fn readiness(&self) -> Result<(), Unready> {
        self.lifeline.health().map_err(|_| Unready::Failed)?;
        if self.pipeline.committer.is_stopping() {
            return Err(Unready::Stopping);
        }
        self.database_health().map_err(|_| Unready::DatabaseUnavailable)
    }

    /// Returns the id by which other hosts know this one.
    pub(crate) fn identity(&self) -> HostIdentity {
        self.folder.identity(&self.settings.host_name)
    }

    /// Returns the current prefetch targets.
    pub(crate) fn targets(&self) -> Targets {
        let own_slots = |namespace| self.caches.namespaces.slots(namespace);
        self.pipeline.prefetch.targets(|namespace| self.settings.slots_of(own_slots(namespace)))
    }
}
