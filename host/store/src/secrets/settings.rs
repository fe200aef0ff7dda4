//! Secrets that are set one at a time, beside the graphs that use them.
//!
//! Not here: secrets of a template (`catalog`), which are set with its revision.

use std::sync::Arc;

use exosphere_domain::graph::MAX_SECRETS;
use exosphere_domain::ids::{Millis, Name};
use zeroize::Zeroizing;

use super::key_check;
use super::keyring::Keyring;
use super::secret_cipher::SecretScope;
use crate::audit::{self, AuditEntry};
use crate::codec::{read_text, to_name};
use crate::dialect::{Row, Tx, params};
use crate::error::StoreError;
use crate::{Store, in_transaction, sql};

/// The maximum number of keys under which a secret is encrypted before it is refused.
const MAX_KEYS_TRIED: usize = 3;

/// The name of a secret, and of the graph that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretName {
    /// The graph.
    pub graph: Name,
    /// The secret.
    pub name: Name,
}

/// The result of setting a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretSetting {
    /// The secret was set.
    Set,
    /// The graph has as many secrets as it may have.
    TooMany,
    /// The key of this host is retired.
    RetiredKey,
}

/// An encrypted secret, and the keyring whose current key encrypted it.
#[derive(Clone)]
struct NewSecret {
    namespace: Name,
    graph: Name,
    name: Name,
    encrypted: Vec<u8>,
    keys: Arc<Keyring>,
    audit: Option<AuditEntry>,
}

impl Store {
    /// Sets a secret of a graph, whether the graph exists or not.
    pub async fn set_secret(
        &self,
        namespace: &Name,
        SecretName { graph, name }: &SecretName,
        value: Zeroizing<String>,
        now: Millis,
    ) -> Result<SecretSetting, StoreError> {
        let mut keys = self.cipher.keys();
        let audit = self.audit_entry("secret set", Some(namespace), format!("{graph}/{name}"));
        for tried in 1.. {
            let encrypted = SecretScope { namespace, graph, name }.encrypt(&keys, &value);
            let encrypted = encrypted.map_err(|error| StoreError::Data(error.to_string()))?;
            let new = NewSecret {
                namespace: namespace.clone(),
                graph: graph.clone(),
                name: name.clone(),
                encrypted,
                keys: keys.clone(),
                audit: audit.clone(),
            };
            let set = in_transaction!(self, now, |tx| set(tx, &new))?;
            if set != SecretSetting::RetiredKey || tried == MAX_KEYS_TRIED {
                return Ok(set);
            }
            // A rotation has retired the key, so the source of keys is read again.
            keys = self.cipher.reload().await;
        }
        Ok(SecretSetting::RetiredKey)
    }

    /// Removes a secret of a graph. Returns whether there was one.
    pub async fn remove_secret(
        &self,
        namespace: &Name,
        secret: &SecretName,
        now: Millis,
    ) -> Result<bool, StoreError> {
        let (namespace, secret) = (namespace.clone(), secret.clone());
        let object = format!("{}/{}", secret.graph, secret.name);
        let audit = self.audit_entry("secret remove", Some(&namespace), object);
        in_transaction!(self, now, |tx| remove(tx, &namespace, &secret, audit.as_ref()))
    }

    /// Lists the names of a namespace's secrets, in the order of graphs and names, after a cursor.
    pub async fn list_secrets(
        &self,
        namespace: &Name,
        after: Option<&SecretName>,
        limit: u32,
    ) -> Result<Vec<SecretName>, StoreError> {
        let graph = after.map_or("", |after| after.graph.as_str());
        let name = after.map_or("", |after| after.name.as_str());
        let read = |row: &dyn Row| {
            Ok(SecretName {
                graph: to_name(row.text(0)?, "secret", "graph")?,
                name: to_name(row.text(1)?, "secret", "name")?,
            })
        };
        let params = params![namespace.as_str(), graph, name, limit];
        self.reader.rows(sql::SECRET_LIST, &params, read).await
    }
}

async fn set(tx: &mut impl Tx, new: &NewSecret) -> Result<SecretSetting, StoreError> {
    let (namespace, graph) = (new.namespace.as_str(), new.graph.as_str());
    let name = new.name.as_str();
    if !key_check::lock_current_key(tx, &new.keys).await? {
        return Ok(SecretSetting::RetiredKey);
    }
    let known = tx.query(sql::SECRET_NAMES, &params![namespace, graph], read_text).await?;
    if known.len() >= MAX_SECRETS && !known.iter().any(|known| known == name) {
        return Ok(SecretSetting::TooMany);
    }
    tx.execute(sql::NEW_NAMESPACE, &params![namespace]).await?;
    let key = new.keys.current().as_str();
    let row = params![namespace, graph, name, new.encrypted.as_slice(), key];
    tx.execute(sql::SET_SECRET, &row).await?;
    audit::record(tx, new.audit.as_ref(), None, None).await?;
    Ok(SecretSetting::Set)
}

async fn remove(
    tx: &mut impl Tx,
    namespace: &Name,
    SecretName { graph, name }: &SecretName,
    audit: Option<&AuditEntry>,
) -> Result<bool, StoreError> {
    let (namespace, graph) = (namespace.as_str(), graph.as_str());
    let known = tx.query(sql::SECRET_NAMES, &params![namespace, graph], read_text).await?;
    if !known.iter().any(|known| known == name.as_str()) {
        return Ok(false);
    }
    tx.execute(sql::REMOVE_SECRET, &params![namespace, graph, name.as_str()]).await?;
    audit::record(tx, audit, None, None).await?;
    Ok(true)
}
