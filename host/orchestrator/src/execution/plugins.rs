//! Plugins ready to execute: compiled by the sandbox, with the description that holds the
//! schemas of their inputs and outputs.

use std::sync::Arc;

use exosphere_domain::graph::Node;
use exosphere_domain::ids::{Digest, Name};
use exosphere_domain::node::DescribedNode;
use exosphere_domain::schema::Refusal;
use exosphere_sandbox::{LoadError, Plugin};
use exosphere_store::StoreError;

use crate::Parts;
use crate::host_work::{Bounds, Meter};

/// The reason for which a plugin cannot be executed, in words for the host's log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotReady {
    /// The plugin is not valid.
    #[error("plugin {0}: {1}")]
    Broken(Digest, String),
    /// The plugin cannot be read now.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Returns a plugin, ready to be invoked, and the node with its schemas compiled.
pub(crate) async fn ready(
    parts: &Parts,
    namespace: &Name,
    node: &Node,
) -> Result<(Arc<Plugin>, Arc<DescribedNode>), NotReady> {
    let digest = node.digest;
    let broken = |why: String| NotReady::Broken(digest, why);
    let from = (&parts.patient, &parts.work);
    let described = parts.descriptions.get(from, namespace, digest).await?;
    let found = described.get(&node.node_name);
    let found = found.ok_or_else(|| broken(format!("it has no node {}", node.node_name)))?;
    compile(parts, namespace, found).await.map_err(broken)?;
    let fetch = async || {
        let missing = || StoreError::Data("its bytes are not stored".into());
        parts.patient.component(digest).await.and_then(|bytes| bytes.ok_or_else(missing))
    };
    let plugin = parts.sandbox.load(digest, fetch).await.map_err(|error| match error {
        LoadError::Fetch(error) => NotReady::Store(error),
        other => NotReady::Broken(digest, other.to_string()),
    })?;
    Ok((plugin, found.clone()))
}

/// Compiles the schemas of a node, once on each host.
async fn compile(parts: &Parts, namespace: &Name, node: &Arc<DescribedNode>) -> Result<(), String> {
    if node.is_compiled() {
        return Ok(());
    }
    let turn = parts.work.turn(namespace).await;
    let compiled = node.clone();
    let compile = move |meter: &Meter| -> Result<(), Refusal> {
        compiled.inputs(meter)?;
        compiled.outputs(meter)?;
        Ok(())
    };
    let done = parts.work.run(turn, Bounds::steps(u64::MAX), compile).await;
    done.map_err(|lost| lost.to_string())?.value.map_err(|refusal| refusal.to_string())
}
