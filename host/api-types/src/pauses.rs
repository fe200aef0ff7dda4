//! Pauses of graphs and of namespaces, and the pause of a run.

use exosphere_domain::json::Typed;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A request to pause a graph or a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PauseRequest {
    /// Why, for people: at most 500 characters, in one line [default: empty].
    #[schema(max_length = 500)]
    pub reason: String,
}

/// A pause of a run, a graph or a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pause {
    /// The time at which it began, in milliseconds since 1970 (UTC).
    pub since: i64,
    /// The caller who asked for it; null if that is not known.
    #[serde(default)]
    pub by: Option<String>,
    /// Why; may be empty.
    #[serde(default)]
    pub reason: String,
}

/// The pause of a run: its own, or that of its graph or namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunPause {
    /// The kind of the paused object: `run`, `graph` or `namespace`.
    pub of: String,
    /// Since when, and by whom; the reason of a run's own pause is empty. Null if that is not known.
    #[serde(default)]
    pub pause: Option<Pause>,
}

/// The answer to a pause of a graph, or to the end of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GraphPause {
    /// The name of the graph.
    pub name: String,
    /// The pause; null if the graph is not paused.
    #[serde(default)]
    pub pause: Option<Pause>,
}

impl Typed for PauseRequest {}
impl Typed for GraphPause {}
