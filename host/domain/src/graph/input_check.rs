//! Checks of inputs against the schemas of nodes: names are known, required
//! inputs are set, literal values fit, mapped fields exist.
//!
//! Not here: whether the node may see the outputs that it maps; see
//! [`super::visibility`].

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::problems::{Problems, member, quoted};
use super::raw::{RawGraph, RawNode};
use super::schema_fields::SchemaCursor;
use crate::budget::Budget;
use crate::ids::Name;
use crate::node::{DescribedNode, NodeDescription};
use crate::schema::Refusal;
use crate::template::Placeholder;

/// The maximum number of required inputs that are checked here. A schema with more is left to
/// the check before every execution.
const MAX_REQUIRED: usize = 1_000;

/// Steps that the check of one input of a node takes.
const INPUT_STEPS: u64 = 100;

/// Checks the inputs of all nodes whose description is known.
pub fn check(
    raw: &RawGraph,
    described: &[Option<&DescribedNode>],
    budget: &dyn Budget,
    problems: &mut Problems,
) {
    let values = Values::within(budget);
    // Many nodes of a graph may run the same node of a plugin.
    let mut checks: BTreeMap<*const DescribedNode, InputNames<'_>> = BTreeMap::new();
    // Of two nodes with the same identifier, which is a problem, references mean the first.
    let by_identifier = raw.nodes.iter().zip(described).rev();
    let by_identifier: BTreeMap<_, _> = by_identifier
        .filter_map(|(node, known)| Some((node.identifier.as_ref()?, &(*known)?.description)))
        .collect();
    for (node, described) in raw.nodes.iter().zip(described) {
        if !values.may_take(INPUT_STEPS * (1 + node.inputs.len() as u64), &node.path, problems) {
            return;
        }
        if let Some(described) = described {
            let names = checks
                .entry(std::ptr::from_ref(*described))
                .or_insert_with(|| InputNames::new(&described.description));
            check_given(node, described, names, &values, problems);
            check_required(node, &described.description, problems);
        }
        check_mapped(node, &by_identifier, problems);
    }
}

fn check_given(
    node: &RawNode,
    described: &DescribedNode,
    names: &InputNames<'_>,
    values: &Values<'_>,
    problems: &mut Problems,
) {
    let path = format!("{}.inputs", node.path);
    for (name, template) in &node.inputs {
        if !names.check(name, &path, problems) {
            continue;
        }
        if let Some(value) = template.as_ref().and_then(|template| template.as_literal()) {
            values.check(described, (name, value), &path, problems);
        }
    }
}

fn check_required(node: &RawNode, description: &NodeDescription, problems: &mut Problems) {
    for name in SchemaCursor::root(&description.inputs).required().take(MAX_REQUIRED) {
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
        // A repeated placeholder is one mistake.
        let placeholders: BTreeSet<_> =
            template.iter().flat_map(|template| template.placeholders()).collect();
        for placeholder in placeholders {
            let Placeholder::Output { identifier, path: fields } = placeholder else { continue };
            let Some(description) = descriptions.get(identifier) else { continue };
            if let Err(missing) = SchemaCursor::root(&description.outputs).find(fields) {
                let known: Vec<_> = missing.known.iter().take(20).copied().collect();
                let hint = if known.is_empty() {
                    "nothing lies below that place".to_owned()
                } else {
                    format!("there are {}", known.join(", "))
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

/// The input names that a node accepts.
pub struct InputNames<'a> {
    node: &'a NodeDescription,
    known: Option<BTreeSet<&'a str>>,
}

impl<'a> InputNames<'a> {
    /// Returns the input names of a node.
    pub fn new(node: &'a NodeDescription) -> Self {
        InputNames {
            node,
            known: SchemaCursor::root(&node.inputs).members().map(BTreeSet::from_iter),
        }
    }

    /// Returns whether the node accepts an input of that name; if not, records
    /// a problem.
    pub fn check(&self, name: &str, path: &str, problems: &mut Problems) -> bool {
        let Some(known) = &self.known else { return true };
        if known.contains(name) {
            return true;
        }
        let shown: Vec<_> = known.iter().take(20).copied().collect();
        let hint = if shown.is_empty() {
            "it takes none".to_owned()
        } else {
            format!("it takes {}", shown.join(", "))
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

/// A checker of single input values, each independent of the others, within one
/// budget.
pub struct Values<'a> {
    budget: &'a dyn Budget,
    is_exhausted: Cell<bool>,
}

impl<'a> Values<'a> {
    /// Creates a checker with a budget.
    pub fn within(budget: &'a dyn Budget) -> Self {
        Values { budget, is_exhausted: Cell::new(false) }
    }

    /// Takes steps out of the budget; if too few are left, records that problem
    /// once.
    fn may_take(&self, steps: u64, path: &str, problems: &mut Problems) -> bool {
        let has_budget = !self.is_exhausted.get() && self.budget.take(steps).is_ok();
        if !has_budget {
            self.exhaust(path, problems);
        }
        has_budget
    }

    fn exhaust(&self, path: &str, problems: &mut Problems) {
        if !self.is_exhausted.replace(true) {
            problems.add(
                path,
                "the checks of this request have used up their budget here; give fewer literal \
                 values to nodes with expensive schemas, or simplify those schemas",
            );
        }
    }

    /// Checks the value of one input of a node.
    pub fn check(
        &self,
        node: &DescribedNode,
        (name, value): (&str, &Value),
        path: &str,
        problems: &mut Problems,
    ) {
        if self.is_exhausted.get() {
            return;
        }
        let single = || Value::Object(Map::from_iter([(name.to_owned(), value.clone())]));
        let checked =
            node.each_input(self.budget).and_then(|schema| schema.check(&single(), self.budget));
        match checked {
            Ok(()) => {}
            Err(Refusal::Mismatch(message)) => problems.add(
                member(path, name),
                format!("this does not fit the input's schema: {message}"),
            ),
            Err(Refusal::Exhausted) => self.exhaust(&member(path, name), problems),
        }
    }
}
