//! Which secrets an execution has to do with: all that its graph has. Those that
//! its node declared, and its plugin is granted, it may read; the others are kept
//! out of what it says all the same, since a node may hand on what it was given.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use exosphere_domain::grant::Grants;
use exosphere_domain::ids::{Name, NamespaceKey};
use exosphere_sandbox::{Secret, Secrets};
use exosphere_store::{RunInfo, StoreError};

use crate::Parts;
use crate::inputs::NoInputs;
use crate::plugins::NodeInfo;

/// Revisions that are remembered; all are forgotten when one more comes.
const MOST: usize = 4096;

/// A revision of a graph.
type Revision = (NamespaceKey, Name, i64);

/// Which revisions have nodes that declare secrets: the others cost no read.
#[derive(Default)]
pub(crate) struct Declared {
    known: Mutex<HashMap<Revision, bool>>,
}

impl Declared {
    /// Whether a node of a run's graph declares a secret.
    async fn any(&self, parts: &Parts, run: &RunInfo) -> Result<bool, StoreError> {
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let revision = (run.namespace_key, run.graph_name.clone(), run.revision);
        if let Some(any) = lock().get(&revision) {
            return Ok(*any);
        }
        let mut any = false;
        for (_, node) in run.graph.nodes() {
            let described = parts.descriptions.get(&parts.patient, node.digest).await?;
            let mut of_name = described.iter().filter(|found| found.name == node.node_name);
            any |= of_name.any(|found| !found.secrets.is_empty());
        }
        let mut known = lock();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(revision, any);
        Ok(any)
    }
}

/// The secrets of an execution, as they are now.
pub(crate) async fn secrets(
    parts: &Parts,
    run: &RunInfo,
    info: &NodeInfo,
    grants: &Grants,
) -> Result<Secrets, NoInputs> {
    if !parts.declared.any(parts, run).await? {
        return Ok(Secrets::default());
    }
    let mut secrets = Vec::new();
    for (name, value) in parts.patient.secrets(&run.namespace, &run.graph_name).await? {
        let is_shown = info.secrets.contains(&name) && grants.secrets.contains(&name);
        match value {
            Ok(value) => secrets.push((name.to_string(), Secret { value, is_shown })),
            Err(error) if is_shown => return Err(error.into()),
            // What cannot be opened cannot be looked for.
            Err(_) => {}
        }
    }
    Ok(secrets.into_iter().collect())
}
