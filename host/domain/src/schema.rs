//! JSON Schemas from untrusted plugins: which values a node accepts and
//! returns.
//!
//! A schema may be hostile, and so may the value that is checked against it.
//! Compiling and checking are bounded: no reference leads out of the schema,
//! and patterns take linear time. A check that would take too many steps is
//! refused before it begins (see [`cost`]). Both take their steps from a
//! [`Budget`] beforehand. `format` is an annotation and is not checked.

mod cost;

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::budget::{Budget, Exhausted};
use crate::graph::problems::within_depth;
use cost::Cost;

/// The deepest nesting of a schema, in levels.
pub const MAX_SCHEMA_DEPTH: usize = 64;

/// The deepest nesting of a value that can be checked, in levels.
pub const MAX_VALUE_DEPTH: usize = 200;

/// The longest message of a check or a compilation, in characters.
const MAX_MESSAGE: usize = 500;

/// The longest JSON path in a message, in characters.
const MAX_SHOWN_PATH: usize = 200;

/// The longest text that a message repeats, in bytes.
const MAX_SHOWN_VALUE: usize = 64;

/// The maximum memory of one compiled pattern, in bytes. A pattern that defeats the lazy
/// automaton takes time in proportion to it.
const MAX_PATTERN_BYTES: usize = 64 * 1024;

/// The maximum number of steps of a check whose failure is explained in detail. Beyond it, the
/// explanation alone could exhaust the memory.
const MAX_EXPLAINED_STEPS: u64 = 100_000;

/// Steps of an explanation for each step of the check: errors are built, and
/// dropped again where another alternative fits.
const EXPLANATION_FACTOR: u64 = 20;

/// The maximum number of steps of a check of the smallest value, `{}`: 1 ms. Every input and
/// output of a node costs at least that.
pub const MAX_MINIMUM_STEPS: u64 = 100_000;

/// Steps to compile one part of a schema, and one pattern.
const COMPILE_STEPS: (u64, u64) = (2_000, 100_000);

/// Bytes of memory of a compiled pattern: the pattern, and its lazy automaton.
pub const COMPILED_PATTERN_BYTES: u64 = 2 * MAX_PATTERN_BYTES as u64;

/// Bytes of memory of a compiled part of a schema, and of a compiled pattern.
const COMPILED_BYTES: (u64, u64) = (1024, COMPILED_PATTERN_BYTES);

/// A compiled schema; cheap to clone.
#[derive(Clone)]
pub struct Schema(Arc<Compiled>);

struct Compiled {
    validator: jsonschema::Validator,
    cost: Cost,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Schema")
    }
}

impl Schema {
    /// Compiles a schema, and takes the steps for it from a budget.
    ///
    /// # Errors
    /// If the budget is exhausted, or the schema is not valid. The message is
    /// for people and bounded in length.
    pub fn compile(schema: &Value, budget: &dyn Budget) -> Result<Schema, Refusal> {
        if !within_depth(schema, MAX_SCHEMA_DEPTH) {
            return Err(Refusal::mismatch(format!(
                "the schema is nested more than {MAX_SCHEMA_DEPTH} levels deep"
            )));
        }
        let cost = Cost::estimate(schema).map_err(Refusal::mismatch)?;
        budget.take(per_part(&cost, COMPILE_STEPS))?;
        let mut schema = schema.clone();
        if let Value::Object(map) = &mut schema {
            // A base address could only make local references lead elsewhere.
            map.remove("$id");
        }
        let patterns = jsonschema::PatternOptions::regex()
            .size_limit(MAX_PATTERN_BYTES)
            .dfa_size_limit(MAX_PATTERN_BYTES);
        let validator = jsonschema::options()
            .offline()
            .with_pattern_options(patterns)
            .should_validate_formats(false)
            .build(&schema)
            .map_err(|error| Refusal::mismatch(format!("the schema does not compile: {error}")))?;
        Ok(Schema(Arc::new(Compiled { validator, cost })))
    }

    /// Estimates the memory of the compiled schema, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        per_part(&self.0.cost, COMPILED_BYTES)
    }

    /// Returns the reason why a schema is too expensive even for the smallest
    /// value, if it is.
    pub fn excess_cost(&self) -> Option<String> {
        (self.0.cost.minimum() > MAX_MINIMUM_STEPS).then(|| {
            format!(
                "a check of the smallest value, {{}}, would take more than {MAX_MINIMUM_STEPS} steps; \
                 let fewer of its parts apply to the same value by \"$ref\", \"allOf\", \"anyOf\" and \
                 \"oneOf\""
            )
        })
    }

    /// Checks a value against the schema, and takes the steps for it from a budget.
    ///
    /// # Errors
    /// If the budget is exhausted, or the value does not fit. The message names the JSON path
    /// of the first mismatch and is bounded in length.
    pub fn check(&self, value: &Value, budget: &dyn Budget) -> Result<(), Refusal> {
        if !within_depth(value, MAX_VALUE_DEPTH) {
            return Err(Refusal::mismatch(format!(
                "$ is nested more than {MAX_VALUE_DEPTH} levels deep"
            )));
        }
        let steps = self.0.cost.check(value, budget)?;
        budget.take(steps)?;
        if self.0.validator.is_valid(value) {
            return Ok(());
        }
        let too_large = "$ does not fit the schema (too large a value to say where)";
        if steps > MAX_EXPLAINED_STEPS || budget.take(steps * EXPLANATION_FACTOR).is_err() {
            return Err(Refusal::mismatch(too_large.to_owned()));
        }
        let explained = self.0.validator.validate(value);
        let error = explained.err().map_or_else(String::new, |error| {
            let path = json_path(value, error.instance_path().as_str());
            if is_short(error.instance()) {
                format!("{path}: {error}")
            } else {
                format!("{path}: {}", error.masked_with("this"))
            }
        });
        Err(Refusal::mismatch(error))
    }
}

/// Multiplies the parts and the patterns of a schema by their prices.
fn per_part(cost: &Cost, (part, pattern): (u64, u64)) -> u64 {
    (cost.parts() as u64).saturating_mul(part) + (cost.patterns() as u64).saturating_mul(pattern)
}

/// The refusal of a schema or of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The schema or value is wrong; the message is for people and bounded in
    /// length.
    Mismatch(String),
    /// The budget was exhausted before the check was complete.
    Exhausted,
}

impl Refusal {
    fn mismatch(message: String) -> Self {
        Refusal::Mismatch(cut(message))
    }
}

impl From<Exhausted> for Refusal {
    fn from(_: Exhausted) -> Self {
        Refusal::Exhausted
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Mismatch(message) => f.write_str(message),
            Refusal::Exhausted => f.write_str("the budget of its check is exhausted"),
        }
    }
}

/// Returns whether a value is short enough for a message.
fn is_short(value: &Value) -> bool {
    match value {
        Value::String(text) => text.len() <= MAX_SHOWN_VALUE,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => true,
    }
}

/// Converts a pointer to a place in a value into a JSON path for people.
fn json_path(value: &Value, pointer: &str) -> String {
    let mut path = "$".to_owned();
    let mut current = Some(value);
    for step in pointer.split('/').skip(1) {
        let step = step.replace("~1", "/").replace("~0", "~");
        path = match (current, step.parse()) {
            (Some(Value::Array(_)), Ok(index)) => crate::graph::problems::element(&path, index),
            _ => crate::graph::problems::member(&path, &step),
        };
        if path.len() > MAX_SHOWN_PATH {
            path.push('…');
            break;
        }
        current = current.and_then(|here| match here {
            Value::Array(list) => list.get(step.parse::<usize>().ok()?),
            Value::Object(map) => map.get(&step),
            _ => None,
        });
    }
    path
}

fn cut(mut message: String) -> String {
    if let Some((at, _)) = message.char_indices().nth(MAX_MESSAGE) {
        message.truncate(at);
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests;
