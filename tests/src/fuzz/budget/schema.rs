//! Random schemas, made of the most expensive parts: references that multiply, alternatives,
//! patterns, lists of unique items.

use serde_json::{Map, Value, json};

use super::Mutator;

/// Names of properties, which random values have too.
pub(super) const NAMES: [&str; 4] = ["x", "y", "z", "w"];

const PATTERNS: [&str; 8] = [
    "^(a+)+$",
    "a{1,500}b",
    "(x|y|z)*w$",
    "^[a-z0-9]{3,200}$",
    "(?i)needle.*needle.*needle",
    "\\p{L}+\\s\\p{L}+",
    "(.*a){20}",
    "[\\s\\S]*end$",
];

const TYPES: [&str; 7] = ["object", "array", "string", "number", "integer", "boolean", "null"];

/// Draws a schema for objects.
pub(super) fn random(mutator: &mut Mutator) -> Value {
    match mutator.below(8) {
        0 => return json!({"@doubling": [1 + mutator.below(12), 1 + mutator.below(5)]}),
        1 | 2 => return json!({"type": "object"}),
        _ => {}
    }
    let definitions = mutator.below(8);
    let mut properties = Map::new();
    for number in 0..definitions {
        // Most references lead forwards, some lead back to the first definition and form a
        // cycle.
        let is_cyclic = mutator.once_in(6);
        let from = if is_cyclic { 0 } else { number + 1 };
        properties.insert(format!("d{number}"), subschema(mutator, 3, from, definitions));
    }
    let mut root = subschema(mutator, 4, 0, definitions);
    if let Value::Object(map) = &mut root {
        map.insert("type".to_owned(), json!("object"));
        map.insert("$defs".to_owned(), Value::Object(properties));
    }
    root
}

/// Draws a part of a schema, which refers to definitions between two numbers.
fn subschema(mutator: &mut Mutator, depth: usize, from: usize, to: usize) -> Value {
    if depth == 0 {
        return leaf(mutator, from, to);
    }
    let below = |mutator: &mut Mutator| subschema(mutator, depth - 1, from, to);
    match mutator.below(14) {
        0 | 1 => {
            let name = *mutator.pick(&["allOf", "anyOf", "oneOf"]);
            let one = below(mutator);
            // Repetitions of one part cost as much as different parts.
            json!({name: vec![one; 1 + mutator.below(6)]})
        }
        2 => {
            let name = *mutator.pick(&["allOf", "anyOf", "oneOf"]);
            let parts: Vec<Value> = (0..=mutator.below(4)).map(|_| below(mutator)).collect();
            json!({name: parts})
        }
        3 => {
            let mut properties = Map::new();
            for name in NAMES {
                if mutator.once_in(2) {
                    properties.insert(name.to_owned(), below(mutator));
                }
            }
            json!({"properties": properties, "additionalProperties": below(mutator)})
        }
        4 => json!({"items": below(mutator), "uniqueItems": mutator.once_in(2)}),
        5 => json!({"if": below(mutator), "then": below(mutator), "else": below(mutator)}),
        6 => json!({"not": below(mutator)}),
        7 => json!({"patternProperties": {*mutator.pick(&PATTERNS): below(mutator)}}),
        8 => json!({"propertyNames": {"pattern": mutator.pick(&PATTERNS)}}),
        9 => json!({"contains": below(mutator), "minContains": mutator.below(5)}),
        10 => json!({"dependentSchemas": {"x": below(mutator), "y": below(mutator)}}),
        11 => json!({"allOf": [below(mutator)], "unevaluatedProperties": mutator.once_in(2)}),
        _ => leaf(mutator, from, to),
    }
}

fn leaf(mutator: &mut Mutator, from: usize, to: usize) -> Value {
    match mutator.below(8) {
        0..=2 if from < to => {
            json!({"$ref": format!("#/$defs/d{}", from + mutator.below(to - from))})
        }
        3 => json!({"pattern": mutator.pick(&PATTERNS)}),
        4 => json!({"enum": {"@list": [mutator.below(5_000), "value @n"]}}),
        5 => json!({"type": mutator.pick(&TYPES)}),
        6 => json!({"const": mutator.random_json(3)}),
        7 => json!({"minLength": mutator.below(10), "multipleOf": 0.01, "maxItems": 1_000_000}),
        _ => json!({}),
    }
}
