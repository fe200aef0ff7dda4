//! `exosphere:node/context`: the metadata of the execution.

use crate::bindings::v0_1::exosphere::node::context as wit;
use crate::guest::state::Host;

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
}

impl wit::Host for Host {
    fn namespace(&mut self) -> wasmtime::Result<String> {
        self.count_call()?;
        Ok(self.context.namespace.clone())
    }

    fn graph(&mut self) -> wasmtime::Result<String> {
        self.count_call()?;
        Ok(self.context.graph.clone())
    }

    fn run(&mut self) -> wasmtime::Result<String> {
        self.count_call()?;
        Ok(self.context.run.clone())
    }

    fn state(&mut self) -> wasmtime::Result<String> {
        self.count_call()?;
        Ok(self.context.state.clone())
    }

    fn identifier(&mut self) -> wasmtime::Result<String> {
        self.count_call()?;
        Ok(self.context.identifier.clone())
    }

    fn attempt(&mut self) -> wasmtime::Result<u32> {
        self.count_call()?;
        Ok(self.context.attempt)
    }

    fn idempotency_key(&mut self) -> wasmtime::Result<String> {
        self.count_call()?;
        Ok(self.context.idempotency_key.clone())
    }

    fn deadline(&mut self) -> wasmtime::Result<u64> {
        self.count_call()?;
        Ok(u64::try_from(self.deadline).unwrap_or(0))
    }
}
