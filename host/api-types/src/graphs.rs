//! `/graphs`: apply, validate, list, show.

use exosphere_domain::json::Typed;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::json::Json;

/// The answer to an applied graph: its current revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GraphApplied {
    /// The name of the graph.
    pub name: String,
    /// The number of the revision, from 1.
    pub revision: u64,
    /// The digest of the revision.
    #[serde(default)]
    pub digest: String,
    /// Set if the revision is new; not set if the graph is unchanged.
    #[serde(default)]
    pub changed: bool,
    /// The nodes of the graph, each resolved to a plugin.
    #[serde(default)]
    pub nodes: Vec<ResolvedNode>,
}

/// A node of a revision, with the plugin to which it was resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResolvedNode {
    /// The identifier of the node in the graph.
    pub identifier: String,
    /// The name of the node in its plugin.
    pub node_name: String,
    /// The name of the plugin.
    pub plugin: String,
    /// The SHA-256 of the plugin's component: 64 hexadecimal digits.
    pub digest: String,
}

/// The answer to a valid graph. An invalid graph is answered with a problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GraphValid {
    /// Always true.
    pub valid: bool,
}

/// A page of the graphs of a namespace, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GraphList {
    /// The graphs of this page.
    pub graphs: Vec<GraphSummary>,
    /// The cursor of the next page, for `after`; null on the last page.
    #[serde(default)]
    pub next: Option<String>,
}

/// A graph at its current revision, as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GraphSummary {
    /// The name of the graph.
    pub name: String,
    /// The number of the revision, from 1.
    pub revision: u64,
    /// The time at which the revision was created, in milliseconds since 1970 (UTC).
    pub created_at: i64,
    /// The number of nodes.
    pub nodes: u64,
}

/// A graph at its current revision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GraphDetails {
    /// The name of the graph.
    pub name: String,
    /// The number of the revision, from 1.
    pub revision: u64,
    /// The digest of the revision.
    pub digest: String,
    /// The time at which the revision was created, in milliseconds since 1970 (UTC).
    pub created_at: i64,
    /// The graph as it is stored, with every node resolved.
    #[schema(value_type = serde_json::Value)]
    pub template: Json,
}

impl Typed for GraphApplied {}
impl Typed for GraphValid {}
impl Typed for GraphList {}
impl Typed for GraphDetails {}
