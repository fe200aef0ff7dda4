//! `/plugins`: upload, check, list, inspect.

use exosphere_domain::ids::{Digest, Name};
use exosphere_domain::json::Typed;
use exosphere_domain::node::NodeDescription;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::json::{AnyJson, Json};
use crate::known::or_default;

/// The query parameters of an upload. Its body is the component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UploadQuery {
    /// The name of the plugin.
    #[param(inline)]
    pub name: Name,
    /// A label for people, at most 64 characters [default: empty].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
}

/// The query parameters of a check. Its body is the component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CheckQuery {
    /// The name of the plugin to check; the grants of that name apply. Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub name: Option<Name>,
}

/// A page of the plugins of a namespace, by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PluginList {
    /// The plugins of this page, each with its newest upload.
    pub plugins: Vec<PluginSummary>,
    /// The cursor of the next page, for `after`; null on the last page.
    #[serde(default)]
    pub next: Option<String>,
}

/// A plugin, as a list shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PluginSummary {
    /// The name of the plugin.
    pub name: String,
    /// The label for people; may be empty.
    #[serde(default, deserialize_with = "or_default")]
    pub version: String,
    /// The SHA-256 of the component: 64 hexadecimal digits.
    pub digest: String,
    /// The size of the component, in bytes.
    pub size: u64,
    /// The time of the latest upload, in milliseconds since 1970 (UTC).
    pub uploaded_at: i64,
    /// The names of the plugin's nodes.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub nodes: Json<Vec<String>>,
}

/// A plugin with its nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PluginDetails {
    /// The name of the plugin.
    pub name: String,
    /// The label for people; may be empty.
    #[serde(default, deserialize_with = "or_default")]
    pub version: String,
    /// The SHA-256 of the component: 64 hexadecimal digits.
    pub digest: String,
    /// The size of the component, in bytes.
    pub size: u64,
    /// The time of the latest upload, in milliseconds since 1970 (UTC); null after a check,
    /// which stores nothing.
    #[serde(default)]
    pub uploaded_at: Option<i64>,
    /// The nodes of the plugin.
    #[serde(default)]
    pub nodes: Vec<NodeDetails>,
    /// The interfaces that the component imports.
    #[serde(default)]
    pub imports: Vec<String>,
    /// The duration of the compilation, in milliseconds.
    #[serde(default)]
    pub compile_ms: u64,
}

/// A node of a plugin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeDetails {
    /// The name by which graphs refer to the node.
    pub name: String,
    /// A description for people; may be empty.
    #[serde(default)]
    pub description: String,
    /// The JSON Schema of the inputs.
    #[serde(default)]
    #[schema(value_type = serde_json::Value)]
    pub inputs: AnyJson,
    /// The JSON Schema of each output.
    #[serde(default)]
    #[schema(value_type = serde_json::Value)]
    pub outputs: AnyJson,
    /// The names of the secrets that the node declares.
    #[serde(default)]
    pub secrets: Vec<String>,
}

impl From<NodeDescription> for NodeDetails {
    fn from(node: NodeDescription) -> Self {
        let NodeDescription { name, description, inputs, outputs, secrets } = node;
        NodeDetails {
            name: name.into(),
            description,
            inputs: AnyJson(inputs),
            outputs: AnyJson(outputs),
            secrets: secrets.into_iter().map(String::from).collect(),
        }
    }
}

/// The answer to an upload, and to a check of a plugin that would be admitted: the plugin, and
/// remarks on it. The status of an upload is 201 if the plugin is new, and 200 if it existed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PluginReport {
    /// The plugin. After a check it has no version.
    #[serde(flatten)]
    pub plugin: PluginDetails,
    /// The capabilities that the plugin asks for and that need a grant.
    #[serde(default)]
    pub capabilities: Vec<Capability>,
    /// Advice for the author.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// A capability that a plugin asks for and that needs a grant, with the import or the secret
/// that asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Capability {
    /// The import that needs the grant; absent if a secret needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub import: Option<String>,
    /// The secret that needs the grant; absent if an import needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// The capability: `http`, `config` or `secrets`.
    pub needs: String,
    /// Set if the capability is granted.
    pub granted: bool,
    /// The command by which an operator grants it.
    #[serde(default)]
    pub grant: String,
}

/// The query parameters of the removal of a plugin. Without any, all its versions are removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct PluginRemoveQuery {
    /// Removes only the version with this digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub digest: Option<Digest>,
    /// Removes only the versions that no graph uses [default: false].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unused: Option<bool>,
}

/// The answer to the removal of a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PluginRemoved {
    /// The name of the plugin.
    pub name: String,
    /// The digests of the removed versions.
    pub digests: Vec<String>,
}

impl Typed for PluginRemoved {}
impl Typed for PluginList {}
impl Typed for PluginDetails {}
impl Typed for PluginReport {}
impl Typed for UploadQuery {}
impl Typed for CheckQuery {}
impl Typed for PluginRemoveQuery {}
