//! Random schemas, made of the most expensive parts: references that multiply, alternatives,
//! patterns, lists of unique items.

use serde_json::{Map, Value, json};

use super::Chance;

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
pub(super) fn by_chance(chance: &mut Chance) -> Value {
    match chance.below(8) {
        0 => return json!({"@doubling": [1 + chance.below(12), 1 + chance.below(5)]}),
        1 | 2 => return json!({"type": "object"}),
        _ => {}
    }
    let definitions = chance.below(8);
    let mut made = Map::new();
    for number in 0..definitions {
        // Most references lead on, some back in a ring.
        let ring = chance.once_in(6);
        let from = if ring { 0 } else { number + 1 };
        made.insert(format!("d{number}"), part(chance, 3, from, definitions));
    }
    let mut root = part(chance, 4, 0, definitions);
    if let Value::Object(map) = &mut root {
        map.insert("type".to_owned(), json!("object"));
        map.insert("$defs".to_owned(), Value::Object(made));
    }
    root
}

/// Draws a part of a schema, which refers to definitions between two numbers.
fn part(chance: &mut Chance, depth: usize, from: usize, to: usize) -> Value {
    if depth == 0 {
        return leaf(chance, from, to);
    }
    let below = |chance: &mut Chance| part(chance, depth - 1, from, to);
    match chance.below(14) {
        0 | 1 => {
            let name = *chance.one(&["allOf", "anyOf", "oneOf"]);
            let one = below(chance);
            // Repetitions of one part cost as much as different parts.
            json!({name: vec![one; 1 + chance.below(6)]})
        }
        2 => {
            let name = *chance.one(&["allOf", "anyOf", "oneOf"]);
            let parts: Vec<Value> = (0..=chance.below(4)).map(|_| below(chance)).collect();
            json!({name: parts})
        }
        3 => {
            let mut properties = Map::new();
            for name in NAMES {
                if chance.once_in(2) {
                    properties.insert(name.to_owned(), below(chance));
                }
            }
            json!({"properties": properties, "additionalProperties": below(chance)})
        }
        4 => json!({"items": below(chance), "uniqueItems": chance.once_in(2)}),
        5 => json!({"if": below(chance), "then": below(chance), "else": below(chance)}),
        6 => json!({"not": below(chance)}),
        7 => json!({"patternProperties": {*chance.one(&PATTERNS): below(chance)}}),
        8 => json!({"propertyNames": {"pattern": chance.one(&PATTERNS)}}),
        9 => json!({"contains": below(chance), "minContains": chance.below(5)}),
        10 => json!({"dependentSchemas": {"x": below(chance), "y": below(chance)}}),
        11 => json!({"allOf": [below(chance)], "unevaluatedProperties": chance.once_in(2)}),
        _ => leaf(chance, from, to),
    }
}

fn leaf(chance: &mut Chance, from: usize, to: usize) -> Value {
    match chance.below(8) {
        0..=2 if from < to => {
            json!({"$ref": format!("#/$defs/d{}", from + chance.below(to - from))})
        }
        3 => json!({"pattern": chance.one(&PATTERNS)}),
        4 => json!({"enum": {"@list": [chance.below(5_000), "value @n"]}}),
        5 => json!({"type": chance.one(&TYPES)}),
        6 => json!({"const": chance.value(3)}),
        7 => json!({"minLength": chance.below(10), "multipleOf": 0.01, "maxItems": 1_000_000}),
        _ => json!({}),
    }
}
