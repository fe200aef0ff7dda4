//! The sandbox itself: what all executions share, made once at the host's
//! start. What it can do is in `admit`, `plugins` and `invoke`.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use exosphere_domain::limits::{Level, Limit, Limits};
use tokio::sync::{Semaphore, SemaphorePermit};
use wasmtime::Engine;
use wasmtime::component::Linker;

use crate::artifact::Artifact;
use crate::cache::Cache;
use crate::compiler::Compiler;
use crate::engine;
use crate::fair_semaphore::FairSemaphore;
use crate::host::{self, Host};
use crate::http::{HttpConfig, Network};
use crate::plugins::Plugins;
use crate::refused::Refused;
use crate::ticker::Ticker;

/// Slots of a small machine.
pub const DEFAULT_SLOTS: u32 = 128;

/// What a sandbox is made from.
#[derive(Clone)]
pub struct SandboxConfig {
    /// How many guests may run at once; further ones wait. At least 1.
    pub slots: u32,
    /// The most memory, tables and instances that any guest may have. Slots
    /// are made for these.
    pub limits: Limits,
    /// The folder of compiled code. It is made if it is missing, and may be
    /// emptied at any time.
    pub cache_dir: PathBuf,
    /// The secret by which the host knows the code it compiled itself.
    pub cache_key: [u8; 32],
    /// How guests with a grant may use the network.
    pub http: HttpConfig,
    /// Bytes of compiled code that the folder may hold.
    pub cache_bytes: u64,
    /// What compiles plugins.
    pub compiler: Compiler,
}

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// This machine or process cannot run WebAssembly.
    #[error("the WebAssembly engine cannot start: {0}")]
    Engine(String),
    /// The cache's folder cannot be used.
    #[error(
        "the folder for compiled code {path:?} cannot be used; choose one that the host may write to"
    )]
    Cache {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// There is no thread for the clock.
    #[error("the system gives no further thread")]
    Thread(#[source] io::Error),
}

fn no_engine(error: wasmtime::Error) -> SetupError {
    SetupError::Engine(format!("{error:#}"))
}

/// Guests that run for long at the same time: one on each processor.
fn processors() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}

/// What is compiled for whom. One compilation takes all the processors as it
/// is, so there is one at a time of each; what runs already does not wait for
/// strangers' uploads, nor one namespace's upload for all of another's.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose<'a> {
    /// Somebody of this namespace asks whether it is a plugin.
    Upload(&'a str),
    /// A run needs it.
    Load,
}

/// Runs guests. One for a host, shared by all.
pub struct Sandbox {
    // Stopped before the engine goes.
    ticker: Ticker,
    engine: Engine,
    linker: Arc<Linker<Host>>,
    cache: Arc<Cache>,
    network: Arc<Network>,
    plugins: Plugins,
    slots: Semaphore,
    turns: FairSemaphore<String, String>,
    compiler: Compiler,
    uploads: FairSemaphore<String>,
    loads: FairSemaphore<()>,
    limits: Limits,
}

impl Sandbox {
    /// Sets everything up, and proves that something can run.
    ///
    /// # Errors
    /// If the engine cannot start at all, or the folder cannot be used. That
    /// memory cannot be reserved in advance is no error, only a warning.
    pub fn new(config: SandboxConfig) -> Result<Sandbox, SetupError> {
        let slots = config.slots.max(1);
        let engine = engine::build(slots, &config.limits).map_err(no_engine)?;
        let linker = host::linker(&engine).map_err(no_engine)?;
        let cache =
            Cache::open(config.cache_dir.clone(), config.cache_key, config.cache_bytes, &engine)
                .map_err(|source| SetupError::Cache { path: config.cache_dir, source })?;
        Ok(Sandbox {
            ticker: Ticker::start(engine.clone()).map_err(SetupError::Thread)?,
            engine,
            linker: Arc::new(linker),
            cache: Arc::new(cache),
            network: Arc::new(Network::new(config.http)),
            plugins: Plugins::default(),
            slots: Semaphore::new(slots as usize),
            turns: FairSemaphore::new(processors()),
            compiler: config.compiler,
            uploads: FairSemaphore::new(1),
            loads: FairSemaphore::new(1),
            limits: config.limits,
        })
    }

    /// Whether memory is reserved for every slot. If not (a warning was logged
    /// when the sandbox was made), nodes start several times slower.
    pub fn is_pooled(&self) -> bool {
        self.engine.pooling_allocator_metrics().is_some()
    }

    /// Slots that are free at the moment.
    pub fn free_slots(&self) -> usize {
        self.slots.available_permits()
    }

    /// Limits of an execution, held to what the slots were made for.
    pub(crate) fn bounded(&self, mut limits: Limits) -> Limits {
        [Limit::MemoryBytes, Limit::TableElements, Limit::Instances]
            .into_iter()
            .for_each(|limit| limits.lower(Level::Host, limit, self.limits.get(limit)));
        limits.with(Limit::StackBytes, self.limits.get(Limit::StackBytes))
    }

    /// Waits for a slot; it is held as long as the answer lives. The semaphore
    /// is never closed, so there always is one.
    pub(crate) async fn slot(&self) -> Option<SemaphorePermit<'_>> {
        self.slots.acquire().await.ok()
    }

    /// Waits for the turn to compile, and compiles.
    pub(crate) async fn compile_in_turn(
        &self,
        purpose: Purpose<'_>,
        bytes: &[u8],
    ) -> Result<(Artifact, Instant), Refused> {
        let (_upload, _load);
        match purpose {
            Purpose::Upload(whose) => _upload = self.uploads.take(whose.to_owned(), 1).await,
            Purpose::Load => _load = self.loads.take((), 1).await,
        }
        let started = Instant::now();
        Ok((self.compiler.compile(bytes).await?, started))
    }

    /// The turns that guests take which run for long.
    pub(crate) fn turns(&self) -> FairSemaphore<String, String> {
        self.turns.clone()
    }

    pub(crate) fn ticker(&self) -> &Ticker {
        &self.ticker
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn linker(&self) -> Arc<Linker<Host>> {
        Arc::clone(&self.linker)
    }

    pub(crate) fn network(&self) -> Arc<Network> {
        Arc::clone(&self.network)
    }

    pub(crate) fn cache(&self) -> Arc<Cache> {
        Arc::clone(&self.cache)
    }

    pub(crate) fn plugins(&self) -> &Plugins {
        &self.plugins
    }
}
