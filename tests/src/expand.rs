//! Recipes for large JSON: an object whose one key begins with `@` is replaced by the value
//! that it describes, so that a case file of a few lines makes megabytes.
//!
//! | recipe | JSON that replaces it |
//! |---|---|
//! | `{"@list": [n, value]}` | `n` copies of a value; `@n` in its texts is the number of the
//! copy |
//! | `{"@join": [list, ..]}` | the lists, one after the other |
//! | `{"@text": [n, pattern]}` | a text of `n` times the pattern |
//! | `{"@random": [n, seed]}` | a text of `n` random letters |
//! | `{"@raw": text}` | an object whose one key is the private one of serde_json's raw values |
//! | `{"@doubling": [levels, refs]}` | a schema of `levels`, each of which refers `refs` times
//! to the next |

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};

/// The key by which serde_json once passed text as JSON. A reader that mistakes it for raw JSON
/// would change the test case, so there is a recipe for it.
const RAW_KEY: &str = "$serde_json::private::RawValue";

/// Maximum number of copies or letters of one recipe, to catch mistakes in a case.
const MAX_TIMES: usize = 50_000_000;

/// Replaces each recipe by its value.
///
/// # Errors
/// A recipe that does not exist or has invalid arguments.
pub fn expand(value: &Value) -> Result<Value> {
    match value {
        Value::Array(list) => list.iter().map(expand).collect(),
        Value::Object(map) => match recipe(map) {
            Some((name, arguments)) => {
                expand_recipe(name, arguments).with_context(|| format!("{name}: {arguments}"))
            }
            None => map.iter().map(|(key, value)| Ok((key.clone(), expand(value)?))).collect(),
        },
        _ => Ok(value.clone()),
    }
}

fn recipe(map: &Map<String, Value>) -> Option<(&str, &Value)> {
    let (name, arguments) = map.iter().next().filter(|_| map.len() == 1)?;
    name.starts_with('@').then_some((name.as_str(), arguments))
}

fn expand_recipe(name: &str, arguments: &Value) -> Result<Value> {
    if name == "@raw" {
        let text = expand(arguments)?;
        return Ok(Value::Object(Map::from_iter([(RAW_KEY.to_owned(), text)])));
    }
    if name == "@join" {
        let lists = expand(arguments)?;
        let lists = lists.as_array().context("@join needs a list of lists")?;
        return Ok(lists.iter().filter_map(Value::as_array).flatten().cloned().collect());
    }
    let times = arguments[0].as_u64().context("a recipe needs a number")?;
    let times = usize::try_from(times)?;
    ensure!(times <= MAX_TIMES, "more than {MAX_TIMES}");
    Ok(match name {
        "@list" => {
            let value = expand(&arguments[1])?;
            (0..times).map(|n| numbered(&value, n)).collect()
        }
        "@text" => json!(arguments[1].as_str().context("no pattern")?.repeat(times)),
        "@random" => json!(random_letters(times, arguments[1].as_u64().context("no seed")?)),
        "@doubling" => {
            doubling(times, usize::try_from(arguments[1].as_u64().context("no number")?)?)
        }
        _ => anyhow::bail!("unknown recipe"),
    })
}

fn numbered(value: &Value, n: usize) -> Value {
    match value {
        Value::String(text) if text.contains("@n") => json!(text.replace("@n", &n.to_string())),
        Value::Array(list) => list.iter().map(|value| numbered(value, n)).collect(),
        Value::Object(map) => {
            map.iter().map(|(key, value)| (key.clone(), numbered(value, n))).collect()
        }
        _ => value.clone(),
    }
}

/// Returns a text of random letters and digits.
pub fn random_letters(count: usize, seed: u64) -> String {
    const LETTERS: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    let mut rng = StdRng::seed_from_u64(seed);
    (0..count).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())])).collect()
}

/// Returns a schema for objects whose check costs `refs` to the power of `levels`.
pub fn doubling(levels: usize, refs: usize) -> Value {
    let mut definitions = Map::new();
    definitions.insert("l0".to_owned(), json!({"type": "object"}));
    for level in 1..=levels {
        let below = json!({"$ref": format!("#/$defs/l{}", level - 1)});
        definitions.insert(format!("l{level}"), json!({"allOf": vec![below; refs]}));
    }
    json!({"type": "object", "$ref": format!("#/$defs/l{levels}"), "$defs": definitions})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_expand_to_their_values() -> Result<()> {
        let found = expand(&json!({
            "a": {"@list": [2, {"id": "n@n", "x": {"@text": [2, "ab"]}}]},
            "b": {"@random": [4, 1]}, "@c": 1, "d": {"x": 1},
        }))?;
        assert_eq!(found["a"], json!([{"id": "n0", "x": "abab"}, {"id": "n1", "x": "abab"}]));
        assert_eq!(found["b"].as_str().map(str::len), Some(4));
        assert_eq!((&found["@c"], &found["d"]), (&json!(1), &json!({"x": 1})));
        let schema = expand(&json!({"@doubling": [2, 3]}))?;
        assert_eq!(schema["$defs"]["l2"]["allOf"].as_array().map(Vec::len), Some(3));
        assert!(expand(&json!({"@lits": [1, 2]})).is_err());
        Ok(())
    }
}
