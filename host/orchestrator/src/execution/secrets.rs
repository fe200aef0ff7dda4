//! The secrets of an execution: all those of its graph. The node may read those that it
//! declares and that its plugin is granted. The others are redacted from its output as well,
//! since another node may have passed them on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use exosphere_domain::grant::Grants;
use exosphere_domain::ids::{Name, NamespaceKey};
use exosphere_domain::node::NodeDescription;
use exosphere_sandbox::{SecretSet, Secrets};
use exosphere_store::{RunInfo, SecretRows, StoreError};

use crate::cache::{Cache, MAX_CACHE_ENTRIES};
use crate::error::internal;
use crate::execution::inputs::InputError;
use crate::host_work::Bounds;
use crate::inner::HostInner;

/// A cache of the revisions with nodes that declare secrets; other revisions need no read
/// of secrets.
pub(crate) struct SecretDeclarations(Cache<i64, bool>);

impl Default for SecretDeclarations {
    fn default() -> Self {
        SecretDeclarations(Cache::from_entry_count(MAX_CACHE_ENTRIES))
    }
}

impl SecretDeclarations {
    /// Returns `true` if a node of a run's graph declares a secret.
    async fn declares_any(&self, inner: &HostInner, run: &RunInfo) -> Result<bool, StoreError> {
        if let Some(any) = self.0.get(&run.revision_id) {
            return Ok(any);
        }
        let mut any = false;
        for (_, node) in run.graph.nodes() {
            let from = (&inner.db.retrying_store, &inner.host_work);
            let described =
                inner.caches.descriptions.get(from, &run.namespace, node.digest).await?;
            let found = described.get(&node.node_name);
            any |= found.is_some_and(|found| !found.description.secrets.is_empty());
        }
        self.0.insert(run.revision_id, any, 0);
        Ok(any)
    }
}

/// Maximum bytes of all cached secrets, with the matchers that find them in a text.
const MAX_CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes of a graph's secrets from which the matcher is built as host work.
const LARGE_SECRETS_BYTES: u64 = 16 * 1024;

/// Estimated bytes of a matcher for each byte of secrets.
const MATCHER_BYTES_PER_BYTE: u64 = 400;

/// A cache of decrypted secrets by graph, which executions of one graph share.
pub(crate) struct SecretSets(Cache<(NamespaceKey, Name), Arc<DecryptedSet>>);

/// Encrypted rows, and the decrypted set.
struct DecryptedSet {
    rows: SecretRows,
    set: Arc<SecretSet>,
}

impl Default for SecretSets {
    fn default() -> Self {
        SecretSets(Cache::new(MAX_CACHE_BYTES))
    }
}

impl SecretSets {
    /// Returns the cached set, if it was decrypted from the same rows.
    fn cached(&self, run: &RunInfo, rows: &SecretRows) -> Option<Arc<SecretSet>> {
        let cached = self.0.get(&(run.namespace_key, run.graph_name.clone()))?;
        (cached.rows == *rows).then(|| cached.set.clone())
    }

    /// Decrypts secrets, or returns the set of the last execution if nothing has changed
    /// since. Large sets are decrypted, and their matcher is built, in a turn of the
    /// namespace.
    async fn get(
        &self,
        (inner, run): (&HostInner, &RunInfo),
        rows: SecretRows,
        must_open: impl Fn(&Name) -> bool,
    ) -> Result<Arc<SecretSet>, InputError> {
        if let Some(set) = self.cached(run, &rows) {
            return Ok(set);
        }
        let is_large = rows.bytes() > LARGE_SECRETS_BYTES;
        let turn = if is_large { inner.host_work.turn(&run.namespace).await } else { None };
        // Another execution may have decrypted them meanwhile.
        if let Some(set) = self.cached(run, &rows).filter(|_| is_large) {
            return Ok(set);
        }
        let mut values = BTreeMap::new();
        let mut is_complete = true;
        for (name, value) in
            inner.db.retrying_store.open_secrets(&run.namespace, &run.graph_name, &rows).await
        {
            match value {
                Ok(value) => drop(values.insert(name.to_string(), value)),
                Err(error) if must_open(&name) => return Err(error.into()),
                // A secret that cannot be decrypted cannot be hidden either.
                Err(_) => is_complete = false,
            }
        }
        let set = Arc::new(SecretSet::new(values));
        let mut bytes = set.bytes() * MATCHER_BYTES_PER_BYTE;
        if is_large {
            let shared = set.clone();
            let prepare = move |_: &_| shared.prepare();
            let done = inner.host_work.run(turn, Bounds::steps(u64::MAX), prepare).await;
            bytes = set.bytes() + done.map_err(|lost| internal(&lost))?.value;
        }
        if is_complete {
            let key = (run.namespace_key, run.graph_name.clone());
            let bytes = bytes + rows.bytes();
            self.0.insert(key, Arc::new(DecryptedSet { rows, set: set.clone() }), bytes);
        }
        Ok(set)
    }
}

/// Returns the current secrets of an execution.
pub(crate) async fn read_secrets(
    inner: &HostInner,
    run: &RunInfo,
    node: &NodeDescription,
    grants: &Grants,
) -> Result<Secrets, InputError> {
    if !inner.caches.secret_declarations.declares_any(inner, run).await? {
        return Ok(Secrets::default());
    }
    let rows = inner.db.retrying_store.encrypted_secrets(&run.namespace, &run.graph_name).await?;
    if rows.is_empty() {
        return Ok(Secrets::default());
    }
    let shown: BTreeSet<&Name> =
        node.secrets.iter().filter(|name| grants.secrets.contains(*name)).collect();
    let set = inner.caches.secret_sets.get((inner, run), rows, |name| shown.contains(name)).await?;
    Ok(Secrets::new(set, shown.into_iter().map(Name::to_string).collect()))
}
