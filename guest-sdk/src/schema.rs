//! JSON Schemas of the types of a node, small and without references where possible.
//!
//! Not here: validation against them, which the host does.

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

/// Returns the input schema of a node: the schema of the JSON from which `T` is deserialized.
pub(crate) fn of_input<T: JsonSchema>() -> Value {
    generate::<T>(SchemaSettings::draft2020_12().for_deserialize())
}

/// Returns the output schema of a node: the schema of `T` serialized to JSON.
pub(crate) fn of_output<T: JsonSchema>() -> Value {
    generate::<T>(SchemaSettings::draft2020_12().for_serialize())
}

/// Returns the schema of a node without inputs, or without outputs.
pub(crate) fn empty_object() -> Value {
    json!({"type": "object"})
}

fn generate<T: JsonSchema>(settings: SchemaSettings) -> Value {
    let settings = settings.with(|settings| {
        settings.meta_schema = None;
        // Only recursive types still get `$defs`.
        settings.inline_subschemas = true;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    // The names of Rust types mean nothing to readers of the schema.
    schema.remove("title");
    RecursiveTransform(drop_rust_formats).transform(&mut schema);
    schema.to_value()
}

/// Removes `"format": "uint32"` and the like, which no standard defines and no
/// validator checks. A number that does not fit is rejected when the inputs are read.
fn drop_rust_formats(schema: &mut Schema) {
    let rust = ["int", "uint", "float", "double"];
    let format = schema.get("format").and_then(Value::as_str);
    if format.is_some_and(|format| rust.contains(&format.trim_end_matches(char::is_numeric))) {
        schema.remove("format");
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    /// A mode of the work.
    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        Fast,
        Slow,
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Inner {
        mode: Mode,
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    struct All {
        /// A name.
        name: String,
        #[serde(default)]
        count: u32,
        ratio: Option<f64>,
        inner: Vec<Inner>,
        any: Value,
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Tree {
        below: Vec<Tree>,
    }

    #[test]
    fn schemas_are_inlined_and_compact() {
        let expected = json!({
            "type": "object",
            "properties": {
                "name": {"type": "string", "description": "A name."},
                "count": {"type": "integer", "minimum": 0, "default": 0},
                "ratio": {"type": ["number", "null"]},
                "inner": {"type": "array", "items": {
                    "type": "object",
                    "properties": {"mode": {
                        "description": "A mode of the work.", "type": "string", "enum": ["fast", "slow"]
                    }},
                    "required": ["mode"],
                }},
                "any": true,
            },
            "required": ["name", "inner", "any"],
        });
        assert_eq!(of_input::<All>(), expected);
    }

    #[test]
    fn always_serialized_fields_are_required_in_outputs() {
        let required = of_output::<All>()["required"].clone();
        assert_eq!(required, json!(["name", "count", "ratio", "inner", "any"]));
    }

    #[test]
    fn a_recursive_type_uses_a_reference() {
        let schema = of_input::<Tree>();
        assert!(schema.to_string().contains("$ref"), "{schema}");
    }
}
