//! Plugins ready to execute: compiled by the sandbox, with the description that holds the
//! schemas of their inputs and outputs.

use std::sync::Arc;

use exosphere_domain::graph::Node;
use exosphere_domain::ids::{Digest, Name};
use exosphere_domain::node::DescribedNode;
use exosphere_domain::schema::Refusal;
use exosphere_sandbox::{LoadError, Plugin};
use exosphere_store::StoreError;

use crate::host_work::{Bounds, Meter};
use crate::inner::HostInner;

/// The reason why a plugin cannot be executed, for the host's log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PluginError {
    /// The plugin is not valid.
    #[error("plugin {0}: {1}")]
    Broken(Digest, String),
    /// The plugin cannot be read now.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Returns a plugin that is ready to be invoked, and the node with compiled schemas.
pub(crate) async fn load(
    inner: &HostInner,
    namespace: &Name,
    node: &Node,
) -> Result<(Arc<Plugin>, Arc<DescribedNode>), PluginError> {
    let digest = node.digest;
    let broken = |cause: String| PluginError::Broken(digest, cause);
    let from = (&inner.db.retrying_store, &inner.host_work);
    let described = inner.caches.descriptions.get(from, namespace, digest).await?;
    let found = described.get(&node.node_name);
    let found = found.ok_or_else(|| broken(format!("it has no node {}", node.node_name)))?;
    compile_schemas(inner, namespace, found).await.map_err(broken)?;
    let fetch = async || {
        let missing = || StoreError::Data("its bytes are not stored".into());
        inner.db.retrying_store.component(digest).await.and_then(|bytes| bytes.ok_or_else(missing))
    };
    let plugin = inner.sandbox.load(digest, fetch).await.map_err(|error| match error {
        LoadError::Fetch(error) => PluginError::Store(error),
        other => PluginError::Broken(digest, other.to_string()),
    })?;
    Ok((plugin, found.clone()))
}

/// Compiles the schemas of a node, once on each host.
async fn compile_schemas(
    inner: &HostInner,
    namespace: &Name,
    node: &Arc<DescribedNode>,
) -> Result<(), String> {
    if node.is_compiled() {
        return Ok(());
    }
    let turn = inner.host_work.turn(namespace).await;
    let compiled = node.clone();
    let compile = move |meter: &Meter| -> Result<(), Refusal> {
        compiled.inputs(meter)?;
        compiled.outputs(meter)?;
        Ok(())
    };
    let done = inner.host_work.run(turn, Bounds::steps(u64::MAX), compile).await;
    done.map_err(|lost| lost.to_string())?.value.map_err(|refusal| refusal.to_string())
}
