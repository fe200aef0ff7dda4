//! The metadata of an execution.

/// The metadata of an execution that a guest may read. The fields are texts, since they
/// are only passed on; the caller has validated them.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// The namespace of the run.
    pub namespace: String,
    /// The name of the graph.
    pub graph: String,
    /// The id of the run.
    pub run: String,
    /// The id of the state in its public form: `{run}/{number}`.
    pub state: String,
    /// The identifier of the node in its graph.
    pub identifier: String,
    /// The name of the plugin, under which it has its grants. It is for the readers of
    /// the log; the guest does not see it.
    pub plugin: String,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// The idempotency key: equal for every attempt of the same work.
    pub idempotency_key: String,
    /// The header `traceparent` of its HTTP requests, if the host sends traces. The guest does not
    /// see it.
    pub traceparent: Option<String>,
}
