//! Access: what a key lets its holder do. The role, the namespaces and the payload bit of a key
//! are fixed when the key is created.
//!
//! Not here: the text of a key (`api_key`), and the role that each route requires
//! (`exosphere-api`).

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::api_key::ApiKeyId;
use crate::ids::Name;
use crate::json::Typed;
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

/// The text that stands for every namespace.
const ALL_NAMESPACES: &str = "*";

impl Typed for NamespaceScope {}

impl Serialize for NamespaceScope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            NamespaceScope::All => serializer.collect_seq([ALL_NAMESPACES]),
            NamespaceScope::Only(names) => serializer.collect_seq(names),
        }
    }
}

impl<'de> Deserialize<'de> for NamespaceScope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        if names == [ALL_NAMESPACES] {
            return Ok(NamespaceScope::All);
        }
        let parse = |name: String| match name.as_str() {
            ALL_NAMESPACES => Err(de::Error::custom("\"*\" has every namespace; give it alone")),
            name => name.parse().map_err(de::Error::custom),
        };
        names.into_iter().map(parse).collect::<Result<_, _>>().map(NamespaceScope::Only)
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
    use serde_json::json;

    use super::*;
    use crate::json::from_value;

    #[test]
    fn a_scope_has_only_its_namespaces() {
        let only = NamespaceScope::Only(["a".parse().unwrap()].into());
        assert!(only.contains("a") && !only.contains("b") && !only.contains("") && !only.is_all());
        assert!(NamespaceScope::All.contains("b") && NamespaceScope::All.is_all());
    }

    #[test]
    fn a_scope_is_a_list_of_names() {
        let only = NamespaceScope::Only(["a".parse().unwrap(), "b".parse().unwrap()].into());
        let cases = [
            (json!(["*"]), Some(NamespaceScope::All)),
            (json!(["a", "b"]), Some(only)),
            (json!([]), Some(NamespaceScope::Only(BTreeSet::new()))),
            (json!(["*", "a"]), None),
            (json!(["a b"]), None),
            (json!(null), None),
            (json!("*"), None),
        ];
        for (value, expected) in cases {
            let read = from_value::<NamespaceScope>(value.clone()).ok();
            assert_eq!(read, expected, "{value}");
            if let Some(scope) = read {
                assert_eq!(serde_json::to_value(scope).unwrap(), value);
            }
        }
    }
}
