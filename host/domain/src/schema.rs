//! JSON Schemas of untrusted origin: what a node accepts and returns.
//!
//! A schema may be hostile, and so may the value that it is held against.
//! Compiling and checking are bounded: no reference leads out of the schema,
//! patterns take linear time, and a check that would take too many steps is
//! refused before it begins (see [`cost`]). `format` only informs.

mod cost;

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::graph::problems::within_depth;
use cost::Cost;

/// The deepest nesting of a schema.
pub const MAX_SCHEMA_DEPTH: usize = 64;

/// The deepest nesting of a value that can be checked.
pub const MAX_VALUE_DEPTH: usize = 200;

/// The longest message of a check or a compilation, in characters.
const MAX_MESSAGE: usize = 500;

/// The longest JSON path in a message, in characters.
const MAX_SHOWN_PATH: usize = 200;

/// The longest text that a message repeats, in bytes.
const MAX_SHOWN_VALUE: usize = 64;

/// Bytes that one compiled pattern may take.
const MAX_PATTERN_BYTES: usize = 256 * 1024;

/// The most steps of a check whose failure is explained in detail; beyond it
/// the explanation alone could fill the memory.
const MAX_EXPLAINED_STEPS: u64 = 2_000_000;

/// Parts of a cheap schema: it is compiled within a millisecond.
const CHEAP_PARTS: usize = 100;

/// Steps of a cheap schema for each unit of a value. A pattern alone has more.
const CHEAP_STEPS_EACH: u64 = 99;

/// Steps of a cheap check: less than a millisecond.
const CHEAP_STEPS: u64 = 20_000;

/// A compiled schema. Cheap to clone.
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
    /// Compiles a schema.
    ///
    /// # Errors
    /// What is wrong with it, for people to read, bounded in length.
    pub fn compile(schema: &Value) -> Result<Schema, String> {
        if !within_depth(schema, MAX_SCHEMA_DEPTH) {
            return Err(format!("the schema is nested more than {MAX_SCHEMA_DEPTH} levels deep"));
        }
        let cost = Cost::of(schema).map_err(cut)?;
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
            .map_err(|error| cut(format!("the schema does not compile: {error}")))?;
        Ok(Schema(Arc::new(Compiled { validator, cost })))
    }

    /// Tells whether a value of so many bytes of JSON is checked in no time, and the
    /// schema compiled, too: it is small and has no patterns.
    pub fn is_cheap(&self, bytes: u64) -> bool {
        let each = self.0.cost.steps_each(CHEAP_PARTS).filter(|each| *each <= CHEAP_STEPS_EACH);
        each.is_some_and(|each| each.saturating_mul(bytes) <= CHEAP_STEPS)
    }

    /// Holds a value against the schema.
    ///
    /// # Errors
    /// The first thing that is wrong, naming its JSON path, bounded in length.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        if !within_depth(value, MAX_VALUE_DEPTH) {
            return Err(format!("$ is nested more than {MAX_VALUE_DEPTH} levels deep"));
        }
        let steps = self.0.cost.check(value)?;
        if self.0.validator.is_valid(value) {
            return Ok(());
        }
        if steps > MAX_EXPLAINED_STEPS {
            return Err("$ does not fit the schema (too large a value to say where)".to_owned());
        }
        let explained = self.0.validator.validate(value);
        let error = explained.err().map_or_else(String::new, |error| {
            let path = json_path(value, error.instance_path().as_str());
            match is_short(error.instance()) {
                true => format!("{path}: {error}"),
                false => format!("{path}: {}", error.masked_with("this")),
            }
        });
        Err(cut(error))
    }
}

/// Whether a value can stand in a message.
fn is_short(value: &Value) -> bool {
    match value {
        Value::String(text) => text.len() <= MAX_SHOWN_VALUE,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => true,
    }
}

/// A JSON path for people, from the pointer to a place in a value.
fn json_path(value: &Value, pointer: &str) -> String {
    let mut path = "$".to_owned();
    let mut here = Some(value);
    for step in pointer.split('/').skip(1) {
        let step = step.replace("~1", "/").replace("~0", "~");
        path = match (here, step.parse()) {
            (Some(Value::Array(_)), Ok(index)) => crate::graph::problems::element(&path, index),
            _ => crate::graph::problems::member(&path, &step),
        };
        if path.len() > MAX_SHOWN_PATH {
            path.push('…');
            break;
        }
        here = here.and_then(|here| match here {
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
