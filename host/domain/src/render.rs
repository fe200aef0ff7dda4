//! Rendering of a state's inputs from the outputs on its branch, and in a unite
//! from the gathers of all states below.
//!
//! Not here: fetching. All sources have been read and can no longer change.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::failure::{Failure, FailureKind};
use crate::graph::{Graph, Node};
use crate::ids::NodeIx;
use crate::json::PickedFields;
use crate::json_size;
use crate::limits::{Limit, Limits};
use crate::path::Path;
use crate::template::{Placeholder, RenderError, lookup_path};

/// The sources of a state's inputs.
#[derive(Debug, Default)]
pub struct Sources {
    /// For each node that the inputs refer to, the named fields of its output on this state's
    /// branch.
    pub singles: HashMap<NodeIx, Arc<PickedFields>>,
    /// The gathered outputs of each node that a unite gathers.
    pub gathers: HashMap<NodeIx, Vec<Gathered>>,
    /// The value of `unite.branches`.
    pub branches: Option<Value>,
    /// Store values, fixed when the state was created.
    pub store: BTreeMap<String, String>,
    /// Inputs of the start request, by name; only for the run's root.
    pub start_inputs: Option<Map<String, Value>>,
}

/// Sources with a cap on the values handed out to placeholders, in bytes of
/// text and of memory. A template may name a large value many times.
struct BoundedLookup<'a> {
    sources: &'a Sources,
    graph: &'a Graph,
    node: &'a Node,
    text: Cell<u64>,
    memory: Cell<u64>,
    exceeded: Cell<Option<Limit>>,
}

/// One entry of a gather.
#[derive(Debug, Clone, PartialEq)]
pub enum Gathered {
    /// An output, reduced to its named fields.
    Output(Arc<PickedFields>),
    /// The gap left by a failed member.
    Gap,
}

/// Renders the inputs of a state at `node`, within its limits. The sources
/// already take `read` bytes of memory.
///
/// # Errors
///
/// `invalid-input`, naming the input, if a placeholder has no value; `limit` if
/// all values together are too large.
pub fn render(
    graph: &Graph,
    node: NodeIx,
    sources: &Sources,
    read: u64,
    limits: &Limits,
) -> Result<Map<String, Value>, Failure> {
    let text = Cell::new(limits.get(Limit::InputBytes));
    let memory = Cell::new(limits.get(Limit::JsonBytes).saturating_sub(read));
    let node = graph.node(node);
    let lookup = BoundedLookup { sources, graph, node, text, memory, exceeded: Cell::new(None) };
    let mut inputs = Map::new();
    for (name, template) in &node.inputs {
        if sources.start_inputs.as_ref().is_some_and(|inputs| inputs.contains_key(name)) {
            continue;
        }
        let value = template.render(|placeholder| lookup.look_up(placeholder));
        let value = value.map_err(|error| {
            if let Some(limit) = lookup.exceeded.get() {
                return limits.reached(limit);
            }
            let message = format!("input {name:?} cannot be rendered: {error}");
            Failure::new(FailureKind::InvalidInput, message)
        })?;
        inputs.insert(name.clone(), value);
    }
    inputs.extend(sources.start_inputs.clone().into_iter().flatten());
    Ok(inputs)
}

impl BoundedLookup<'_> {
    fn look_up(&self, placeholder: &Placeholder) -> Result<Value, RenderError> {
        let missing = |reason: String| RenderError::new(placeholder, reason);
        let sources = self.sources;
        match placeholder {
            Placeholder::Store { key } => {
                let value = sources.store.get(key).cloned().map(Value::String);
                let value = value.ok_or_else(|| missing("the store had no such key".into()))?;
                self.copy(placeholder, &value)
            }
            Placeholder::Branches { path } => {
                let found =
                    sources.branches.as_ref().and_then(|branches| lookup_path(branches, path));
                let found = found.ok_or_else(|| missing("there is no such field".into()))?;
                self.copy(placeholder, found)
            }
            Placeholder::Output { identifier, path } => {
                let unknown = || missing(format!("{identifier} is not known here"));
                let node = self.graph.find(identifier.as_str()).ok_or_else(unknown)?;
                let fields = self.node.fields(node).ok_or_else(unknown)?;
                let field = |output: &PickedFields| {
                    let missing_field =
                        || missing(format!("an output of {identifier} lacks the field"));
                    self.copy(placeholder, fields.find(output, path).ok_or_else(missing_field)?)
                };
                if let Some(output) = sources.singles.get(&node) {
                    return field(output);
                }
                let entries = sources.gathers.get(&node).ok_or_else(unknown)?;
                let values = entries.iter().map(|entry| match entry {
                    Gathered::Gap => Ok(Value::Null),
                    Gathered::Output(output) => field(output),
                });
                values.collect::<Result<_, _>>().map(Value::Array)
            }
        }
    }

    /// Copies a value and charges it to the limits; fails if one is exceeded.
    fn copy(&self, placeholder: &Placeholder, value: &Value) -> Result<Value, RenderError> {
        let charge = |left: &Cell<u64>, bytes: u64, limit: Limit| {
            match left.get().checked_sub(bytes) {
                Some(rest) => left.set(rest),
                None => self.exceeded.set(Some(limit)),
            };
        };
        charge(&self.text, min_json_len(value), Limit::InputBytes);
        charge(&self.memory, json_size::estimate_value(value), Limit::JsonBytes);
        match self.exceeded.get() {
            None => Ok(value.clone()),
            Some(_) => Err(RenderError::new(placeholder, "the inputs are too large")),
        }
    }
}

/// Returns a lower bound on the bytes of a value as JSON text.
fn min_json_len(value: &Value) -> u64 {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
        Value::String(text) => 2 + text.len() as u64,
        Value::Array(list) => 1 + list.iter().map(|item| 1 + min_json_len(item)).sum::<u64>(),
        Value::Object(map) => {
            let member = |(key, item): (&String, &Value)| 4 + key.len() as u64 + min_json_len(item);
            1 + map.iter().map(member).sum::<u64>()
        }
    }
}

/// The end of a member of a unite's scope.
#[derive(Debug, Clone, PartialEq)]
pub enum Ended {
    /// The member's outputs, reduced to their named fields; empty if no
    /// template refers to them.
    Success(Vec<Arc<PickedFields>>),
    /// The member's failure.
    Failed(Failure),
}

/// A member of a unite's scope, at a node of its region.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// The member's node.
    pub node: NodeIx,
    /// The member's path in the run.
    pub path: Path,
    /// The member's end.
    pub end: Ended,
    /// Number of outputs that the member returned.
    pub outputs: u32,
}

/// Gathers the outputs of node `wanted` in path order, with a gap for each
/// member that failed there or above it. `members` are in path order.
pub fn gather(graph: &Graph, target: NodeIx, members: &[Member]) -> Vec<Gathered> {
    let mut gaps: HashMap<NodeIx, bool> = HashMap::new();
    let mut entries = Vec::new();
    for member in members {
        match &member.end {
            Ended::Success(outputs) if member.node == target => {
                entries.extend(outputs.iter().cloned().map(Gathered::Output));
            }
            Ended::Success(_) => {}
            Ended::Failed(_) => {
                let gap = *gaps.entry(member.node).or_insert_with(|| {
                    member.node == target || graph.leaves_gap(member.node, target)
                });
                if gap {
                    entries.push(Gathered::Gap);
                }
            }
        }
    }
    entries
}

/// Builds `unite.branches`: the end of each output's branch of the united execution at `above`.
/// A branch failed if a failed member in it counts in one of that execution's own unites. It
/// succeeded if one of its outputs reached the unite, or an earlier unite of the same
/// execution.
pub fn branches(
    graph: &Graph,
    unite: NodeIx,
    source_path: &Path,
    count: u32,
    members: &[Member],
) -> Value {
    let Some(unites) = &graph.node(unite).unites else { return Value::Array(Vec::new()) };
    let is_of_source = |w: &NodeIx| {
        graph.node(*w).unites.as_ref().is_some_and(|other| other.source == unites.source)
    };
    let counts_in_source = |node: NodeIx| graph.node(node).counts_in.iter().any(is_of_source);
    // Where branches fork and join, they end in the unites before this one.
    let is_joined_by = |w: &NodeIx| *w == unite || (is_of_source(w) && unites.region.contains(w));
    let reaches_unite = |node: NodeIx| graph.node(node).next.iter().any(is_joined_by);
    let reaches_directly = reaches_unite(unites.source);
    let mut status = vec![if reaches_directly { "SUCCESS" } else { "PRUNED" }; count as usize];
    let mut errors = vec![Value::Null; count as usize];
    for member in members {
        let Some(branch) = member.path.branch_below(source_path).map(|branch| branch as usize)
        else {
            continue;
        };
        if branch >= status.len() {
            continue;
        }
        match &member.end {
            Ended::Failed(failure) if counts_in_source(member.node) && errors[branch].is_null() => {
                status[branch] = "ERRORED";
                errors[branch] = json!({
                    "identifier": graph.node(member.node).identifier,
                    "kind": failure.kind,
                    "message": failure.message,
                });
            }
            Ended::Success(_)
                if status[branch] == "PRUNED"
                    && reaches_unite(member.node)
                    && member.outputs > 0 =>
            {
                status[branch] = "SUCCESS";
            }
            _ => {}
        }
    }
    let entries = status.iter().zip(errors).enumerate();
    entries
        .map(|(index, (status, error))| json!({"index": index, "status": status, "error": error}))
        .collect()
}
