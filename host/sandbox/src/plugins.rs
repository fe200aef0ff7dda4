//! The memory cache of compiled and linked plugins. Each plugin is compiled once,
//! however many callers ask for it at the same time.
//!
//! Not here: the checks of an upload (`admit`), and the copies on disk (`cache`).

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use exosphere_domain::ids::Digest;
use tokio::sync::OnceCell;
use wasmtime::component::InstancePre;

use crate::admission::error::Refused;
use crate::admission::inspect::Facts;
use crate::bindings::v0_1::PluginIndices;
use crate::guest::state::Host;
use crate::sandbox::{Purpose, Sandbox};

/// A plugin that is ready to run.
pub struct Plugin {
    digest: Digest,
    pre: InstancePre<Host>,
    indices: PluginIndices,
    imports: Vec<String>,
    facts: Facts,
    code_bytes: u64,
}

impl Plugin {
    pub(crate) fn new(
        digest: Digest,
        pre: InstancePre<Host>,
        indices: PluginIndices,
        facts: Facts,
    ) -> Plugin {
        let component = pre.component();
        let image = component.image_range();
        let engine = component.engine();
        let ty = component.component_type();
        Plugin {
            digest,
            imports: ty.imports(engine).map(|(name, _)| name.to_owned()).collect(),
            code_bytes: (image.end as usize).saturating_sub(image.start as usize) as u64,
            pre,
            indices,
            facts,
        }
    }

    /// Returns the digest of the component that the plugin was compiled from.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Returns the interfaces that the plugin imports.
    pub fn imports(&self) -> &[String] {
        &self.imports
    }

    /// Returns the counted parts of the component.
    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Returns the component, its imports linked to the host's functions.
    pub(crate) fn instance_pre(&self) -> &InstancePre<Host> {
        &self.pre
    }

    /// Returns the indices of the guest's functions in an instance.
    pub(crate) fn indices(&self) -> &PluginIndices {
        &self.indices
    }
}

/// The reason why a plugin could not be loaded; `E` is the caller's own error of
/// fetching the bytes.
#[derive(Debug, thiserror::Error)]
pub enum LoadError<E: Error + 'static> {
    /// The caller could not fetch the bytes.
    #[error("the bytes of the plugin could not be read")]
    Fetch(#[source] E),
    /// The fetched bytes have another digest.
    #[error(
        "the bytes that are stored under digest {wanted} have digest {found}; upload the plugin again"
    )]
    Digest {
        /// The digest that was asked for.
        wanted: Digest,
        /// The digest of the fetched bytes.
        found: Digest,
    },
    /// The bytes are not a plugin that this version runs.
    #[error("the plugin is not accepted by this version of the host")]
    Refused(#[from] Refused),
}

/// Bytes of compiled code that are kept in memory, besides the running plugins.
const KEPT_BYTES: u64 = 512 * 1024 * 1024;

/// A cache entry: a plugin, or an empty cell until it is loaded.
#[derive(Default)]
struct Shelf {
    plugin: Arc<OnceCell<Arc<Plugin>>>,
    last_used: u64,
}

/// The memory cache of loaded plugins, by digest.
#[derive(Default)]
pub(crate) struct Plugins(Mutex<Shelves>);

#[derive(Default)]
struct Shelves {
    by_digest: HashMap<Digest, Shelf>,
    uses: u64,
}

impl Plugins {
    fn lock(&self) -> MutexGuard<'_, Shelves> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a plugin that is loaded.
    pub(crate) fn get(&self, digest: Digest) -> Option<Arc<Plugin>> {
        let mut shelves = self.lock();
        shelves.uses += 1;
        let uses = shelves.uses;
        let shelf = shelves.by_digest.get_mut(&digest)?;
        shelf.last_used = uses;
        shelf.plugin.get().cloned()
    }

    /// Inserts a plugin, unless it is there.
    pub(crate) fn put(&self, plugin: Arc<Plugin>) {
        // An error says that another caller was quicker with the same plugin.
        let _ = self.place(plugin.digest()).set(plugin);
        self.tidy();
    }

    /// Returns the cell of a plugin. The first caller to find it empty fills it, and
    /// the others wait at the cell.
    pub(crate) fn place(&self, digest: Digest) -> Arc<OnceCell<Arc<Plugin>>> {
        let mut shelves = self.lock();
        shelves.uses += 1;
        let uses = shelves.uses;
        let shelf = shelves.by_digest.entry(digest).or_default();
        shelf.last_used = uses;
        Arc::clone(&shelf.plugin)
    }

    /// Drops the least recently used plugins, and cells that stayed empty. Running
    /// executions keep their plugin.
    pub(crate) fn tidy(&self) {
        let mut shelves = self.lock();
        // A failed load leaves an empty cell that only the map holds.
        shelves
            .by_digest
            .retain(|_, shelf| shelf.plugin.initialized() || Arc::strong_count(&shelf.plugin) > 1);
        let loaded = |shelf: &Shelf| shelf.plugin.get().map(|plugin| plugin.code_bytes);
        let mut bytes: u64 = shelves.by_digest.values().filter_map(loaded).sum();
        while bytes > KEPT_BYTES && shelves.by_digest.len() > 1 {
            let oldest = shelves
                .by_digest
                .iter()
                .filter_map(|(digest, shelf)| Some((shelf.last_used, *digest, loaded(shelf)?)))
                .min();
            let Some((_, digest, freed)) = oldest else { break };
            shelves.by_digest.remove(&digest);
            bytes -= freed;
        }
    }
}

impl Sandbox {
    /// Loads a plugin that is ready to run: from memory, else from the code cache on
    /// disk, else compiled from the bytes that `fetch` brings. `fetch` is called only
    /// in the last case.
    ///
    /// # Errors
    /// If `fetch` fails, if it brings other bytes than those of `digest`, or if they
    /// are not a plugin that this host runs.
    pub async fn load<E, F>(
        &self,
        digest: Digest,
        fetch: impl FnOnce() -> F + Send,
    ) -> Result<Arc<Plugin>, LoadError<E>>
    where
        E: Error + Send + 'static,
        F: Future<Output = Result<Vec<u8>, E>> + Send,
    {
        let place = self.plugins().place(digest);
        if let Some(plugin) = place.get() {
            return Ok(Arc::clone(plugin));
        }
        let loaded = place
            .get_or_try_init(|| async {
                if let Some(plugin) = self.restore(digest).await {
                    return Ok(plugin);
                }
                let bytes = fetch().await.map_err(LoadError::Fetch)?;
                let found = Digest::of(&bytes);
                if found != digest {
                    return Err(LoadError::Digest { wanted: digest, found });
                }
                let compiled = self.compile(digest, &bytes, Purpose::Load).await?;
                if let Some(artifact) = compiled.artifact {
                    self.keep(digest, artifact).await;
                }
                Ok(compiled.plugin)
            })
            .await
            .cloned();
        drop(place);
        self.plugins().tidy();
        loaded
    }
}
