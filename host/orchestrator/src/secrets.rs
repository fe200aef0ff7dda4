//! Which secrets an execution has to do with: all that its graph has. Those that
//! its node declared, and its plugin is granted, it may read; the others are kept
//! out of what it says all the same, since a node may hand on what it was given.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use exosphere_domain::grant::Grants;
use exosphere_domain::ids::{Name, NamespaceKey};
use exosphere_domain::node::NodeDescription;
use exosphere_sandbox::{SecretSet, Secrets};
use exosphere_store::{RunInfo, StoreError};
use zeroize::Zeroizing;

use crate::Parts;
use crate::cache::Cache;
use crate::error::internal;
use crate::host_work::Bounds;
use crate::inputs::NoInputs;

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
            let from = (&parts.patient, &parts.work);
            let described = parts.descriptions.get(from, &run.namespace, node.digest).await?;
            let found = described.get(&node.node_name);
            any |= found.is_some_and(|found| !found.description.secrets.is_empty());
        }
        let mut known = lock();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(revision, any);
        Ok(any)
    }
}

/// Bytes of all secrets that are kept with what finds them in a text.
const CACHE_WEIGHT: u64 = 64 * 1024 * 1024;

/// Bytes of a graph's secrets from which on what finds them is made apart.
const LARGE_BYTES: u64 = 16 * 1024;

/// Bytes that what finds secrets may take for each byte of them.
const WEIGHT_FACTOR: u64 = 400;

/// Secrets by graph: executions of one graph share them.
pub(crate) struct SecretSets(Cache<(NamespaceKey, Name), Arc<SecretSet>>);

impl Default for SecretSets {
    fn default() -> Self {
        SecretSets(Cache::new(CACHE_WEIGHT))
    }
}

impl SecretSets {
    /// Gives the set of these values, the one of the last execution if nothing has
    /// changed since. What finds large ones is made in a turn of the namespace.
    async fn get(
        &self,
        (parts, run): (&Parts, &RunInfo),
        values: BTreeMap<String, Zeroizing<String>>,
    ) -> Result<Arc<SecretSet>, NoInputs> {
        let key = (run.namespace_key, run.graph_name.clone());
        if let Some(set) = self.same(&key, &values) {
            return Ok(set);
        }
        let set = Arc::new(SecretSet::new(values));
        let bytes = set.bytes();
        if bytes <= LARGE_BYTES {
            self.0.put(key, set.clone(), bytes * WEIGHT_FACTOR);
            return Ok(set);
        }
        let turn = parts.work.turn(&run.namespace).await;
        // Another may have made it meanwhile.
        if let Some(same) = self.0.get(&key).filter(|known| known.is_same(&set)) {
            return Ok(same);
        }
        let made = set.clone();
        let prepare = move |_: &_| made.prepare();
        let done = parts.work.run(turn, Bounds::steps(u64::MAX), prepare).await;
        let weight = done.map_err(|lost| internal(&lost))?.value;
        self.0.put(key, set.clone(), bytes + weight);
        Ok(set)
    }

    fn same(
        &self,
        key: &(NamespaceKey, Name),
        values: &BTreeMap<String, Zeroizing<String>>,
    ) -> Option<Arc<SecretSet>> {
        self.0.get(key).filter(|known| known.has_values(values))
    }
}

/// Gives the secrets of an execution, as they are now.
pub(crate) async fn secrets(
    parts: &Parts,
    run: &RunInfo,
    node: &NodeDescription,
    grants: &Grants,
) -> Result<Secrets, NoInputs> {
    if !parts.declared.any(parts, run).await? {
        return Ok(Secrets::default());
    }
    let (mut values, mut shown) = (BTreeMap::new(), BTreeSet::new());
    for (name, value) in parts.patient.secrets(&run.namespace, &run.graph_name).await? {
        let is_shown = node.secrets.contains(&name) && grants.secrets.contains(&name);
        match value {
            Ok(value) => {
                if is_shown {
                    shown.insert(name.to_string());
                }
                values.insert(name.to_string(), value);
            }
            Err(error) if is_shown => return Err(error.into()),
            // What cannot be opened cannot be looked for.
            Err(_) => {}
        }
    }
    let set = parts.secret_sets.get((parts, run), values).await?;
    Ok(Secrets::new(set, shown))
}
