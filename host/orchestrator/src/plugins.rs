//! Plugins that can be executed: compiled by the sandbox, with the schemas
//! that their inputs and outputs are held to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use exosphere_domain::ids::{Digest, Name};
use exosphere_domain::node::NodeDescription;
use exosphere_domain::schema::Schema;
use exosphere_sandbox::{LoadError, Plugin, Sandbox};
use exosphere_store::{Store, StoreError};

/// Descriptions that are kept; all are forgotten when one more comes, since
/// each can be read again.
const MOST: usize = 1024;

/// Descriptions at hand, by digest. The code itself is kept by the sandbox.
#[derive(Default)]
pub(crate) struct Plugins {
    known: Mutex<HashMap<Digest, Arc<Nodes>>>,
}

/// A plugin's nodes, by name.
pub(crate) struct Nodes(HashMap<Name, NodeInfo>);

/// What an execution must know of its node.
pub(crate) struct NodeInfo {
    /// What its inputs are held to.
    pub inputs: Schema,
    /// What its outputs are held to.
    pub outputs: Schema,
    /// The secrets that it may read.
    pub secrets: Vec<Name>,
}

/// Why a plugin cannot be executed: in words for the host's log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotReady {
    /// It is not as it should be.
    #[error("plugin {0}: {1}")]
    Broken(Digest, String),
    /// It cannot be read now.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Plugins {
    /// A plugin, ready to be invoked.
    pub(crate) async fn ready(
        &self,
        store: &Store,
        sandbox: &Sandbox,
        digest: Digest,
    ) -> Result<(Arc<Plugin>, Arc<Nodes>), NotReady> {
        let nodes = self.nodes(store, digest).await?;
        let fetch = async || {
            let missing = || StoreError::Data("its bytes are not stored".into());
            store.component(digest).await.and_then(|bytes| bytes.ok_or_else(missing))
        };
        let plugin = sandbox.load(digest, fetch).await.map_err(|error| match error {
            LoadError::Fetch(error) => NotReady::Store(error),
            other => NotReady::Broken(digest, other.to_string()),
        })?;
        Ok((plugin, nodes))
    }

    /// Returns the nodes of a plugin that has been executed here.
    pub(crate) fn at_hand(&self, digest: Digest) -> Option<Arc<Nodes>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&digest).cloned()
    }

    async fn nodes(&self, store: &Store, digest: Digest) -> Result<Arc<Nodes>, NotReady> {
        let broken = |why: String| NotReady::Broken(digest, why);
        if let Some(nodes) = self.at_hand(digest) {
            return Ok(nodes);
        }
        let described = store.nodes(digest).await?;
        let described = described.ok_or_else(|| broken("it is not stored".into()))?;
        let nodes = Arc::new(Nodes::of(described).map_err(broken)?);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(digest, nodes.clone());
        Ok(nodes)
    }
}

impl Nodes {
    fn of(described: Vec<NodeDescription>) -> Result<Self, String> {
        let node = |node: NodeDescription| {
            let info = NodeInfo {
                inputs: Schema::compile(&node.inputs)?,
                outputs: Schema::compile(&node.outputs)?,
                secrets: node.secrets,
            };
            Ok((node.name, info))
        };
        described.into_iter().map(node).collect::<Result<_, _>>().map(Nodes)
    }

    pub(crate) fn get(&self, node: &Name) -> Option<&NodeInfo> {
        self.0.get(node)
    }
}
