//! The field names in a JSON Schema, so that a misspelt field is found before
//! anything runs. Where a schema leaves the names open, every field is
//! accepted.
//!
//! Not here: checking values; see [`crate::schema`].

use serde_json::{Map, Value};

use crate::template::element_index;

/// The maximum number of local references that are followed in a row.
const MAX_REFERENCES: usize = 32;

/// Keywords that may add or remove fields.
const OPEN_KEYWORDS: [&str; 10] = [
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "dependentSchemas",
    "dependencies",
    "patternProperties",
    "$ref",
    "$dynamicRef",
];

/// A cursor in a schema: a subschema, and the whole schema for local references.
#[derive(Clone, Copy)]
pub struct SchemaCursor<'a> {
    root: &'a Value,
    here: Option<&'a Map<String, Value>>,
}

/// The reason why a path of fields does not exist.
pub struct NoField<'a> {
    /// The missing field.
    pub field: String,
    /// The fields that exist; empty if the value can have none.
    pub known: Vec<&'a str>,
}

impl<'a> SchemaCursor<'a> {
    /// Returns the cursor at the whole schema.
    pub fn root(schema: &'a Value) -> Self {
        SchemaCursor { root: schema, here: schema.as_object() }.resolve_refs()
    }

    /// Returns the names of the required members.
    pub fn required(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let list = self.keyword("required").and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str)
    }

    /// Returns the names of all possible members; `None` if the schema leaves
    /// them open.
    pub fn members(&self) -> Option<Vec<&'a str>> {
        let object = self.here?;
        let allows_more = |key| !matches!(object.get(key), None | Some(Value::Bool(false)));
        if OPEN_KEYWORDS.iter().any(|key| object.contains_key(*key))
            || allows_more("additionalProperties")
            || allows_more("unevaluatedProperties")
        {
            return None;
        }
        match object.get("properties").and_then(Value::as_object) {
            Some(named) => Some(named.keys().map(String::as_str).collect()),
            None => (object.get("additionalProperties")? == &Value::Bool(false)).then(Vec::new),
        }
    }

    /// Follows a path of fields.
    pub fn find(self, path: &[String]) -> Result<(), NoField<'a>> {
        let mut cursor = self;
        for field in path {
            cursor = cursor.child(field)?;
        }
        Ok(())
    }

    fn child(self, field: &str) -> Result<Self, NoField<'a>> {
        let missing = |known| NoField { field: field.to_owned(), known };
        if self.is_scalar() {
            return Err(missing(Vec::new()));
        }
        if self.has_type("array") {
            let Some(at) = element_index(field) else { return Err(missing(Vec::new())) };
            return Ok(self.element(at));
        }
        match self.keyword("properties").and_then(|named| named.get(field)) {
            Some(named) => Ok(self.with_schema(Some(named))),
            None => self.members().map_or(Ok(self.with_schema(None)), |known| Err(missing(known))),
        }
    }

    fn element(self, at: usize) -> Self {
        let items = self.keyword("items");
        let first = self.keyword("prefixItems").or(items).and_then(Value::as_array);
        self.with_schema(
            first.and_then(|first| first.get(at)).or(items.filter(|items| items.is_object())),
        )
    }

    fn with_schema(self, schema: Option<&'a Value>) -> Self {
        SchemaCursor { root: self.root, here: schema.and_then(Value::as_object) }.resolve_refs()
    }

    /// Follows local references, and an `allOf` of one schema, because some
    /// generators wrap a reference in one.
    fn resolve_refs(mut self) -> Self {
        for _ in 0..MAX_REFERENCES {
            let Some(object) = self.here.filter(|object| !object.contains_key("properties")) else {
                break;
            };
            let wrapped = object.get("allOf").and_then(Value::as_array);
            let target =
                match (object.get("$ref").and_then(Value::as_str), wrapped.map(Vec::as_slice)) {
                    (Some(target), None) => {
                        target.strip_prefix('#').and_then(|to| self.root.pointer(to))
                    }
                    (None, Some([only])) => Some(only),
                    _ => break,
                };
            self.here = target.and_then(Value::as_object);
        }
        self
    }

    /// Returns the value of a keyword.
    pub fn keyword(&self, key: &str) -> Option<&'a Value> {
        self.here?.get(key)
    }

    fn has_type(&self, kind: &str) -> bool {
        self.keyword("type").is_some_and(|actual| actual == kind)
    }

    /// Returns whether only a scalar fits, so that no field can lie below.
    fn is_scalar(&self) -> bool {
        let scalar = |kind: &Value| !matches!(kind.as_str(), Some("object" | "array") | None);
        match self.keyword("type") {
            Some(Value::Array(kinds)) => !kinds.is_empty() && kinds.iter().all(scalar),
            Some(kind) => scalar(kind),
            None => false,
        }
    }
}
