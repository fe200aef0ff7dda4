//! Secrets that callers set, list and remove one at a time. Values go in and never come out.
//!
//! Not here: which node may read a secret (grants), and the secrets of an execution
//! (`execution::secrets`).

use exosphere_domain::clock::Clock;
use exosphere_domain::graph::{MAX_SECRET_BYTES, MAX_SECRETS};
use exosphere_domain::ids::Name;
use exosphere_store::{Page, SecretName, SecretSetting};
use zeroize::Zeroizing;

use crate::Host;
use crate::error::{Error, log_internal};

impl Host {
    /// Sets a secret of a graph, which need not be applied yet. Executions that begin later see the
    /// new value.
    pub async fn set_secret(
        &self,
        namespace: &Name,
        secret: &SecretName,
        value: Zeroizing<String>,
    ) -> Result<(), Error> {
        let what = format!("the secret {} of {}", secret.name, secret.graph);
        if value.is_empty() {
            let message = "the value is empty; remove the secret with `exosphere secret remove` if no \
                           node needs it";
            return Err(Error::invalid(&what, "$.value", message));
        }
        if value.len() > MAX_SECRET_BYTES {
            let message = format!("a secret has at most {MAX_SECRET_BYTES} bytes");
            return Err(Error::invalid(&what, "$.value", message));
        }
        let inner = &self.inner;
        let now = inner.db.clock.now();
        match self.store().set_secret(namespace, secret, value, now).await? {
            SecretSetting::Set => Ok(()),
            SecretSetting::TooMany => {
                let message = format!(
                    "a graph has at most {MAX_SECRETS} secrets; remove one with `exosphere secret remove`"
                );
                Err(Error::invalid(&what, "$", message))
            }
            SecretSetting::RetiredKey => {
                let why = "this host's key is no longer in use on this database; restart it with the \
                           new one";
                Err(Error::Internal(log_internal(&why)))
            }
        }
    }

    /// Lists the names of a namespace's secrets.
    pub async fn secrets(
        &self,
        namespace: &Name,
        after: Option<&SecretName>,
        limit: u32,
    ) -> Result<Page<SecretName>, Error> {
        let items = self.inner.db.store.list_secrets(namespace, after, limit).await?;
        if items.is_empty() && after.is_none() {
            self.check_namespace(namespace).await?;
        }
        let is_full = items.len() as u64 >= u64::from(limit);
        let next = items.last().filter(|_| is_full);
        let next = next.map(|last| format!("{}/{}", last.graph, last.name));
        Ok(Page { items, next })
    }

    /// Removes a secret of a graph, unless a node of its current revision declares it.
    pub async fn remove_secret(&self, namespace: &Name, secret: &SecretName) -> Result<(), Error> {
        let inner = &self.inner;
        if let Some(identifier) = self.declaring_node(namespace, secret).await? {
            return Err(Error::Conflict(format!(
                "the node {identifier} of the graph {} declares the secret {}; apply the graph without \
                 that node first",
                secret.graph, secret.name
            )));
        }
        let now = inner.db.clock.now();
        if self.store().remove_secret(namespace, secret, now).await? {
            return Ok(());
        }
        let names = inner.db.store.secret_names(namespace, &secret.graph).await?;
        let names = names.iter().map(Name::as_str);
        let hint = super::lookup::suggestion(secret.name.as_str(), names, "exosphere secret list");
        Err(Error::NotFound { kind: "secret", name: secret.name.to_string(), hint })
    }

    /// Returns the identifier of a node that declares a secret, in the current revision of its graph.
    async fn declaring_node(
        &self,
        namespace: &Name,
        secret: &SecretName,
    ) -> Result<Option<String>, Error> {
        let inner = &self.inner;
        let Some(current) =
            inner.caches.graphs.current(&inner.db.store, namespace, &secret.graph).await?
        else {
            return Ok(None);
        };
        for (_, node) in current.graph.nodes() {
            let from = (&inner.db.store, &inner.host_work);
            let described = inner.caches.descriptions.get(from, namespace, node.digest).await?;
            let described = described.get(&node.node_name);
            if described.is_some_and(|node| node.description.secrets.contains(&secret.name)) {
                return Ok(Some(node.identifier.to_string()));
            }
        }
        Ok(None)
    }
}
