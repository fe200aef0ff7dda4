//! Access: what a key lets its holder do. The role, the namespaces and the payload bit of a key
//! are fixed when the key is created.
//!
//! Not here: the text of a key (`api_key`), and the role that each route requires
//! (`exosphere-api`).

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::api_key::ApiKeyId;
use crate::ids::Name;
use crate::role::Role;

/// The namespaces that a key is valid for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NamespaceScope {
    /// Every namespace, and what belongs to none.
    #[default]
    All,
    /// These namespaces only. For the key, no others exist.
    Only(BTreeSet<Name>),
}

impl NamespaceScope {
    /// Returns whether the scope has a namespace, by its name as text.
    pub fn contains(&self, namespace: &str) -> bool {
        match self {
            NamespaceScope::All => true,
            NamespaceScope::Only(names) => names.iter().any(|name| name.as_str() == namespace),
        }
    }

    /// Returns whether the scope has every namespace.
    pub fn is_all(&self) -> bool {
        matches!(self, NamespaceScope::All)
    }
}

/// The rights of a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The role of the caller.
    pub role: Role,
    /// The namespaces that exist for the caller.
    pub namespaces: NamespaceScope,
    /// Set if the caller may see payloads: inputs, outputs, logs and entries of stores.
    pub payloads: bool,
}

impl Access {
    /// Returns the access that allows everything.
    pub fn full() -> Self {
        Access { role: Role::Admin, namespaces: NamespaceScope::All, payloads: true }
    }
}

/// The caller of a change, as the audit log names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Actor {
    /// The id of the caller's key; `None` on a host that asks for none.
    pub key: Option<ApiKeyId>,
    /// The address of the caller.
    pub address: Option<IpAddr>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_has_only_its_namespaces() {
        let only = NamespaceScope::Only(["a".parse().unwrap()].into());
        assert!(only.contains("a") && !only.contains("b") && !only.contains("") && !only.is_all());
        assert!(NamespaceScope::All.contains("b") && NamespaceScope::All.is_all());
    }
}
