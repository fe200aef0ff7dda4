//! The `--input name=value` and `--store key=value` arguments of a start.

use std::path::PathBuf;
use std::str::FromStr;

use exosphere_domain::json::{self, JsonError};
use serde_json::Value;

use crate::commands::read_file;
use crate::error::Error;

/// One `--input`.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    pub name: String,
    source: Source,
}

#[derive(Debug, Clone, PartialEq)]
enum Source {
    Value(Value),
    File(PathBuf),
}

impl Input {
    /// Returns the value: as typed, or the text of the file.
    pub fn value(&self) -> Result<Value, Error> {
        let path = match &self.source {
            Source::Value(value) => return Ok(value.clone()),
            Source::File(path) => path,
        };
        let text = String::from_utf8(read_file(path)?).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let path = path.display();
            Error::Failed(format!(
                "{path} is not UTF-8 text: byte {at} is not valid; convert it first"
            ))
        })?;
        Ok(Value::String(text))
    }
}

impl FromStr for Input {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = pair(text)?;
        let source = match value.strip_prefix('@') {
            Some("") => return Err("the path of a file is missing after '@'".to_owned()),
            Some(path) => Source::File(PathBuf::from(path)),
            None => match json::read(value, &mut { u64::MAX }) {
                Ok(value) => Source::Value(value),
                // Most strings are not valid JSON, and need no quotes.
                Err(JsonError::Malformed(_)) => Source::Value(value.into()),
                Err(error) => return Err(error.to_string()),
            },
        };
        Ok(Input { name, source })
    }
}

/// One `--store`. Values of the store are strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreValue {
    pub key: String,
    pub value: String,
}

impl FromStr for StoreValue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = pair(text)?;
        Ok(StoreValue { key, value: value.to_owned() })
    }
}

fn pair(text: &str) -> Result<(String, &str), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value)),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde_json::json;

    use super::*;

    #[test]
    fn inputs_are_json_or_text() {
        for (typed, value) in [
            ("a=1", json!(1)),
            ("a=true", json!(true)),
            ("a=[1, \"x\"]", json!([1, "x"])),
            ("a={\"b\": null}", json!({ "b": null })),
            ("a=\"1\"", json!("1")),
            ("a=\"@here\"", json!("@here")),
            ("a=Ada Lovelace", json!("Ada Lovelace")),
            ("a=x=y", json!("x=y")),
            ("a=[1,", json!("[1,")),
            ("a=", json!("")),
        ] {
            let input: Input = typed.parse().unwrap();
            assert_eq!((input.name.as_str(), input.value().unwrap()), ("a", value), "{typed}");
        }
    }

    #[test]
    fn ambiguous_json_is_refused() {
        for (typed, message) in [
            ("a={\"b\":1,\"b\":2}", "$.b: the key \"b\" comes twice"),
            ("a=18446744073709551616", "$: the number 18446744073709551616 would be rounded"),
            ("a=[1e400]", "$[0]: the number 1e400: number out of range"),
        ] {
            let error = typed.parse::<Input>().unwrap_err();
            assert!(error.contains(message), "{typed}: {error}");
        }
    }

    #[test]
    fn a_file_is_read_as_text() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"[1]\n").unwrap();
        let input: Input = format!("a=@{}", file.path().display()).parse().unwrap();
        assert_eq!(input.value().unwrap(), json!("[1]\n"));

        file.write_all(b"\xff").unwrap();
        let error = input.value().unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert!(error.to_string().contains("byte 4"), "{error}");

        let missing: Input = "a=@/no/such/file".parse().unwrap();
        assert!(missing.value().unwrap_err().to_string().contains("/no/such/file"));
    }

    #[test]
    fn a_pair_has_a_name() {
        for invalid in ["", "a", "=1", "a=@"] {
            assert!(invalid.parse::<Input>().is_err(), "{invalid}");
        }
        let store: StoreValue = "cursor=1=2".parse().unwrap();
        assert_eq!((store.key.as_str(), store.value.as_str()), ("cursor", "1=2"));
        assert!("=1".parse::<StoreValue>().is_err());
    }
}
