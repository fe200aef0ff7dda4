//! The memory cache of loaded plugins. A plugin is loaded once, however many callers
//! ask for it at the same time.
//!
//! Not here: loading (`load`), and the copies on disk (`artifact_cache`).

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use exosphere_domain::ids::Digest;
use tokio::sync::OnceCell;
use wasmtime::component::InstancePre;

use crate::admission::inspect::ComponentSummary;
use crate::bindings::v0_1::PluginIndices;
use crate::guest::state::GuestState;

/// A plugin that is ready to run.
pub struct Plugin {
    digest: Digest,
    pre: InstancePre<GuestState>,
    indices: PluginIndices,
    imports: Vec<String>,
    summary: ComponentSummary,
    code_bytes: u64,
}

impl Plugin {
    pub(crate) fn new(
        digest: Digest,
        pre: InstancePre<GuestState>,
        indices: PluginIndices,
        summary: ComponentSummary,
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
            summary,
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
    pub(crate) fn summary(&self) -> &ComponentSummary {
        &self.summary
    }

    /// Returns the component, its imports linked to the host's functions.
    pub(crate) fn instance_pre(&self) -> &InstancePre<GuestState> {
        &self.pre
    }

    /// Returns the indices of the guest's functions in an instance.
    pub(crate) fn indices(&self) -> &PluginIndices {
        &self.indices
    }
}

/// Maximum bytes of compiled code that are kept in memory, besides the running plugins.
const MAX_LOADED_BYTES: u64 = 512 * 1024 * 1024;

/// A cache entry: a plugin, or an empty cell until it is loaded.
#[derive(Default)]
struct CacheEntry {
    plugin: Arc<OnceCell<Arc<Plugin>>>,
    last_used: u64,
}

/// The memory cache of loaded plugins, by digest.
#[derive(Default)]
pub(crate) struct LoadedPlugins(Mutex<CacheEntries>);

#[derive(Default)]
struct CacheEntries {
    by_digest: HashMap<Digest, CacheEntry>,
    uses: u64,
}

impl LoadedPlugins {
    fn lock(&self) -> MutexGuard<'_, CacheEntries> {
        self.0.lock()
    }

    /// Returns a plugin that is loaded.
    pub(crate) fn get(&self, digest: Digest) -> Option<Arc<Plugin>> {
        let mut entries = self.lock();
        entries.uses += 1;
        let uses = entries.uses;
        let entry = entries.by_digest.get_mut(&digest)?;
        entry.last_used = uses;
        entry.plugin.get().cloned()
    }

    /// Inserts a plugin, unless it is there.
    pub(crate) fn insert(&self, plugin: Arc<Plugin>) {
        // The cell is full if another caller has loaded the same plugin meanwhile.
        let _ = self.entry(plugin.digest()).set(plugin);
        self.evict();
    }

    /// Returns the cell of a plugin. The first caller to find it empty fills it, and
    /// the others wait at the cell.
    pub(crate) fn entry(&self, digest: Digest) -> Arc<OnceCell<Arc<Plugin>>> {
        let mut entries = self.lock();
        entries.uses += 1;
        let uses = entries.uses;
        let entry = entries.by_digest.entry(digest).or_default();
        entry.last_used = uses;
        Arc::clone(&entry.plugin)
    }

    /// Drops the least recently used plugins, and cells that stayed empty. Running
    /// executions keep their plugin.
    pub(crate) fn evict(&self) {
        let mut entries = self.lock();
        // A failed load leaves an empty cell that only the map holds.
        entries
            .by_digest
            .retain(|_, entry| entry.plugin.initialized() || Arc::strong_count(&entry.plugin) > 1);
        let loaded = |entry: &CacheEntry| entry.plugin.get().map(|plugin| plugin.code_bytes);
        let mut bytes: u64 = entries.by_digest.values().filter_map(loaded).sum();
        while bytes > MAX_LOADED_BYTES && entries.by_digest.len() > 1 {
            let oldest = entries
                .by_digest
                .iter()
                .filter_map(|(digest, entry)| Some((entry.last_used, *digest, loaded(entry)?)))
                .min();
            let Some((_, digest, freed)) = oldest else { break };
            entries.by_digest.remove(&digest);
            bytes -= freed;
        }
    }
}
