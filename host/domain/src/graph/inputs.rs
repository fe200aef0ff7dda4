//! Inputs against the schemas of nodes: names that are known, required ones
//! given, literal values that fit, mapped fields that exist.
//!
//! Not here: whether the node may see what it maps; see
//! [`super::visibility`].

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::fields::Place;
use super::problems::{Problems, member, quoted};
use super::raw::{RawGraph, RawNode};
use crate::ids::Name;
use crate::node::NodeDescription;
use crate::schema::Schema;
use crate::template::Placeholder;

/// The most required inputs that are looked for. A schema with more is left to
/// the check that comes before every execution.
const MAX_REQUIRED: usize = 1_000;

/// Checks the inputs of all nodes of which the description is known.
pub fn check(raw: &RawGraph, descriptions: &[Option<&NodeDescription>], problems: &mut Problems) {
    // Many places may run the same node.
    let mut checks: BTreeMap<*const NodeDescription, (Names<'_>, Values<'_>)> = BTreeMap::new();
    // Of two nodes of one identifier, which is a problem, the first is meant.
    let by_identifier = raw.nodes.iter().zip(descriptions).rev();
    let by_identifier: BTreeMap<_, _> = by_identifier
        .filter_map(|(node, description)| Some((node.identifier.as_ref()?, (*description)?)))
        .collect();
    for (node, description) in raw.nodes.iter().zip(descriptions) {
        if let Some(description) = description {
            let (names, values) = checks
                .entry(std::ptr::from_ref(*description))
                .or_insert_with(|| (Names::of(description), Values::of(description)));
            check_given(node, names, values, problems);
            check_required(node, description, problems);
        }
        check_mapped(node, &by_identifier, problems);
    }
}

fn check_given(
    node: &RawNode,
    names: &Names<'_>,
    values: &mut Values<'_>,
    problems: &mut Problems,
) {
    let path = format!("{}.inputs", node.path);
    for (name, template) in &node.inputs {
        if !names.check(name, &path, problems) {
            continue;
        }
        if let Some(value) = template.as_ref().and_then(|template| template.as_literal()) {
            values.check(name, value, &path, problems);
        }
    }
}

fn check_required(node: &RawNode, description: &NodeDescription, problems: &mut Problems) {
    for name in Place::root(&description.inputs).required().take(MAX_REQUIRED) {
        if !node.inputs.contains_key(name) {
            let message =
                format!("\"{}\" requires the input {}; give it", description.name, quoted(name));
            problems.add(format!("{}.inputs", node.path), message);
        }
    }
}

fn check_mapped(
    node: &RawNode,
    descriptions: &BTreeMap<&Name, &NodeDescription>,
    problems: &mut Problems,
) {
    for (name, template) in &node.inputs {
        let path = member(&format!("{}.inputs", node.path), name);
        // One that is repeated is one mistake.
        let placeholders: BTreeSet<_> =
            template.iter().flat_map(|template| template.placeholders()).collect();
        for placeholder in placeholders {
            let Placeholder::Output { identifier, path: fields } = placeholder else { continue };
            let Some(description) = descriptions.get(identifier) else { continue };
            if let Err(missing) = Place::root(&description.outputs).find(fields) {
                let known: Vec<_> = missing.known.iter().take(20).copied().collect();
                let hint = match known.is_empty() {
                    true => "nothing lies below that place".to_owned(),
                    false => format!("there are {}", known.join(", ")),
                };
                problems.add_unknown(
                    path.clone(),
                    format_args!(
                        "{placeholder}: the outputs of \"{}\" have no field {} there",
                        description.name,
                        quoted(&missing.field)
                    ),
                    &missing.field,
                    missing.known.iter().copied(),
                    hint,
                );
            }
        }
    }
}

/// The names of inputs that a node takes.
pub struct Names<'a> {
    node: &'a NodeDescription,
    known: Option<BTreeSet<&'a str>>,
}

impl<'a> Names<'a> {
    /// Those of a node.
    pub fn of(node: &'a NodeDescription) -> Self {
        Names { node, known: Place::root(&node.inputs).members().map(BTreeSet::from_iter) }
    }

    /// Whether the node takes an input of that name; if not, that is noted.
    pub fn check(&self, name: &str, path: &str, problems: &mut Problems) -> bool {
        let Some(known) = &self.known else { return true };
        if known.contains(name) {
            return true;
        }
        let shown: Vec<_> = known.iter().take(20).copied().collect();
        let hint = match shown.is_empty() {
            true => "it takes none".to_owned(),
            false => format!("it takes {}", shown.join(", ")),
        };
        problems.add_unknown(
            member(path, name),
            format_args!("\"{}\" has no input {}", self.node.name, quoted(name)),
            name,
            known.iter().copied(),
            hint,
        );
        false
    }
}

/// Checks values of single inputs, whatever the others are.
pub struct Values<'a> {
    node: &'a NodeDescription,
    schema: Option<Option<Schema>>,
}

impl<'a> Values<'a> {
    /// For a node. The schema is compiled when it is first needed.
    pub fn of(node: &'a NodeDescription) -> Self {
        Values { node, schema: None }
    }

    /// Checks the value of one input.
    pub fn check(&mut self, name: &str, value: &Value, path: &str, problems: &mut Problems) {
        // What does not compile was refused at the upload.
        let compile = || Schema::compile(&each_alone(&self.node.inputs)).ok();
        let Some(schema) = self.schema.get_or_insert_with(compile) else { return };
        let alone = Value::Object(Map::from_iter([(name.to_owned(), value.clone())]));
        if let Err(message) = schema.check(&alone) {
            problems.add(
                member(path, name),
                format!("this does not fit the input's schema: {message}"),
            );
        }
    }
}

/// A schema of what the members are, without anything on which of them there
/// have to be or how they depend on each other.
fn each_alone(schema: &Value) -> Value {
    let mut alone = Map::new();
    let members = ["properties", "patternProperties", "additionalProperties"];
    for key in members {
        if let Some(found) = Place::root(schema).keyword(key) {
            alone.insert(key.to_owned(), found.clone());
        }
    }
    for key in ["$schema", "$defs", "definitions"] {
        if let Some(found) = schema.get(key) {
            alone.insert(key.to_owned(), found.clone());
        }
    }
    Value::Object(alone)
}
