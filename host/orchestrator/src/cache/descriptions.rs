//! A cache of the descriptions of plugins' nodes, read and compiled once for each digest
//! and bounded by weight.
//!
//! Not here: the validity of a description, which is checked at admission.

use std::collections::BTreeMap;
use std::sync::Arc;

use exosphere_domain::ids::{Digest, Name};
use exosphere_domain::node::{DescribedNode, NodeDescription};
use exosphere_store::{Store, StoreError, description};

use crate::cache::Cache;
use crate::host_work::{Bounds, HostWork};

/// The largest description that is read inline, in bytes.
const MAX_INLINE_BYTES: usize = 64 * 1024;

/// The memory from which a description is heavy, in bytes.
const HEAVY_BYTES: u64 = 2 * 1024 * 1024;

/// The maximum memory of all cached descriptions, in bytes: light ones, and heavy ones, which
/// evict no light ones.
const MAX_CACHE_BYTES: (u64, u64) = (64 * 1024 * 1024, 128 * 1024 * 1024);

/// The nodes of a plugin by name.
pub(crate) struct DescribedPlugin(BTreeMap<Name, Arc<DescribedNode>>);

impl DescribedPlugin {
    fn new(nodes: Vec<NodeDescription>) -> Self {
        let node = |node: NodeDescription| (node.name.clone(), Arc::new(node.into()));
        DescribedPlugin(nodes.into_iter().map(node).collect())
    }

    pub(crate) fn get(&self, node: &Name) -> Option<&Arc<DescribedNode>> {
        self.0.get(node)
    }

    /// Estimates the bytes of memory that the nodes take.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.0.values().map(|node| node.memory_bytes()).sum()
    }
}

/// The cache of descriptions by digest.
pub(crate) struct DescriptionCache {
    light: Cache<Digest, Arc<DescribedPlugin>>,
    heavy: Cache<Digest, Arc<DescribedPlugin>>,
}

impl Default for DescriptionCache {
    fn default() -> Self {
        let (light, heavy) = MAX_CACHE_BYTES;
        DescriptionCache { light: Cache::new(light), heavy: Cache::new(heavy) }
    }
}

impl DescriptionCache {
    fn cached(&self, digest: &Digest) -> Option<Arc<DescribedPlugin>> {
        self.light.get(digest).or_else(|| self.heavy.get(digest))
    }

    fn insert(&self, digest: Digest, described: &Arc<DescribedPlugin>) {
        let bytes = described.memory_bytes();
        let cache = if bytes > HEAVY_BYTES { &self.heavy } else { &self.light };
        cache.insert(digest, described.clone(), bytes);
    }

    /// Returns the nodes of a plugin. If they are not cached they are read, large ones in
    /// a turn of the namespace.
    pub(crate) async fn get(
        &self,
        (store, work): (&Store, &HostWork),
        namespace: &Name,
        digest: Digest,
    ) -> Result<Arc<DescribedPlugin>, StoreError> {
        if let Some(described) = self.cached(&digest) {
            return Ok(described);
        }
        let missing = || StoreError::Data(format!("the description of plugin {digest} is missing"));
        let text = store.description(digest).await?.ok_or_else(missing)?;
        let described = if text.len() <= MAX_INLINE_BYTES {
            DescribedPlugin::new(description(&text, digest)?)
        } else {
            let turn = work.loading(namespace).await;
            if let Some(described) = self.cached(&digest) {
                return Ok(described);
            }
            let read = move |_: &_| description(&text, digest).map(DescribedPlugin::new);
            let read = work.run(turn, Bounds::steps(u64::MAX), read).await;
            read.map_err(|lost| StoreError::Data(lost.to_string()))?.value?
        };
        let described = Arc::new(described);
        self.insert(digest, &described);
        Ok(described)
    }
}
