//! Memory estimates for JSON once it is parsed into values: many times its
//! text, if the author is hostile. The estimate is too high rather than too
//! low.
//!
//! Not here: the memory that a state or caller may use; that is
//! [`crate::limits`].

use serde_json::Value;

/// Bytes of a value in a list, including the list's spare capacity.
pub(crate) const ITEM: u64 = 48;

/// Bytes of an object's member: its key, its value, and its share of a tree
/// node.
pub(crate) const MEMBER: u64 = 128;

/// Bytes of the first node of an object's tree, which has spare capacity.
pub(crate) const OBJECT: u64 = 640;

/// Estimates the memory of a text as values, in bytes. Punctuation within strings counts as if
/// it were outside.
pub fn estimate_text(text: &str) -> u64 {
    let weight = |mark: u8| match mark {
        b',' | b'[' => 1 + ITEM,
        b':' => 1 + MEMBER,
        b'{' => 1 + OBJECT,
        _ => 1,
    };
    ITEM + text.bytes().map(weight).sum::<u64>()
}

/// Estimates the memory of a value, in bytes.
pub fn estimate_value(value: &Value) -> u64 {
    ITEM + match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len() as u64,
        Value::Array(list) => list.iter().map(estimate_value).sum(),
        Value::Object(map) => {
            let member =
                |(key, value): (&String, &Value)| MEMBER + key.len() as u64 + estimate_value(value);
            OBJECT + map.iter().map(member).sum::<u64>()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            "[a-z,:{]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::vec(("[a-z]{0,4}", inner), 0..8)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_texts_estimate_covers_its_value(value in values()) {
            let (text, weight) = (value.to_string(), estimate_value(&value));
            prop_assert!(estimate_text(&text) >= weight / 2, "{text}: {} and {weight}", estimate_text(&text));
        }
    }

    #[test]
    fn hostile_text_has_a_large_estimate() {
        let numbers = format!("[{}1]", "1,".repeat(1000));
        assert!(estimate_text(&numbers) > 20 * numbers.len() as u64);
        let objects = format!("[{}1]", r#"{"a":1},"#.repeat(1000));
        assert!(estimate_text(&objects) > 80 * objects.len() as u64);
    }
}
