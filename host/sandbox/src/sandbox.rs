//! The sandbox: the engine, caches and slots that all executions share, made once at
//! the host's start.
//!
//! Not here: the operations on it, which are in `admission`, `load` and `invoke`.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use exosphere_domain::limits::{Level, Limit, Limits};
use tokio::sync::{Semaphore, SemaphorePermit};
use wasmtime::Engine;
use wasmtime::component::Linker;

use crate::admission::error::AdmissionError;
use crate::artifact::Artifact;
use crate::artifact_cache::Cache;
use crate::compiler::Compiler;
use crate::engine;
use crate::fair_semaphore::FairSemaphore;
use crate::guest::http::{HttpConfig, Network};
use crate::guest::linker::new_linker;
use crate::guest::state::GuestState;
use crate::limits::epoch_ticker::EpochTicker;
use crate::plugins::LoadedPlugins;

/// The configuration of a sandbox.
#[derive(Clone)]
pub struct SandboxConfig {
    /// The number of slots, which is the maximum number of concurrent guests; further guests
    /// wait. At least 1.
    pub slots: u32,
    /// The maximum memory, tables and instances of any guest. Slots are sized for these.
    pub limits: Limits,
    /// The folder of the code cache. It is created if it is missing, and may be emptied
    /// at any time.
    pub cache_dir: PathBuf,
    /// The key by which the host recognizes the code that it compiled itself.
    pub cache_key: [u8; 32],
    /// The configuration of the network for guests with a grant.
    pub http: HttpConfig,
    /// Bytes of compiled code that the cache folder may hold.
    pub cache_bytes: u64,
    /// The compiler of plugins.
    pub compiler: Compiler,
}

/// The reason why a sandbox cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// This machine or process cannot run WebAssembly.
    #[error("the WebAssembly engine cannot start: {0}")]
    Engine(String),
    /// The folder of the code cache cannot be used.
    #[error(
        "the folder for compiled code {path:?} cannot be used; choose one that the host may write to"
    )]
    Cache {
        /// The path of the folder.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// The thread of the clock cannot be started.
    #[error("the system refuses another thread")]
    Thread(#[source] io::Error),
}

fn engine_error(error: wasmtime::Error) -> SetupError {
    SetupError::Engine(format!("{error:#}"))
}

/// Returns the number of turns for guests that run for long: one for each processor.
fn processors() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}

/// The purpose of a compilation. Each compilation takes all processors, so at most one
/// of each purpose runs at a time. Loads for runs do not wait for uploads, and
/// namespaces take turns with their uploads.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose<'a> {
    /// A client of this namespace uploads a plugin or checks an upload.
    Upload(&'a str),
    /// A run needs the plugin.
    Load,
}

/// A sandbox, which runs guests. A host has one, shared by all executions.
pub struct Sandbox {
    // First, so that it is stopped before the engine is dropped.
    ticker: EpochTicker,
    engine: Engine,
    linker: Arc<Linker<GuestState>>,
    cache: Arc<Cache>,
    network: Arc<Network>,
    plugins: LoadedPlugins,
    /// One permit for each pooled instance. It is not a second queue: the slots of the executor
    /// decide which executions run. These permits also count the guests that describe the
    /// plugin of an upload, which the executor does not know.
    instances: Semaphore,
    cpu_turns: FairSemaphore<String, String>,
    compiler: Compiler,
    uploads: FairSemaphore<String>,
    loads: FairSemaphore<()>,
    limits: Limits,
}

impl Sandbox {
    /// Sets up a sandbox, and proves that it can run a guest.
    ///
    /// # Errors
    /// If the engine cannot start at all, or the folder cannot be used. Memory that
    /// cannot be reserved in advance is only a warning.
    pub fn new(config: SandboxConfig) -> Result<Sandbox, SetupError> {
        let slots = config.slots.max(1);
        let engine = engine::build(slots, &config.limits).map_err(engine_error)?;
        let linker = new_linker(&engine).map_err(engine_error)?;
        let cache =
            Cache::open(config.cache_dir.clone(), config.cache_key, config.cache_bytes, &engine)
                .map_err(|source| SetupError::Cache { path: config.cache_dir, source })?;
        Ok(Sandbox {
            ticker: EpochTicker::start(engine.clone()).map_err(SetupError::Thread)?,
            engine,
            linker: Arc::new(linker),
            cache: Arc::new(cache),
            network: Arc::new(Network::new(config.http)),
            plugins: LoadedPlugins::default(),
            instances: Semaphore::new(slots as usize),
            cpu_turns: FairSemaphore::new(processors()),
            compiler: config.compiler,
            uploads: FairSemaphore::new(1),
            loads: FairSemaphore::new(1),
            limits: config.limits,
        })
    }

    /// Returns whether memory is reserved for every slot. If not (a warning was logged
    /// when the sandbox was made), nodes start several times slower.
    pub fn is_pooled(&self) -> bool {
        self.engine.pooling_allocator_metrics().is_some()
    }

    /// Returns the number of pooled instances that no guest has.
    pub fn free_instances(&self) -> usize {
        self.instances.available_permits()
    }

    /// Reduces the limits of an execution to those for which the slots were sized.
    pub(crate) fn capped(&self, mut limits: Limits) -> Limits {
        [Limit::MemoryBytes, Limit::TableElements, Limit::Instances]
            .into_iter()
            .for_each(|limit| limits.lower(Level::Host, limit, self.limits.get(limit)));
        limits.with(Limit::StackBytes, self.limits.get(Limit::StackBytes))
    }

    /// Waits for a pooled instance, which the guest has as long as the permit lives. The
    /// semaphore is never closed, so this always returns one.
    pub(crate) async fn instance(&self) -> Option<SemaphorePermit<'_>> {
        self.instances.acquire().await.ok()
    }

    /// Waits for the turn to compile, and compiles.
    pub(crate) async fn compile_in_turn(
        &self,
        purpose: Purpose<'_>,
        bytes: &[u8],
    ) -> Result<(Artifact, Instant), AdmissionError> {
        let (_upload, _load);
        match purpose {
            Purpose::Upload(namespace) => {
                _upload = self.uploads.acquire(namespace.to_owned(), 1).await;
            }
            Purpose::Load => _load = self.loads.acquire((), 1).await,
        }
        let started = Instant::now();
        Ok((self.compiler.compile(bytes).await?, started))
    }

    /// Returns the semaphore whose permits are turns of guests that run for long.
    pub(crate) fn cpu_turns(&self) -> FairSemaphore<String, String> {
        self.cpu_turns.clone()
    }

    pub(crate) fn ticker(&self) -> &EpochTicker {
        &self.ticker
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn linker(&self) -> Arc<Linker<GuestState>> {
        Arc::clone(&self.linker)
    }

    pub(crate) fn network(&self) -> Arc<Network> {
        Arc::clone(&self.network)
    }

    pub(crate) fn cache(&self) -> Arc<Cache> {
        Arc::clone(&self.cache)
    }

    pub(crate) fn plugins(&self) -> &LoadedPlugins {
        &self.plugins
    }
}
