//! Where store and sandbox meet: states are claimed, executed and committed,
//! and nothing goes back up that street. Every front end calls [`Host`].
//!
//! Not here: SQL, WebAssembly, HTTP, and what an outcome means.

mod ambient;
mod begun;
mod catalog;
mod committer;
mod control;
mod data_folder;
mod error;
mod executor;
mod inputs;
mod plugins;
mod read;
mod recovery;
mod runs;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;

use exosphere_domain::clock::Clock;
use exosphere_domain::ids::SessionId;
use exosphere_domain::limits::Limits;
use exosphere_sandbox::{Sandbox, SandboxConfig};
use exosphere_store::Store;

pub use catalog::{GraphApplied, PluginUpload, Uploaded};
pub use error::{Error, StartError};
pub use exosphere_domain as domain;
pub use exosphere_store::{
    AttemptRow, GraphRow, Page, PluginRow, RunFilter, RunView, StateFilter, StateView,
};
pub use read::{RunDetails, StateDetails};

use ambient::SystemClock;
use begun::Begun;
use committer::Committer;
use data_folder::DataFolder;
use executor::Executor;
use plugins::Plugins;
use runs::{Graphs, Runs};
use watch::Watchers;

/// How a host is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// The folder that is this host's alone: database, keys, code cache.
    pub data: PathBuf,
    /// So many nodes run at a time.
    pub slots: u32,
    /// What an attempt may use.
    pub limits: Limits,
}

impl Config {
    /// A host in a folder, with defaults for the rest.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Config { data: data.into(), slots: DEFAULT_SLOTS, limits: Limits::default() }
    }
}

/// Nodes that run at a time, unless the operator says otherwise.
pub const DEFAULT_SLOTS: u32 = 64;

/// So many states are held for each slot: enough that a slot which is free has
/// something to do while the last batch is being synced.
const HELD_PER_SLOT: u32 = 8;

/// A host: a session on a database, and a sandbox. Cheap to clone.
#[derive(Clone)]
pub struct Host {
    parts: Arc<Parts>,
}

/// What a host is made of.
pub(crate) struct Parts {
    pub store: Store,
    pub sandbox: Sandbox,
    pub plugins: Plugins,
    pub runs: Runs,
    pub graphs: Graphs,
    pub watchers: Watchers,
    pub committer: Committer,
    pub executor: Executor,
    pub begun: Begun,
    pub clock: SystemClock,
    pub session: SessionId,
    pub limits: Limits,
    /// Keeps the folder's lock.
    _folder: DataFolder,
}

impl Host {
    /// Starts a host: takes the folder, opens the database, takes back what an
    /// earlier host left behind, and begins to execute.
    pub async fn start(config: Config) -> Result<Host, StartError> {
        let folder = DataFolder::take(&config.data)?;
        let store = Store::open(&folder.database(), folder.vault()).await?;
        let sandbox = Sandbox::new(SandboxConfig {
            slots: config.slots,
            limits: config.limits.clone(),
            cache_dir: folder.code_cache(),
            cache_key: folder.cache_key(),
        })?;
        let begun = folder.begun(config.slots)?;
        let clock = SystemClock;
        let session = store.begin_session(clock.now()).await?;
        let capacity = config.slots.saturating_mul(HELD_PER_SLOT);
        let limits = config.limits.clone();
        let (committer, work) = Committer::new(capacity);
        let parts = Arc::new(Parts {
            plugins: Plugins::default(),
            runs: Runs::default(),
            graphs: Graphs::default(),
            watchers: Watchers::default(),
            executor: Executor::new(config.slots),
            begun,
            store,
            sandbox,
            committer,
            clock,
            session,
            limits,
            _folder: folder,
        });
        recovery::take_back(&parts).await?;
        work.start(parts.clone());
        recovery::sweep_cancelled(&parts).await?;
        Ok(Host { parts })
    }

    /// Stops in good order: claims nothing more, lets running nodes end, gives
    /// back what was not begun. Ends when nothing is held.
    pub async fn stop(&self) -> Result<(), Error> {
        self.parts.executor.close();
        self.parts.committer.drain().await;
        self.parts.store.end_session(self.parts.session, self.parts.clock.now()).await?;
        self.parts.store.close().await;
        Ok(())
    }

    /// Whether the last commit went through, and if not, why.
    pub fn health(&self) -> Result<(), String> {
        self.parts.committer.health()
    }

    /// States that this host holds: running, or about to.
    pub fn holding(&self) -> u32 {
        self.parts.committer.holding()
    }
}
