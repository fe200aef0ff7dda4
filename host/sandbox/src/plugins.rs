//! Plugins that are compiled and linked, in memory. Each is compiled once,
//! however many ask for it at the same time.
//!
//! What an upload has to pass is in `admit`; the copies on disk are in `cache`.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use exosphere_domain::ids::Digest;
use tokio::sync::OnceCell;
use wasmtime::component::InstancePre;

use crate::bindings::v0_1::PluginIndices;
use crate::host::Host;
use crate::inspect::Facts;
use crate::refused::Refused;
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

    /// The digest of the component that it was compiled from.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The interfaces that it imports.
    pub fn imports(&self) -> &[String] {
        &self.imports
    }

    /// What it is made of.
    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The component, its imports tied to the host's functions.
    pub(crate) fn instance_pre(&self) -> &InstancePre<Host> {
        &self.pre
    }

    /// Where in an instance the guest's functions are.
    pub(crate) fn indices(&self) -> &PluginIndices {
        &self.indices
    }
}

/// Why a plugin could not be loaded; `E` is the caller's own reason why there
/// are no bytes.
#[derive(Debug, thiserror::Error)]
pub enum LoadError<E: Error + 'static> {
    /// The bytes could not be had.
    #[error("the bytes of the plugin could not be read")]
    Fetch(#[source] E),
    /// Other bytes came than were asked for.
    #[error(
        "the bytes that are stored under digest {wanted} have digest {found}; upload the plugin again"
    )]
    Digest {
        /// The digest that was asked for.
        wanted: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// The bytes are no plugin that this version runs.
    #[error("the plugin is not accepted by this version of the host")]
    Refused(#[from] Refused),
}

/// Bytes of compiled code that are kept in memory, besides what is running.
const KEPT_BYTES: u64 = 512 * 1024 * 1024;

/// One plugin, or the place where it will be.
#[derive(Default)]
struct Shelf {
    plugin: Arc<OnceCell<Arc<Plugin>>>,
    last_used: u64,
}

/// What is loaded, by digest.
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

    /// A plugin that is loaded.
    pub(crate) fn get(&self, digest: Digest) -> Option<Arc<Plugin>> {
        let mut shelves = self.lock();
        shelves.uses += 1;
        let uses = shelves.uses;
        let shelf = shelves.by_digest.get_mut(&digest)?;
        shelf.last_used = uses;
        shelf.plugin.get().cloned()
    }

    /// Takes in a plugin, unless it is here already.
    pub(crate) fn put(&self, plugin: Arc<Plugin>) {
        // An error says that someone else was quicker with the same plugin.
        let _ = self.place(plugin.digest()).set(plugin);
        self.tidy();
    }

    /// The place of a plugin. Whoever finds it empty fills it, and the others
    /// wait at the cell.
    pub(crate) fn place(&self, digest: Digest) -> Arc<OnceCell<Arc<Plugin>>> {
        let mut shelves = self.lock();
        shelves.uses += 1;
        let uses = shelves.uses;
        let shelf = shelves.by_digest.entry(digest).or_default();
        shelf.last_used = uses;
        Arc::clone(&shelf.plugin)
    }

    /// Drops the plugins that were not used for the longest time, and places
    /// that stayed empty. What runs at the moment runs on.
    pub(crate) fn tidy(&self) {
        let mut shelves = self.lock();
        // An empty place that only the map holds is one whose load failed.
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
    /// A plugin that is ready to run: from memory, else from the code cache on
    /// disk, else compiled from the bytes that `fetch` brings. `fetch` is not
    /// called if it is not needed.
    ///
    /// # Errors
    /// If `fetch` fails, if it brings other bytes than those of `digest`, or if
    /// they are no plugin that this host runs.
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
