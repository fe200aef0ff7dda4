//! Node descriptions of a plugin, parsed from the JSON text that it returns.
//! The text is hostile until this module has checked it.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::budget::Budget;
use crate::graph::Problem;
use crate::graph::problems::{Object, Problems, array, element, parsed, string};
use crate::graph::schema_fields::SchemaCursor;
use crate::ids::Name;
use crate::json::{self, JsonError};
use crate::json_size;
use crate::schema::{COMPILED_PATTERN_BYTES, Refusal, Schema};

/// The longest description of a plugin, in bytes.
pub const MAX_DESCRIBE_BYTES: usize = 1024 * 1024;

/// The maximum memory of a plugin's parsed description, in bytes (see [`json_size`]).
pub const MAX_PARSED_DESCRIPTION_BYTES: u64 = 16 * 1024 * 1024;

/// The maximum memory of the compiled schemas of one node, in bytes.
pub const MAX_COMPILED_SCHEMA_BYTES: u64 = 16 * 1024 * 1024;

/// The maximum number of nodes of one plugin.
pub const MAX_NODES: usize = 100;

/// The longest description of one node, in bytes.
pub const MAX_DESCRIPTION_BYTES: usize = 4 * 1024;

/// The maximum number of secrets that one node may declare.
pub const MAX_SECRETS: usize = 100;

/// A plugin's description of one of its nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeDescription {
    /// The name by which graphs refer to the node.
    pub name: Name,
    /// A description for people. No control characters but line ends and tabs.
    pub description: String,
    /// The JSON Schema of the inputs.
    #[serde(deserialize_with = "json::verbatim")]
    pub inputs: Value,
    /// The JSON Schema of each output.
    #[serde(deserialize_with = "json::verbatim")]
    pub outputs: Value,
    /// The secrets that the node reads.
    pub secrets: Vec<Name>,
}

impl json::Typed for NodeDescription {}

/// A described node with its schemas, each compiled at its first use.
#[derive(Debug)]
pub struct DescribedNode {
    /// The plugin's description.
    pub description: NodeDescription,
    inputs: OnceLock<Schema>,
    outputs: OnceLock<Schema>,
    each_input: OnceLock<Schema>,
    memory_bytes: u64,
}

impl From<NodeDescription> for DescribedNode {
    fn from(description: NodeDescription) -> Self {
        // A compiled schema takes about as much memory as its parsed JSON, except for its
        // patterns.
        let schemas = [&description.inputs, &description.outputs].map(|schema| {
            json_size::estimate_value(schema).saturating_mul(2)
                + patterns(schema).saturating_mul(COMPILED_PATTERN_BYTES)
        });
        DescribedNode {
            memory_bytes: schemas.iter().sum::<u64>() + description.description.len() as u64,
            description,
            inputs: OnceLock::new(),
            outputs: OnceLock::new(),
            each_input: OnceLock::new(),
        }
    }
}

impl DescribedNode {
    /// Returns the compiled schema of the inputs.
    ///
    /// # Errors
    /// If the schema is not valid, which admission refuses, or the budget is
    /// exhausted.
    pub fn inputs(&self, budget: &dyn Budget) -> Result<&Schema, Refusal> {
        compiled(&self.inputs, || Schema::compile(&self.description.inputs, budget))
    }

    /// Returns the compiled schema of each output.
    ///
    /// # Errors
    /// As for the inputs.
    pub fn outputs(&self, budget: &dyn Budget) -> Result<&Schema, Refusal> {
        compiled(&self.outputs, || Schema::compile(&self.description.outputs, budget))
    }

    /// Returns the compiled schema of single inputs, without the rules on which
    /// inputs are required.
    ///
    /// # Errors
    /// As for the inputs.
    pub fn each_input(&self, budget: &dyn Budget) -> Result<&Schema, Refusal> {
        let inputs_alone = || each_alone(&self.description.inputs);
        compiled(&self.each_input, || Schema::compile(&inputs_alone(), budget))
    }

    /// Returns `true` if the schemas of inputs and outputs are compiled.
    pub fn is_compiled(&self) -> bool {
        self.inputs.get().is_some() && self.outputs.get().is_some()
    }

    /// Estimates the node's memory, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }
}

/// Counts the possible patterns in a schema.
fn patterns(schema: &Value) -> u64 {
    match schema {
        Value::Array(list) => list.iter().map(patterns).sum(),
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| match (key.as_str(), value) {
                ("pattern", Value::String(_)) => 1,
                ("patternProperties", Value::Object(named)) => named.len() as u64 + patterns(value),
                _ => patterns(value),
            })
            .sum(),
        _ => 0,
    }
}

fn compiled(
    place: &OnceLock<Schema>,
    compile: impl FnOnce() -> Result<Schema, Refusal>,
) -> Result<&Schema, Refusal> {
    if let Some(schema) = place.get() {
        return Ok(schema);
    }
    let schema = compile()?;
    Ok(place.get_or_init(|| schema))
}

/// Reduces a schema to the rules for each member, without those on which
/// members are required or how they depend on each other.
fn each_alone(schema: &Value) -> Value {
    let mut single_inputs = serde_json::Map::new();
    let members = ["properties", "patternProperties", "additionalProperties"];
    for key in members {
        if let Some(found) = SchemaCursor::root(schema).keyword(key) {
            single_inputs.insert(key.to_owned(), found.clone());
        }
    }
    for key in ["$schema", "$defs", "definitions"] {
        if let Some(found) = schema.get(key) {
            single_inputs.insert(key.to_owned(), found.clone());
        }
    }
    Value::Object(single_inputs)
}

/// Parses a plugin's answer to `describe`; compiles its schemas within a
/// budget.
///
/// # Errors
/// All problems found, at least one.
pub fn parse_description(
    text: &str,
    budget: &dyn Budget,
) -> Result<Vec<NodeDescription>, Vec<Problem>> {
    let mut problems = Problems::default();
    let nodes = read(text, budget, &mut problems);
    problems.or(nodes)
}

fn read(text: &str, budget: &dyn Budget, problems: &mut Problems) -> Option<Vec<NodeDescription>> {
    if text.len() > MAX_DESCRIBE_BYTES {
        let message =
            format!("the description has {} bytes; the limit is {MAX_DESCRIBE_BYTES}", text.len());
        problems.add("$", message);
        return None;
    }
    let bytes = json_size::estimate_text(text);
    if bytes > MAX_PARSED_DESCRIPTION_BYTES {
        let message = format!(
            "the description would take {bytes} bytes of memory once it is read; the limit is \
             {MAX_PARSED_DESCRIPTION_BYTES}; describe fewer nodes, or give them smaller schemas"
        );
        problems.add("$", message);
        return None;
    }
    let value = match json::read(text, &mut { u64::MAX }) {
        Ok(value) => value,
        Err(JsonError::Malformed(cause)) => {
            problems.add("$", format!("the description is not JSON: {cause}"));
            return None;
        }
        Err(unfit) => {
            let unfit = unfit.into_problems();
            unfit.into_iter().for_each(|problem| problems.add(problem.path, problem.message));
            return None;
        }
    };
    let object = Object::read(&value, "$", &["nodes"], problems)?;
    let list = object.require("nodes", problems, array)?;
    if list.is_empty() || list.len() > MAX_NODES {
        let message = format!("a plugin has from 1 to {MAX_NODES} nodes, and this {}", list.len());
        problems.add("$.nodes", message);
        return None;
    }
    let mut nodes: Vec<NodeDescription> = Vec::new();
    for (at, value) in list.iter().enumerate() {
        let path = element("$.nodes", at);
        let Some(node) = read_node(value, &path, budget, problems) else { continue };
        if nodes.iter().any(|other| other.name == node.name) {
            problems.add(path, format!("there are two nodes of the name \"{}\"", node.name));
        }
        nodes.push(node);
    }
    Some(nodes)
}

fn read_node(
    value: &Value,
    path: &str,
    budget: &dyn Budget,
    problems: &mut Problems,
) -> Option<NodeDescription> {
    let keys = ["name", "description", "inputs", "outputs", "secrets"];
    let object = Object::read(value, path, &keys, problems)?;
    let name = object.require("name", problems, parsed);
    let description = object.read_as("description", problems, description);
    let mut schemas = 0;
    let mut schema = |value| schema(value, budget, &mut schemas);
    let inputs = object.require("inputs", problems, &mut schema);
    let outputs = object.require("outputs", problems, &mut schema);
    let list = object.read_as("secrets", problems, array).map_or(&[][..], Vec::as_slice);
    if list.len() > MAX_SECRETS {
        problems.add(object.at("secrets"), format!("at most {MAX_SECRETS} secrets"));
    }
    let mut secrets = Vec::new();
    for (at, secret) in list.iter().enumerate().take(MAX_SECRETS) {
        match parsed::<Name>(secret) {
            Err(message) => problems.add(element(&object.at("secrets"), at), message),
            Ok(secret) if secrets.contains(&secret) => {
                problems.add(
                    element(&object.at("secrets"), at),
                    format!("\"{secret}\" is listed twice"),
                );
            }
            Ok(secret) => secrets.push(secret),
        }
    }
    let description = description.unwrap_or_default().to_owned();
    Some(NodeDescription { name: name?, description, inputs: inputs?, outputs: outputs?, secrets })
}

fn description(value: &Value) -> Result<&str, String> {
    let text = string(value)?;
    if text.len() > MAX_DESCRIPTION_BYTES {
        return Err(format!("this has {} bytes; the limit is {MAX_DESCRIPTION_BYTES}", text.len()));
    }
    if text.contains(|c: char| c.is_control() && c != '\n' && c != '\t') {
        Err("there are control characters in this; remove them".to_owned())
    } else {
        Ok(text)
    }
}

/// Parses the schema of an object, and adds its memory to that of the node's
/// schemas so far. Inputs and outputs are always objects.
fn schema(value: &Value, budget: &dyn Budget, bytes: &mut u64) -> Result<Value, String> {
    if !value.is_object() {
        return Err("this must be a JSON Schema, an object".to_owned());
    }
    let schema = Schema::compile(value, budget).map_err(|refusal| match refusal {
        Refusal::Mismatch(cause) => cause,
        Refusal::Exhausted => "the schemas of this description take too long to compile up to \
             here; describe fewer nodes, or give them smaller schemas and fewer patterns"
            .to_owned(),
    })?;
    if let Some(cause) = schema.excess_cost() {
        return Err(cause);
    }
    *bytes += schema.memory_bytes();
    if *bytes > MAX_COMPILED_SCHEMA_BYTES {
        return Err(format!(
            "the schemas of one node would take {bytes} bytes of memory; the limit is \
             {MAX_COMPILED_SCHEMA_BYTES}; use fewer patterns and parts"
        ));
    }
    let says_object = match value.get("type") {
        Some(Value::Array(kinds)) => kinds.contains(&"object".into()),
        Some(kind) => kind == "object",
        None => true,
    };
    if says_object {
        Ok(value.clone())
    } else {
        Err("this must be the schema of an object: \"type\": \"object\"".to_owned())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use serde_json::json;

    use super::*;
    use crate::budget::StepBudget;

    fn problem_lines(text: &str) -> Vec<String> {
        let problems = parse_description(text, &StepBudget::new(u64::MAX)).unwrap_err();
        problems
            .into_iter()
            .map(|problem| format!("{}: {}", problem.path, problem.message))
            .collect()
    }

    #[test]
    fn optional_parts_of_descriptions_may_be_missing() {
        let text = r#"{"nodes": [{"name": "a", "inputs": {}, "outputs": {"type": "object"}}]}"#;
        let node = &parse_description(text, &StepBudget::new(u64::MAX)).unwrap()[0];
        assert_eq!(
            (node.name.as_str(), node.description.as_str(), node.secrets.len()),
            ("a", "", 0)
        );
    }

    #[test]
    fn a_description_names_every_mistake() {
        let text = json!({"nodes": [
            {"name": "a b", "inputs": {"type": "array"}, "outputs": 3, "secret": []},
            {"name": "b", "inputs": {"$ref": "http://x"}, "outputs": {"type": 1}, "description": "\u{1b}[2J"},
            {"name": "c", "inputs": {}, "outputs": {}, "secrets": ["k", "k"]},
            {"name": "c", "inputs": {}, "outputs": {}},
        ]});
        let found = problem_lines(&text.to_string());
        let paths: Vec<_> = found.iter().map(|line| line.split_once(": ").unwrap().0).collect();
        assert_eq!(
            paths,
            [
                "$.nodes[0].secret",
                "$.nodes[0].name",
                "$.nodes[0].inputs",
                "$.nodes[0].outputs",
                "$.nodes[1].description",
                "$.nodes[1].inputs",
                "$.nodes[1].outputs",
                "$.nodes[2].secrets[1]",
                "$.nodes[3]",
            ],
            "{found:#?}"
        );
    }

    #[test]
    fn a_description_is_bounded() {
        let many = json!({"nodes": vec![json!({}); MAX_NODES + 1]}).to_string();
        let deep = "[".repeat(100_000);
        let long = " ".repeat(MAX_DESCRIBE_BYTES + 1);
        for (text, message) in [
            (many, "from 1 to 100"),
            (deep, "nested deeper than 127 levels"),
            (long, "the limit is"),
        ] {
            assert!(problem_lines(&text)[0].contains(message));
        }
        assert!(problem_lines("")[0].contains("not JSON"));
        assert_eq!(problem_lines("[]"), ["$: this is an array, and must be an object"]);
    }

    proptest! {
        #[test]
        fn parsing_descriptions_never_panics(text in "[{}\\[\\]\":,a-e0-9 ]*|\\{\"nodes\": \\[.*\\]\\}") {
            let _ = parse_description(&text, &StepBudget::new(u64::MAX));
        }
    }
}
