//! What a plugin says of its nodes, read from the JSON text that it returns:
//! hostile until it has been through here.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::graph::Problem;
use crate::graph::problems::{Object, Problems, array, element, parsed, string};
use crate::ids::Name;
use crate::json::{self, JsonError};
use crate::schema::Schema;

/// The longest description of a plugin, in bytes.
pub const MAX_DESCRIBE_BYTES: usize = 1024 * 1024;

/// The most nodes of one plugin.
pub const MAX_NODES: usize = 100;

/// The longest description of one node, in bytes.
pub const MAX_DESCRIPTION_BYTES: usize = 4 * 1024;

/// The most secrets that one node may declare.
pub const MAX_SECRETS: usize = 100;

/// What a plugin says of one of its nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeDescription {
    /// The name by which graphs call it.
    pub name: Name,
    /// For people to read. No control characters but line ends and tabs.
    pub description: String,
    /// The JSON Schema of its inputs.
    #[serde(deserialize_with = "json::verbatim")]
    pub inputs: Value,
    /// The JSON Schema of each of its outputs.
    #[serde(deserialize_with = "json::verbatim")]
    pub outputs: Value,
    /// The secrets that it reads.
    pub secrets: Vec<Name>,
}

impl json::Typed for NodeDescription {}

/// Reads what a plugin returned from `describe`.
///
/// # Errors
/// Every problem that was found, at least one.
pub fn parse_description(text: &str) -> Result<Vec<NodeDescription>, Vec<Problem>> {
    let mut problems = Problems::default();
    let nodes = read(text, &mut problems);
    problems.or(nodes)
}

fn read(text: &str, problems: &mut Problems) -> Option<Vec<NodeDescription>> {
    if text.len() > MAX_DESCRIBE_BYTES {
        let message =
            format!("the description has {} bytes; the limit is {MAX_DESCRIBE_BYTES}", text.len());
        problems.add("$", message);
        return None;
    }
    let value = match json::read(text, &mut { u64::MAX }) {
        Ok(value) => value,
        Err(JsonError::Malformed(why)) => {
            problems.add("$", format!("the description is not JSON: {why}"));
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
        let Some(node) = read_node(value, &path, problems) else { continue };
        if nodes.iter().any(|other| other.name == node.name) {
            problems.add(path, format!("there are two nodes of the name \"{}\"", node.name));
        }
        nodes.push(node);
    }
    Some(nodes)
}

fn read_node(value: &Value, path: &str, problems: &mut Problems) -> Option<NodeDescription> {
    let keys = ["name", "description", "inputs", "outputs", "secrets"];
    let object = Object::read(value, path, &keys, problems)?;
    let name = object.require("name", problems, parsed);
    let description = object.read_as("description", problems, description);
    let inputs = object.require("inputs", problems, schema);
    let outputs = object.require("outputs", problems, schema);
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
    match text.contains(|c: char| c.is_control() && c != '\n' && c != '\t') {
        true => Err("there are control characters in this; remove them".to_owned()),
        false => Ok(text),
    }
}

/// Reads the schema of an object. Inputs and outputs are objects always.
fn schema(value: &Value) -> Result<Value, String> {
    if !value.is_object() {
        return Err("this must be a JSON Schema, an object".to_owned());
    }
    Schema::compile(value)?;
    let says_object = match value.get("type") {
        Some(Value::Array(kinds)) => kinds.contains(&"object".into()),
        Some(kind) => kind == "object",
        None => true,
    };
    match says_object {
        true => Ok(value.clone()),
        false => Err("this must be the schema of an object: \"type\": \"object\"".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use serde_json::json;

    use super::*;

    fn told(text: &str) -> Vec<String> {
        let problems = parse_description(text).unwrap_err();
        problems
            .into_iter()
            .map(|problem| format!("{}: {}", problem.path, problem.message))
            .collect()
    }

    #[test]
    fn reads_what_may_be_missing() {
        let text = r#"{"nodes": [{"name": "a", "inputs": {}, "outputs": {"type": "object"}}]}"#;
        let node = &parse_description(text).unwrap()[0];
        assert_eq!(
            (node.name.as_str(), node.description.as_str(), node.secrets.len()),
            ("a", "", 0)
        );
    }

    #[test]
    fn tells_every_mistake() {
        let text = json!({"nodes": [
            {"name": "a b", "inputs": {"type": "array"}, "outputs": 3, "secret": []},
            {"name": "b", "inputs": {"$ref": "http://x"}, "outputs": {"type": 1}, "description": "\u{1b}[2J"},
            {"name": "c", "inputs": {}, "outputs": {}, "secrets": ["k", "k"]},
            {"name": "c", "inputs": {}, "outputs": {}},
        ]});
        let told = told(&text.to_string());
        let paths: Vec<_> = told.iter().map(|line| line.split_once(": ").unwrap().0).collect();
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
            "{told:#?}"
        );
    }

    #[test]
    fn is_bounded() {
        let many = json!({"nodes": vec![json!({}); MAX_NODES + 1]}).to_string();
        let deep = "[".repeat(100_000);
        let long = " ".repeat(MAX_DESCRIBE_BYTES + 1);
        for (text, words) in [
            (many, "from 1 to 100"),
            (deep, "nested deeper than 127 levels"),
            (long, "the limit is"),
        ] {
            assert!(told(&text)[0].contains(words));
        }
        assert!(told("")[0].contains("not JSON"));
        assert_eq!(told("[]"), ["$: this is an array, and must be an object"]);
    }

    proptest! {
        #[test]
        fn never_panics(text in "[{}\\[\\]\":,a-e0-9 ]*|\\{\"nodes\": \\[.*\\]\\}") {
            let _ = parse_description(&text);
        }
    }
}
