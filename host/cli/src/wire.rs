//! Answers of a host, as far as the tables for people need them.
//!
//! Parsing is lenient: a newer host may send more members, an older one fewer. The
//! output of `--json` never passes through these types.

use std::collections::BTreeMap;
use std::fmt;

use exosphere_domain::grant::Grants;
use exosphere_domain::json::{Typed, maybe_verbatim, verbatim, verbatim_list};
use exosphere_domain::limits::LimitValues;
use serde::Deserialize;
use serde_json::Value;

/// Marks types as whole answers. Their members that hold untrusted values are read
/// verbatim.
macro_rules! answers {
    ($($type:ty),* $(,)?) => { $(impl Typed for $type {})* };
}
answers!(
    Problem,
    Plugin,
    Checked,
    Plugins,
    Applied,
    Graphs,
    Run,
    Begun,
    Redriven,
    Runs,
    States,
    State,
    Namespaces,
    Namespace,
    AllGrants,
    PluginGrants,
);

/// A problem document (RFC 9457): the host's reason for a refusal.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Problem {
    pub status: u16,
    pub title: String,
    pub detail: String,
    pub errors: Vec<Mistake>,
}

/// One of several mistakes in a request.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Mistake {
    pub path: String,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.detail.is_empty() { &self.title } else { &self.detail })?;
        for Mistake { path, message } in &self.errors {
            write!(f, "\n  {path}: {message}")?;
        }
        Ok(())
    }
}

/// `POST /plugins`, `GET /plugins/{name-or-digest}`.
#[derive(Debug, Deserialize)]
pub struct Plugin {
    pub name: String,
    #[serde(default)]
    pub version: Option<String>,
    pub digest: String,
    pub size: u64,
    pub uploaded_at: i64,
    #[serde(flatten)]
    pub parts: Parts,
}

/// Details of a plugin: nodes, imports, warnings and capabilities.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Parts {
    pub nodes: Vec<NodeKind>,
    pub imports: Vec<String>,
    /// Advice for the author; only in the answer to an upload.
    pub warnings: Vec<String>,
    /// Capabilities that need a grant; only in the answer to an upload.
    pub capabilities: Vec<Capability>,
}

/// A capability for which a plugin needs a grant.
#[derive(Debug, Deserialize)]
pub struct Capability {
    #[serde(default)]
    pub import: Option<String>,
    #[serde(default)]
    pub secret: Option<String>,
    pub needs: String,
    pub granted: bool,
    /// The command that grants it.
    #[serde(default)]
    pub grant: String,
}

/// `POST /plugins/check`.
#[derive(Debug, Deserialize)]
pub struct Checked {
    pub digest: String,
    pub size: u64,
    pub compile_ms: i64,
    #[serde(flatten)]
    pub parts: Parts,
}

/// A node of a plugin.
#[derive(Debug, Deserialize)]
pub struct NodeKind {
    pub name: String,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default, deserialize_with = "verbatim")]
    pub inputs: Value,
    #[serde(default, deserialize_with = "verbatim")]
    pub outputs: Value,
    #[serde(default)]
    pub secrets: Vec<String>,
}

/// `GET /plugins`.
#[derive(Debug, Deserialize)]
pub struct Plugins {
    pub plugins: Vec<PluginRow>,
}

/// One plugin of the list.
#[derive(Debug, Deserialize)]
pub struct PluginRow {
    pub name: String,
    #[serde(default)]
    pub version: Option<String>,
    pub digest: String,
    pub size: u64,
    pub uploaded_at: i64,
    #[serde(default)]
    pub nodes: Vec<String>,
}

/// `PUT /graphs/{name}`.
#[derive(Debug, Deserialize)]
pub struct Applied {
    pub name: String,
    pub revision: u64,
    #[serde(default)]
    pub changed: bool,
    #[serde(default)]
    pub nodes: Vec<Resolved>,
}

/// A node of a revision, with the plugin to which it was resolved.
#[derive(Debug, Deserialize)]
pub struct Resolved {
    pub identifier: String,
    pub node_name: String,
    pub plugin: String,
    pub digest: String,
}

/// `GET /graphs`.
#[derive(Debug, Deserialize)]
pub struct Graphs {
    pub graphs: Vec<GraphRow>,
}

/// One graph of the list.
#[derive(Debug, Deserialize)]
pub struct GraphRow {
    pub name: String,
    pub revision: u64,
    pub created_at: i64,
    pub nodes: u64,
}

/// The status of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    Running,
    Success,
    Failed,
    Cancelled,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Status::Running => "RUNNING",
            Status::Success => "SUCCESS",
            Status::Failed => "FAILED",
            Status::Cancelled => "CANCELLED",
        })
    }
}

/// A run.
#[derive(Debug, Deserialize)]
pub struct Run {
    pub run: String,
    pub graph: String,
    pub revision: u64,
    pub status: Status,
    /// No state of it starts while this is set.
    #[serde(default)]
    pub paused: bool,
    /// Grows with every change of the run.
    pub version: i64,
    pub created_at: i64,
    #[serde(default)]
    pub ended_at: Option<i64>,
    #[serde(default)]
    pub counts: Counts,
    #[serde(default)]
    /// The first states that failed.
    pub failures: Vec<State>,
    #[serde(default)]
    pub store: Option<BTreeMap<String, String>>,
}

impl Run {
    /// Returns the status in a word or two, for people.
    pub fn standing(&self) -> String {
        match self.paused {
            true => format!("{} (paused)", self.status),
            false => self.status.to_string(),
        }
    }
}

/// The member of `POST /graphs/{name}/runs` beside the run.
#[derive(Debug, Deserialize)]
pub struct Begun {
    /// Set if an earlier start with the same idempotency key created the run.
    #[serde(default)]
    pub started_before: bool,
}

/// `POST /runs/{uuid}/redrive`: the run, and the number of states that run again.
#[derive(Debug, Deserialize)]
pub struct Redriven {
    #[serde(flatten)]
    pub run: Run,
    #[serde(default)]
    pub retried: u64,
    #[serde(default)]
    pub late: u64,
}

/// The number of states of a run, by status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Counts {
    pub states: u64,
    pub open: u64,
    pub success: u64,
    pub pruned: u64,
    pub errored: u64,
    pub cancelled: u64,
    pub retries: u64,
    pub requeues: u64,
}

/// `GET /runs`.
#[derive(Debug, Deserialize)]
pub struct Runs {
    pub runs: Vec<Run>,
    #[serde(default)]
    pub next: Option<Token>,
}

/// `GET /runs/{uuid}/states`.
#[derive(Debug, Deserialize)]
pub struct States {
    pub states: Vec<State>,
    #[serde(default)]
    pub next: Option<Token>,
}

/// The token of the next page: text or a number, to be sent back unchanged.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Token {
    Number(u64),
    Text(String),
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Number(number) => number.fmt(f),
            Token::Text(text) => f.write_str(text),
        }
    }
}

/// A state. The members after `failure` are present only if it was asked for by its
/// number.
#[derive(Debug, Deserialize)]
pub struct State {
    pub state: String,
    pub identifier: String,
    pub node_name: String,
    pub status: String,
    #[serde(default)]
    pub attempt: u64,
    #[serde(default)]
    pub retries: u64,
    #[serde(default)]
    pub requeues: u64,
    pub created_at: i64,
    #[serde(default)]
    pub ended_at: Option<i64>,
    #[serde(default)]
    pub failure: Option<Failure>,
    #[serde(default, deserialize_with = "verbatim_list")]
    pub outputs: Vec<Value>,
    /// The data that a pruned state left for people.
    #[serde(default, deserialize_with = "maybe_verbatim")]
    pub data: Option<Value>,
    #[serde(default)]
    pub usage: Option<Usage>,
    #[serde(default)]
    pub attempts: Vec<Attempt>,
}

/// The failure of an attempt.
#[derive(Debug, Deserialize)]
pub struct Failure {
    pub kind: String,
    pub message: String,
    #[serde(default, deserialize_with = "maybe_verbatim")]
    pub details: Option<Value>,
}

/// One attempt of a state.
#[derive(Debug, Deserialize)]
pub struct Attempt {
    pub number: u64,
    #[serde(default)]
    pub ended_at: Option<i64>,
    #[serde(default)]
    pub outcome: Option<String>,
    #[serde(default)]
    pub failure: Option<Failure>,
    #[serde(default)]
    pub logs: Vec<LogLine>,
}

/// The resources that an attempt used.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Usage {
    pub cpu_us: u64,
    pub peak_memory_bytes: u64,
    pub host_calls: u64,
    pub input_bytes: u64,
    pub output_bytes: u64,
}

/// A line of an attempt's log.
#[derive(Debug, Deserialize)]
pub struct LogLine {
    pub level: String,
    pub message: String,
}

/// The namespaces of a host.
#[derive(Debug, Deserialize)]
pub struct Namespaces {
    pub namespaces: Vec<Namespace>,
}

/// A namespace with its settings.
#[derive(Debug, Deserialize)]
pub struct Namespace {
    pub name: String,
    pub limits: LimitValues,
    pub slots: Option<u32>,
    pub effective: Effective,
}

/// The effective limits and slots of a namespace, on the host that answered.
#[derive(Debug, Deserialize)]
pub struct Effective {
    /// Limits by name. A newer host may have limits that are unknown here.
    pub limits: BTreeMap<String, u64>,
    pub slots: u32,
}

/// The grants of all plugins of a namespace.
#[derive(Debug, Deserialize)]
pub struct AllGrants {
    pub grants: Vec<PluginGrants>,
}

/// The grants of one plugin name.
#[derive(Debug, Deserialize)]
pub struct PluginGrants {
    pub plugin: String,
    pub grants: Grants,
}
