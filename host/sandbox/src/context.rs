//! `exosphere:node/context`: what is being executed.

use crate::bindings::v0_1::exosphere::node::context as wit;
use crate::host::Host;

/// What a guest may learn about its execution. Texts, since they are only
/// handed on; the caller has made sure that they are what they say.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// The namespace that the run belongs to.
    pub namespace: String,
    /// The name of the graph.
    pub graph: String,
    /// The id of the run.
    pub run: String,
    /// The id of the state, as people see it: `{run}/{number}`.
    pub state: String,
    /// The identifier of the node in its graph.
    pub identifier: String,
    /// The name of the plugin, under which it is granted things. For people who
    /// read the log; the guest is not told.
    pub plugin: String,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// The same for every attempt of the same work.
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
