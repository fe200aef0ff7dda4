//! Grants: the capabilities of a plugin beyond its inputs and its run's store. A plugin has
//! none unless an operator granted them. This module defines the contents of a grant, the
//! requests that it allows, and the capabilities that a plugin asks for and lacks.
//!
//! Not here: whether one rule allows a request (`rule`), who may grant, where grants are kept, and
//! the connections themselves. Nor the addresses to which a host name resolves; they are checked
//! where the connection is made.

mod host;
mod lookalike;
mod path;
mod rule;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

pub use host::{BadHost, HttpHost, split_port};
pub use path::{BadPath, MAX_PATH_BYTES, check_path};
pub use rule::{BadRule, HostPattern, HttpRequest, HttpRule, Scheme};

use crate::ids::Name;

/// The maximum number of HTTP rules in one grant.
pub const MAX_HTTP_RULES: usize = 100;

/// The maximum number of configuration values in one grant.
pub const MAX_CONFIG_KEYS: usize = 100;

/// The maximum number of secrets in one grant.
pub const MAX_SECRETS: usize = 100;

/// The longest key of a configuration value, in bytes.
pub const MAX_CONFIG_KEY_BYTES: usize = 256;

/// The longest configuration value, in bytes.
pub const MAX_CONFIG_VALUE_BYTES: usize = 64 * 1024;

/// A capability that a plugin has only by grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    /// HTTP requests that the rules allow.
    Http,
    /// Configuration values that the operator set.
    Config,
    /// Secrets of the graph, by name.
    Secrets,
}

impl Capability {
    /// Returns the capability that an import needs, if any. `wasi:http/types`
    /// alone is data without a way out, so it needs none.
    pub fn of_import(import: &str) -> Option<Capability> {
        let interface = import.split_once('@').map_or(import, |(interface, _)| interface);
        match interface {
            "wasi:http/types" => None,
            "exosphere:node/secrets" => Some(Capability::Secrets),
            _ if interface.starts_with("wasi:http/") => Some(Capability::Http),
            _ if interface.starts_with("wasi:config/") => Some(Capability::Config),
            _ => None,
        }
    }

    /// Returns the capability's name in the API, the CLI and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Capability::Http => "http",
            Capability::Config => "config",
            Capability::Secrets => "secrets",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The grants of one plugin in one namespace. [`Grants::default`] grants
/// nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Grants {
    /// The HTTP rules; a request is allowed if any of them allows it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub http: Vec<HttpRule>,
    /// True if the host adds `Idempotency-Key` to the plugin's requests: the
    /// idempotency key of the work and the number of the request in the
    /// attempt. Grants no access.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub idempotency_header: bool,
    /// The configuration values that the plugin can read.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,
    /// The secrets that the plugin's nodes may declare.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub secrets: BTreeSet<Name>,
}

impl crate::json::Typed for Grants {}

impl Grants {
    /// Returns whether nothing is granted.
    pub fn is_empty(&self) -> bool {
        self.http.is_empty() && self.config.is_empty() && self.secrets.is_empty()
    }

    /// Returns whether any part of a capability is granted.
    pub fn has(&self, capability: Capability) -> bool {
        match capability {
            Capability::Http => !self.http.is_empty(),
            Capability::Config => !self.config.is_empty(),
            Capability::Secrets => !self.secrets.is_empty(),
        }
    }

    /// Checks the grant against the host's size limits.
    ///
    /// # Errors
    /// All exceeded limits, one sentence each.
    pub fn check(&self) -> Result<(), Vec<String>> {
        let mut invalid = Vec::new();
        let mut count = |items: &str, has: usize, max: usize| {
            if has > max {
                invalid.push(format!("a grant has at most {max} {items}, not {has}"));
            }
        };
        count("rules for HTTP", self.http.len(), MAX_HTTP_RULES);
        count("configuration values", self.config.len(), MAX_CONFIG_KEYS);
        count("secrets", self.secrets.len(), MAX_SECRETS);
        invalid.extend(self.config.iter().filter_map(|(key, value)| check_config(key, value)));
        if invalid.is_empty() { Ok(()) } else { Err(invalid) }
    }

    /// Returns whether any rule allows a request.
    pub fn allows_http(&self, request: &HttpRequest<'_>) -> bool {
        self.http.iter().any(|rule| rule.allows(request))
    }

    /// Returns the capabilities that a plugin asks for and lacks: by its
    /// imports, and by the secrets that the given nodes declare. Importing the
    /// secrets interface without declaring a secret asks for nothing.
    pub fn missing(&self, imports: &[String], secrets: &[Name]) -> Vec<Missing> {
        let is_missing_import = |import: &String| {
            let capability = Capability::of_import(import)?;
            let is_missing = capability != Capability::Secrets && !self.has(capability);
            is_missing.then(|| Missing::Import { import: import.clone(), capability })
        };
        let requested: BTreeSet<&Name> = secrets.iter().collect();
        let withheld = requested.into_iter().filter(|name| !self.secrets.contains(*name));
        imports
            .iter()
            .filter_map(is_missing_import)
            .chain(withheld.cloned().map(Missing::Secret))
            .collect()
    }
}

/// Returns the reason why a configuration value is not valid, if it is not.
fn check_config(key: &str, value: &str) -> Option<String> {
    if key.is_empty() || key.len() > MAX_CONFIG_KEY_BYTES || key.chars().any(char::is_control) {
        let shown: String = key.chars().take(64).collect();
        return Some(format!(
            "a configuration key has 1 to {MAX_CONFIG_KEY_BYTES} bytes and no control characters, unlike {shown:?}"
        ));
    }
    (value.len() > MAX_CONFIG_VALUE_BYTES).then(|| {
        format!(
            "a configuration value has at most {MAX_CONFIG_VALUE_BYTES} bytes; {key:?} has {}",
            value.len()
        )
    })
}

/// A capability that a plugin asks for and that is not granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// The plugin imports an interface that needs a grant.
    Import {
        /// The interface, with its version.
        import: String,
        /// The capability to grant.
        capability: Capability,
    },
    /// A node declares a secret that is not granted to the plugin.
    Secret(Name),
}

impl Missing {
    /// Returns the capability to grant.
    pub fn capability(&self) -> Capability {
        match self {
            Missing::Import { capability, .. } => *capability,
            Missing::Secret(_) => Capability::Secrets,
        }
    }

    /// Returns the command with which an operator grants it to a plugin of a
    /// namespace.
    pub fn remedy(&self, namespace: &Name, plugin: &Name) -> String {
        let flag = match self {
            Missing::Import { capability: Capability::Http, .. } => {
                "--http \"GET https://host/\"".to_owned()
            }
            Missing::Import { .. } => "--config KEY=VALUE".to_owned(),
            Missing::Secret(name) => format!("--secret {name}"),
        };
        format!("exosphere grant add {plugin} {flag} --namespace {namespace}")
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::Import { import, capability } => {
                write!(f, "it imports `{import}`, for which it has no grant of `{capability}`")
            }
            Missing::Secret(name) => {
                write!(f, "it declares the secret `{name}`, which is not granted to it")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn grants(json: &str) -> Grants {
        crate::json::from_text(json).unwrap()
    }

    #[test]
    fn each_import_needs_its_capability() {
        for (import, needs) in [
            ("wasi:http/outgoing-handler@0.2.0", Some(Capability::Http)),
            ("wasi:http/client@0.3.0", Some(Capability::Http)),
            ("wasi:http/types@0.2.6", None),
            ("wasi:config/store@0.2.0-rc.1", Some(Capability::Config)),
            ("wasi:config/runtime", Some(Capability::Config)),
            ("exosphere:node/secrets@0.1.0", Some(Capability::Secrets)),
            ("exosphere:node/secrets-of-others@0.1.0", None),
            ("exosphere:node/store@0.1.0", None),
            ("wasi:sockets/tcp@0.2.0", None),
            ("wasi:httpx/outgoing-handler", None),
        ] {
            assert_eq!(Capability::of_import(import), needs, "{import}");
        }
    }

    #[test]
    fn json_round_trips_without_unknown_fields() {
        let json = concat!(
            r#"{"http":["GET https://api.example.com/v1/"],"idempotency_header":true,"#,
            r#""config":{"region":"eu"},"secrets":["token"]}"#
        );
        assert_eq!(serde_json::to_string(&grants(json)).unwrap(), json);
        assert_eq!(serde_json::to_string(&Grants::default()).unwrap(), "{}");
        assert!(grants("{}").is_empty() && grants(r#"{"idempotency_header":true}"#).is_empty());
        for invalid in [r#"{"htp":[]}"#, r#"{"http":["example.com"]}"#, r#"{"secrets":["a b"]}"#] {
            assert!(crate::json::from_text::<Grants>(invalid).is_err(), "{invalid}");
        }
    }

    #[test]
    fn a_missing_capability_names_its_grant_command() {
        let imports = [
            "wasi:http/types@0.2.0",
            "wasi:http/outgoing-handler@0.2.0",
            "wasi:config/store@0.2.0-rc.1",
            "exosphere:node/secrets@0.1.0",
        ]
        .map(str::to_owned);
        let names = |names: &[&str]| names.iter().map(|n| n.parse().unwrap()).collect::<Vec<_>>();
        let missing = Grants::default().missing(&imports, &names(&["token", "token"]));
        let actual: Vec<_> = missing
            .iter()
            .map(|m| (m.to_string(), m.remedy(&"n".parse().unwrap(), &"p".parse().unwrap())))
            .collect();
        let expected = [
            (
                "it imports `wasi:http/outgoing-handler@0.2.0`, for which it has no grant of `http`",
                "exosphere grant add p --http \"GET https://host/\" --namespace n",
            ),
            (
                "it imports `wasi:config/store@0.2.0-rc.1`, for which it has no grant of `config`",
                "exosphere grant add p --config KEY=VALUE --namespace n",
            ),
            (
                "it declares the secret `token`, which is not granted to it",
                "exosphere grant add p --secret token --namespace n",
            ),
        ];
        assert_eq!(actual, expected.map(|(missing, command)| (missing.into(), command.into())));
        let granted = grants(
            r#"{"http":["https://a.example/"],"config":{"k":"v"},"secrets":["token","other"]}"#,
        );
        assert_eq!(granted.missing(&imports, &names(&["token"])), []);
        assert_eq!(
            granted.missing(&[], &names(&["tokens"])),
            [Missing::Secret("tokens".parse().unwrap())]
        );
    }

    #[test]
    fn a_grant_is_bounded() {
        assert_eq!(Grants::default().check(), Ok(()));
        let rule: HttpRule = "https://a.example/".parse().unwrap();
        let value = "x".repeat(MAX_CONFIG_VALUE_BYTES + 1);
        let mut grants = Grants {
            http: vec![rule; MAX_HTTP_RULES + 1],
            config: [("big".into(), value), (String::new(), String::new())].into(),
            ..Grants::default()
        };
        let invalid = grants.check().unwrap_err();
        assert_eq!(invalid.len(), 3, "{invalid:?}");
        assert!(invalid[0].contains("at most 100 rules for HTTP, not 101"), "{invalid:?}");
        grants.http.truncate(MAX_HTTP_RULES);
        grants.config = (0..MAX_CONFIG_KEYS).map(|n| (n.to_string(), "v".into())).collect();
        assert_eq!(grants.check(), Ok(()));
    }
}
