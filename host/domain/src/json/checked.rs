//! Deserialization of values from outside: [`read_checked`] says in this project's words what is
//! not valid, and where, for as many members as it can.
//!
//! Not here: JSON as text (`reader`), and values that the host wrote (`typed`).

use std::fmt::Display;

use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{
    DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value};

use super::Typed;
use crate::graph::problems::{Problems, boolean, element, kind, member, quoted, string};

/// The way in which a request spells its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// JSON.
    Json,
    /// Query parameters: every value is a text, of which numbers and booleans are read.
    Query,
}

impl Spelling {
    /// Returns the word for a member.
    fn noun(self) -> &'static str {
        match self {
            Spelling::Json => "key",
            Spelling::Query => "parameter",
        }
    }
}

/// Reads an object from outside as a type. Records each problem with its path below `root`: one of
/// each member, and those that the object has besides.
pub fn read_checked<T: Typed>(
    mut object: Map<String, Value>,
    root: &str,
    spelling: Spelling,
    problems: &mut Problems,
) -> Option<T> {
    let mut refused = Vec::new();
    loop {
        let members = Members { rest: object.iter(), value: None, spelling };
        let fault = match T::deserialize(MapAccessDeserializer::new(members)) {
            Ok(read) => return refused.is_empty().then_some(read),
            Err(fault) => fault,
        };
        let first = match fault.steps.last() {
            Some(Step::Member(key)) => Some(key.clone()),
            _ => None,
        };
        // A member that is not valid is not missing.
        let is_refused = |key: &str| refused.iter().any(|refused| refused == key);
        if !matches!(fault.what, What::Missing(key) if first.is_none() && is_refused(key)) {
            fault.record(root, spelling, problems);
        }
        // The next problem is found in what is left.
        match first.filter(|key| object.remove(key).is_some()) {
            Some(key) => refused.push(key),
            None => return None,
        }
    }
}

/// A step of a path.
#[derive(Debug)]
enum Step {
    Member(String),
    Element(usize),
}

/// The problem of a value.
#[derive(Debug)]
enum What {
    /// The value is not valid, for this reason.
    Invalid(String),
    /// The object has no such member. The last step names it.
    Unknown(&'static [&'static str]),
    /// The text is none of these words.
    NoSuchWord(String, &'static [&'static str]),
    /// The object lacks a member.
    Missing(&'static str),
}

/// A value that is not valid.
#[derive(Debug)]
struct Fault {
    /// The path to it, the last step first.
    steps: Vec<Step>,
    what: What,
}

impl Fault {
    fn invalid(message: impl Into<String>) -> Self {
        Fault { steps: Vec::new(), what: What::Invalid(message.into()) }
    }

    fn at(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    fn record(self, root: &str, spelling: Spelling, problems: &mut Problems) {
        let extend = |path: String, step: &Step| match step {
            Step::Member(key) => member(&path, key),
            Step::Element(index) => element(&path, *index),
        };
        let path = self.steps.iter().rev().fold(root.to_owned(), extend);
        let noun = spelling.noun();
        match self.what {
            What::Invalid(message) => problems.add(path, message),
            What::Missing(key) => problems.add(path, format!("the {noun} {key:?} is missing")),
            What::NoSuchWord(word, known) => {
                let message = format_args!("unknown word {}", quoted(&word));
                let hint = format_args!("known words: {}", known.join(", "));
                problems.add_unknown(path, message, &word, known.iter().copied(), hint);
            }
            What::Unknown(known) => {
                let Some(Step::Member(key)) = self.steps.first() else { return };
                let message = format_args!("unknown {noun} {}", quoted(key));
                let all = known.join(", ");
                let hint = if known.is_empty() {
                    format!("there are no {noun}s here")
                } else {
                    format!("known {noun}s: {all}")
                };
                problems.add_unknown(path, message, key, known.iter().copied(), hint);
            }
        }
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.what)
    }
}

impl std::error::Error for Fault {}

impl serde::de::Error for Fault {
    fn custom<T: Display>(message: T) -> Self {
        Fault::invalid(message.to_string())
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Fault::invalid(format!("this must be {expected}"))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Fault::invalid(format!("this must be {expected}"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Fault { steps: Vec::new(), what: What::NoSuchWord(variant.to_owned(), expected) }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Fault { steps: vec![Step::Member(field.to_owned())], what: What::Unknown(expected) }
    }

    fn missing_field(field: &'static str) -> Self {
        Fault { steps: Vec::new(), what: What::Missing(field) }
    }
}

/// A value to read. An enum is a word: no type from outside has another form of it.
#[derive(Clone, Copy)]
struct Checked<'de> {
    value: &'de Value,
    spelling: Spelling,
}

impl<'de> Checked<'de> {
    fn string(self) -> Result<&'de str, Fault> {
        string(self.value).map_err(Fault::invalid)
    }

    fn boolean(self) -> Result<bool, Fault> {
        match (self.spelling, self.value.as_str()) {
            (Spelling::Query, Some("true")) => Ok(true),
            (Spelling::Query, Some("false")) => Ok(false),
            (Spelling::Query, _) => Err(Fault::invalid("this must be true or false")),
            (Spelling::Json, _) => boolean(self.value).map_err(Fault::invalid),
        }
    }

    /// Returns a whole number within the range of a type.
    fn number(self, min: i128, max: i128) -> Result<i128, Fault> {
        let number = match (self.spelling, self.value) {
            (Spelling::Query, Value::String(text)) => text.parse().ok(),
            (_, value) => value.as_u64().map(i128::from).or(value.as_i64().map(i128::from)),
        };
        let within = number.filter(|number| (min..=max).contains(number));
        within.ok_or_else(|| {
            Fault::invalid(format!("this must be a whole number from {min} to {max}"))
        })
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty,)*) => { $(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            let number = self.number(<$type>::MIN.into(), <$type>::MAX.into())?;
            let out_of_range = |_| Fault::invalid("this number is too large");
            visitor.$visit(number.try_into().map_err(out_of_range)?)
        }
    )* };
}

impl<'de> Deserializer<'de> for Checked<'de> {
    type Error = Fault;

    numbers! {
        deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64,
        deserialize_i8 visit_i8 i8,
        deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64,
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::String(text) => visitor.visit_str(text),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => visitor.visit_u64(number),
                (None, Some(number)) => visitor.visit_i64(number),
                (None, None) => visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::Array(_) => self.deserialize_seq(visitor),
            Value::Object(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_bool(self.boolean()?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_str(self.string()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Array(list) => {
                let rest = list.iter().enumerate();
                visitor.visit_seq(Elements { rest, spelling: self.spelling })
            }
            other => Err(Fault::invalid(format!("this is {}, and must be an array", kind(other)))),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Object(map) => {
                let rest = map.iter();
                visitor.visit_map(Members { rest, value: None, spelling: self.spelling })
            }
            other => Err(Fault::invalid(format!("this is {}, and must be an object", kind(other)))),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let word: StrDeserializer<'de, Fault> = self.string()?.into_deserializer();
        visitor.visit_enum(word)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

/// The rest of an object.
struct Members<'de> {
    rest: serde_json::map::Iter<'de>,
    /// The member whose value is read next.
    value: Option<(&'de str, &'de Value)>,
    spelling: Spelling,
}

impl<'de> MapAccess<'de> for Members<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        let Some((key, value)) = self.rest.next() else { return Ok(None) };
        self.value = Some((key, value));
        let key: StrDeserializer<'de, Fault> = key.as_str().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let (key, value) = self.value.take().unwrap_or(("", &Value::Null));
        let read = seed.deserialize(Checked { value, spelling: self.spelling });
        read.map_err(|fault| fault.at(Step::Member(key.to_owned())))
    }
}

/// The rest of an array.
struct Elements<'de> {
    rest: std::iter::Enumerate<std::slice::Iter<'de, Value>>,
    spelling: Spelling,
}

impl<'de> SeqAccess<'de> for Elements<'de> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault> {
        let Some((index, value)) = self.rest.next() else { return Ok(None) };
        let read = seed.deserialize(Checked { value, spelling: self.spelling });
        read.map(Some).map_err(|fault| fault.at(Step::Element(index)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;
    use crate::ids::Name;
    use crate::role::Role;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        name: Name,
        role: Option<Role>,
        count: Option<u32>,
        #[serde(default)]
        list: Vec<Name>,
        flag: Option<bool>,
        #[serde(default)]
        map: BTreeMap<String, i64>,
    }
    impl Typed for Asked {}

    fn read(value: Value, spelling: Spelling) -> Result<Asked, Vec<String>> {
        let Value::Object(object) = value else { panic!("not an object") };
        let mut problems = Problems::default();
        let asked = read_checked(object, "$", spelling, &mut problems);
        let lines = |problems: Vec<crate::graph::Problem>| {
            problems.into_iter().map(|it| format!("{}: {}", it.path, it.message)).collect()
        };
        problems.or(asked).map_err(lines)
    }

    #[test]
    fn a_valid_object_is_read() {
        let asked = Asked {
            name: "a".parse().unwrap(),
            role: Some(Role::Viewer),
            count: Some(7),
            list: Vec::new(),
            flag: Some(true),
            map: BTreeMap::new(),
        };
        let query = json!({"name": "a", "role": "viewer", "count": "7", "flag": "true"});
        assert_eq!(read(query, Spelling::Query).unwrap(), asked);
        let body = json!({"name": "a", "role": "viewer", "count": 7, "flag": true, "list": [],
                          "map": {}});
        assert_eq!(read(body, Spelling::Json).unwrap(), asked);
        let body = json!({"name": "a", "list": ["b"], "map": {"x": -1}, "role": null});
        let asked = read(body, Spelling::Json).unwrap();
        assert_eq!((asked.list.len(), asked.map["x"], asked.role), (1, -1, None));
    }

    #[test]
    fn every_problem_is_named_with_its_path() {
        let cases = [
            (json!({}), Spelling::Json, &["$: the key \"name\" is missing"][..]),
            (json!({}), Spelling::Query, &["$: the parameter \"name\" is missing"]),
            (
                json!({"name": 7, "role": "admn", "count": -1, "list": ["b", {}], "flag": "yes",
                       "map": {"x": 1.5}, "nmae": 1}),
                Spelling::Json,
                &[
                    "$.count: this must be a whole number from 0 to 4294967295",
                    "$.flag: this is a string, and must be true or false",
                    "$.list[1]: this is an object, and must be a string",
                    "$.map.x: this must be a whole number from -9223372036854775808 to \
                     9223372036854775807",
                    "$.name: this is a number, and must be a string",
                    "$.nmae: unknown key \"nmae\"; did you mean \"name\"?",
                    "$.role: unknown word \"admn\"; did you mean \"admin\"?",
                ],
            ),
            (
                json!({"name": "a", "count": "4294967296", "flag": "1", "colour": "red"}),
                Spelling::Query,
                &[
                    "$.colour: unknown parameter \"colour\"; known parameters: name, role, count, \
                     list, flag, map",
                    "$.count: this must be a whole number from 0 to 4294967295",
                    "$.flag: this must be true or false",
                ],
            ),
            (
                json!({"name": "a", "list": {}, "map": [1]}),
                Spelling::Json,
                &[
                    "$.list: this is an object, and must be an array",
                    "$.map: this is an array, and must be an object",
                ],
            ),
        ];
        for (value, spelling, expected) in cases {
            let mut found = read(value.clone(), spelling).unwrap_err();
            found.sort();
            assert_eq!(found, expected, "{value}");
        }
    }
}
