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

/// Bytes of a description up to which it is read inline.
const SMALL_BYTES: usize = 64 * 1024;

/// Bytes of memory from which a description is heavy.
const HEAVY_WEIGHT: u64 = 2 * 1024 * 1024;

/// Bytes of all cached descriptions: light ones, and heavy ones, which evict no light
/// ones.
const CACHE_WEIGHTS: (u64, u64) = (64 * 1024 * 1024, 128 * 1024 * 1024);

/// The nodes of a plugin by name.
pub(crate) struct Described(BTreeMap<Name, Arc<DescribedNode>>);

impl Described {
    fn of(nodes: Vec<NodeDescription>) -> Self {
        let node = |node: NodeDescription| (node.name.clone(), Arc::new(node.into()));
        Described(nodes.into_iter().map(node).collect())
    }

    pub(crate) fn get(&self, node: &Name) -> Option<&Arc<DescribedNode>> {
        self.0.get(node)
    }

    /// Estimates the bytes of memory that the nodes take.
    pub(crate) fn weight(&self) -> u64 {
        self.0.values().map(|node| node.weight()).sum()
    }
}

/// The cache of descriptions by digest.
pub(crate) struct Descriptions {
    light: Cache<Digest, Arc<Described>>,
    heavy: Cache<Digest, Arc<Described>>,
}

impl Default for Descriptions {
    fn default() -> Self {
        let (light, heavy) = CACHE_WEIGHTS;
        Descriptions { light: Cache::new(light), heavy: Cache::new(heavy) }
    }
}

impl Descriptions {
    fn cached(&self, digest: &Digest) -> Option<Arc<Described>> {
        self.light.get(digest).or_else(|| self.heavy.get(digest))
    }

    fn put(&self, digest: Digest, described: &Arc<Described>) {
        let weight = described.weight();
        let cache = if weight > HEAVY_WEIGHT { &self.heavy } else { &self.light };
        cache.put(digest, described.clone(), weight);
    }

    /// Returns the nodes of a plugin. If they are not cached they are read, large ones in
    /// a turn of the namespace.
    pub(crate) async fn get(
        &self,
        (store, work): (&Store, &HostWork),
        namespace: &Name,
        digest: Digest,
    ) -> Result<Arc<Described>, StoreError> {
        if let Some(described) = self.cached(&digest) {
            return Ok(described);
        }
        let missing = || StoreError::Data(format!("the description of plugin {digest} is missing"));
        let text = store.description(digest).await?.ok_or_else(missing)?;
        let described = match text.len() <= SMALL_BYTES {
            true => Described::of(description(&text, digest)?),
            false => {
                let turn = work.loading(namespace).await;
                if let Some(described) = self.cached(&digest) {
                    return Ok(described);
                }
                let read = move |_: &_| description(&text, digest).map(Described::of);
                let read = work.run(turn, Bounds::steps(u64::MAX), read).await;
                read.map_err(|lost| StoreError::Data(lost.to_string()))?.value?
            }
        };
        let described = Arc::new(described);
        self.put(digest, &described);
        Ok(described)
    }
}
