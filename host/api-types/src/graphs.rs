//! `/graphs`: apply, validate, list, show, revisions, delete.

use exosphere_domain::json::Typed;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::json::{AnyJson, Json};
use crate::pauses::Pause;

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
    /// The pause of the graph; null if it is not paused, and for an older revision.
    #[serde(default)]
    pub pause: Option<Pause>,
    /// The graph as it is stored, with every node resolved.
    #[schema(value_type = serde_json::Value)]
    pub template: Json,
}

/// The query parameters of a list of revisions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct RevisionListQuery {
    /// The cursor: `next` of the page before. The page begins before this revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<i64>,
    /// The maximum number of items of the page, from 1 to 1000 [default: 50].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
}

/// A page of the revisions of a graph, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevisionList {
    /// The revisions of this page.
    pub revisions: Vec<RevisionSummary>,
    /// The cursor of the next page, for `before`; null on the last page.
    #[serde(default)]
    pub next: Option<String>,
}

/// A revision of a graph, as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevisionSummary {
    /// The number of the revision, from 1.
    pub revision: u64,
    /// The digest of the revision. Revisions with one definition have one digest.
    pub digest: String,
    /// The time at which the revision was created, in milliseconds since 1970 (UTC).
    pub created_at: i64,
    /// Set if it is the current revision.
    #[serde(default)]
    pub current: bool,
}

/// The query parameters of a comparison of two revisions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct GraphDiffQuery {
    /// The number of the first revision.
    pub from: i64,
    /// The number of the second revision.
    pub to: i64,
}

/// The differences between two revisions of a graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GraphDiff {
    /// The name of the graph.
    pub name: String,
    /// The number of the first revision.
    pub from: u64,
    /// The number of the second revision.
    pub to: u64,
    /// The identifiers of nodes that only the second revision has.
    #[serde(default)]
    pub added: Vec<String>,
    /// The identifiers of nodes that only the first revision has.
    #[serde(default)]
    pub removed: Vec<String>,
    /// The nodes that both have and that differ.
    #[serde(default)]
    pub changed: Vec<NodeDiff>,
    /// The edges that only the second revision has.
    #[serde(default)]
    pub edges_added: Vec<Edge>,
    /// The edges that only the first revision has.
    #[serde(default)]
    pub edges_removed: Vec<Edge>,
    /// The settings of the graph itself that differ.
    #[serde(default)]
    pub settings: Vec<FieldDiff>,
}

/// A node that differs between two revisions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeDiff {
    /// The identifier of the node.
    pub identifier: String,
    /// The fields that differ.
    pub fields: Vec<FieldDiff>,
}

/// A field that differs between two revisions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FieldDiff {
    /// The name of the field, for example `digest` or `inputs.text`.
    pub field: String,
    /// The value in the first revision; absent if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub from: Option<AnyJson>,
    /// The value in the second revision; absent if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub to: Option<AnyJson>,
}

/// An edge between two nodes, by their identifiers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Edge {
    /// The node at which the edge begins.
    pub from: String,
    /// The node at which it ends.
    pub to: String,
}

/// A request to make an old revision's definition the newest revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollBack {
    /// The number of the revision whose definition is taken.
    pub revision: u64,
}

/// The query parameters of the deletion of a graph.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct GraphDeleteQuery {
    /// Deletes the ended runs of the graph, too; without it, a graph with runs is not deleted
    /// [default: false].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub with_runs: Option<bool>,
}

/// The answer to the deletion of a graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GraphDeleted {
    /// The name of the graph.
    pub name: String,
    /// The number of deleted revisions.
    pub revisions: u64,
    /// The number of ended runs that were deleted with it.
    pub runs: u64,
}

impl Typed for RevisionList {}
impl Typed for GraphDiff {}
impl Typed for RollBack {}
impl Typed for GraphDeleted {}
impl Typed for GraphApplied {}
impl Typed for GraphValid {}
impl Typed for GraphList {}
impl Typed for GraphDetails {}
impl Typed for RevisionListQuery {}
impl Typed for GraphDiffQuery {}
impl Typed for GraphDeleteQuery {}
