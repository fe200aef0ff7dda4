//! A tenant: a client of one namespace of a host.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{Host, component, good, path_of, until};

/// A client of one namespace.
#[derive(Debug, Clone, Copy)]
pub struct Tenant<'a> {
    /// The namespace's host.
    pub host: &'a Host,
    /// The namespace's name.
    pub name: &'static str,
}

impl Tenant<'_> {
    /// Returns a path below the namespace.
    pub fn path(&self, path: &str) -> String {
        format!("//v1/namespaces/{}{path}", self.name)
    }

    /// Uploads a plugin of this project under its own name.
    pub fn push(&self, plugin: &str) -> Result<Value> {
        let path = self.path(&format!("/plugins?name={plugin}"));
        good(self.host.request("POST", &path)?.body(component(plugin)?).send()?)
    }

    /// Applies a graph in the namespace.
    pub fn apply(&self, name: &str, graph: &Value) -> Result<Value> {
        self.host.send("PUT", &self.path(&format!("/graphs/{name}")), graph)
    }

    /// Starts a run of a graph that was applied, and returns its id.
    pub fn begin(&self, name: &str) -> Result<String> {
        let path = self.path(&format!("/graphs/{name}/runs"));
        let run = self.host.send("POST", &path, &json!({}))?;
        Ok(run["run"].as_str().context("a run has an id")?.to_owned())
    }

    /// Applies a graph and starts a run of it.
    pub fn start(&self, name: &str, graph: &Value) -> Result<String> {
        self.apply(name, graph)?;
        self.begin(name)
    }

    /// Returns a run of the namespace.
    pub fn run(&self, run: &str) -> Result<Value> {
        self.host.get(&self.path(&format!("/runs/{run}?wait_ms=100")))
    }

    /// Waits for the end of a run, and returns it.
    pub fn result(&self, run: &str) -> Result<Value> {
        until("the end of a run", || self.ended_run(run))
    }

    /// Returns a run, if it has ended.
    pub fn ended_run(&self, run: &str) -> Result<Option<Value>> {
        let found = self.run(run)?;
        Ok((found["status"] != "RUNNING").then_some(found))
    }

    /// Returns all states of a run that match a filter.
    pub fn list(&self, run: &str, filter: &str) -> Result<Vec<Value>> {
        self.host.pages(&self.path(&format!("/runs/{run}/states")), filter)
    }

    /// Returns the one output of the one state at an identifier.
    pub fn output(&self, run: &str, identifier: &str) -> Result<Value> {
        let states = self.list(run, &format!("identifier={identifier}"))?;
        let state = states.first().with_context(|| format!("no state at {identifier}"))?;
        let path = format!("/runs/{run}/states/{}", path_of(state)?);
        let state = self.host.get(&self.path(&path))?;
        Ok(state["outputs"][0].clone())
    }
}
