//! The inputs and store values of a start: `--input name=value`, `--input-json name=@FILE`,
//! `--inputs FILE` and `--store key=value`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use exosphere_api_types::ProblemItem;
use exosphere_domain::json::{self, JsonError};
use serde_json::{Map, Value};

use crate::commands::{is_standard_input, read_text, shown};
use crate::error::Error;

/// The arguments that give the inputs of a run.
#[derive(Debug, Default, clap::Args)]
pub struct InputArgs {
    /// An input of the root node: JSON, or else text; @FILE for the text of a file, @- for that of
    /// standard input
    #[arg(long = "input", value_name = "NAME=VALUE")]
    pub inputs: Vec<Input>,
    /// An input of the root node as JSON, or @FILE for the JSON of a file, @- for that of standard
    /// input
    #[arg(long = "input-json", value_name = "NAME=JSON")]
    pub json_inputs: Vec<JsonInput>,
    /// A file with a JSON object of inputs, - for standard input; --input and --input-json override
    /// its members
    #[arg(long = "inputs", value_name = "FILE")]
    pub file: Option<PathBuf>,
}

impl InputArgs {
    /// Reads all inputs.
    pub fn read(&self) -> Result<Map<String, Value>, Error> {
        self.check_standard_input()?;
        let mut inputs = match &self.file {
            Some(file) => read_object(file)?,
            None => Map::new(),
        };
        let mut given = BTreeSet::new();
        let texts = self.inputs.iter().map(|input| (&input.name, input.value()));
        let json = self.json_inputs.iter().map(|input| (&input.name, input.value()));
        for (name, value) in texts.chain(json) {
            if !given.insert(name) {
                return Err(Error::Usage(format!("the input {name} is given twice")));
            }
            inputs.insert(name.clone(), value?);
        }
        Ok(inputs)
    }

    /// Refuses two arguments that read standard input: the second one would find nothing.
    fn check_standard_input(&self) -> Result<(), Error> {
        let files = self.inputs.iter().filter_map(|input| input.source.file());
        let json = self.json_inputs.iter().filter_map(|input| input.source.file());
        let files = files.chain(json).chain(self.file.as_deref());
        if files.filter(|file| is_standard_input(file)).count() > 1 {
            let message = "standard input is named twice; it can be read once";
            return Err(Error::Usage(message.to_owned()));
        }
        Ok(())
    }

    /// Adds a remedy to the problem of an input that was taken for JSON and should be a string.
    pub fn explain(&self, problem: &mut ProblemItem) {
        let is_meant = |input: &&Input| {
            matches!(&input.source, Source::Value(value) if !value.is_string())
                && problem.path == format!("$.inputs.{}", input.name)
        };
        if !problem.message.contains(r#"type "string""#) {
            return;
        }
        if let Some(Input { name, source: Source::Value(value) }) =
            self.inputs.iter().find(is_meant)
        {
            problem.message.push_str(&format!(
                "; this value was read as JSON, and quotes make it a string: --input '{name}=\"{value}\"'"
            ));
        }
    }
}

/// Reads a JSON object from a file.
fn read_object(file: &Path) -> Result<Map<String, Value>, Error> {
    match read_json(file)? {
        Value::Object(map) => Ok(map),
        _ => Err(Error::Failed(format!("{}: the inputs must be a JSON object", shown(file)))),
    }
}

/// Reads JSON from a file. An error names the file, and the place in it.
fn read_json(file: &Path) -> Result<Value, Error> {
    json::read(&read_text(file)?, &mut { u64::MAX })
        .map_err(|error| Error::Failed(format!("{}: {error}", shown(file))))
}

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

impl Source {
    fn file(&self) -> Option<&Path> {
        match self {
            Source::Value(_) => None,
            Source::File(file) => Some(file),
        }
    }
}

impl Input {
    /// Returns the value: as typed, or the text of the file.
    fn value(&self) -> Result<Value, Error> {
        match &self.source {
            Source::Value(value) => Ok(value.clone()),
            Source::File(path) => read_text(path).map(Value::String),
        }
    }
}

impl FromStr for Input {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = pair(text)?;
        if let Some(source) = file_source(value)? {
            return Ok(Input { name, source });
        }
        let source = match json::read(value, &mut { u64::MAX }) {
            Ok(value) => Source::Value(value),
            // Most strings are not valid JSON, and need no quotes. What looks like an object or an
            // array is hardly meant as one.
            Err(JsonError::Malformed(why)) if value.trim_start().starts_with(['{', '[']) => {
                return Err(format!(
                    "this begins like JSON and is not: {why}; quotes make it a string: '{name}=\"..\"'"
                ));
            }
            Err(JsonError::Malformed(_)) => Source::Value(value.into()),
            Err(error) => return Err(error.to_string()),
        };
        Ok(Input { name, source })
    }
}

/// One `--input-json`.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonInput {
    pub name: String,
    source: Source,
}

impl JsonInput {
    /// Returns the value: as typed, or the JSON of the file.
    fn value(&self) -> Result<Value, Error> {
        match &self.source {
            Source::Value(value) => Ok(value.clone()),
            Source::File(path) => read_json(path),
        }
    }
}

impl FromStr for JsonInput {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = pair(text)?;
        let source = match file_source(value)? {
            Some(file) => file,
            None => {
                let value = json::read(value, &mut { u64::MAX });
                Source::Value(value.map_err(|error| format!("this is not JSON: {error}"))?)
            }
        };
        Ok(JsonInput { name, source })
    }
}

/// Returns the file of a value that begins with `@`.
fn file_source(value: &str) -> Result<Option<Source>, String> {
    match value.strip_prefix('@') {
        Some("") => Err("the path of a file is missing after '@'".to_owned()),
        Some(path) => Ok(Some(Source::File(PathBuf::from(path)))),
        None => Ok(None),
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
    fn broken_json_is_not_taken_for_text() {
        for (typed, message) in [
            ("a={\"b\":1", "line 1 column"),
            ("a=[1,2,", "line 1 column"),
            ("a= {b: 1}", "line 1 column"),
        ] {
            let error = typed.parse::<Input>().unwrap_err();
            assert!(error.contains("begins like JSON") && error.contains(message), "{error}");
        }
        assert!("a=word".parse::<JsonInput>().unwrap_err().contains("not JSON"));
    }

    #[test]
    fn files_of_json_override_each_other() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all("\u{feff}{\"a\": 1, \"b\": 2, \"c\": 3}".as_bytes()).unwrap();
        let mut list = tempfile::NamedTempFile::new().unwrap();
        list.write_all(b"[1, 2]").unwrap();
        let args = InputArgs {
            inputs: vec!["b=word".parse().unwrap()],
            json_inputs: vec![format!("c=@{}", list.path().display()).parse().unwrap()],
            file: Some(file.path().to_owned()),
        };
        let inputs = Value::Object(args.read().unwrap());
        assert_eq!(inputs, json!({ "a": 1, "b": "word", "c": [1, 2] }));

        list.write_all(b",").unwrap();
        let error = args.read().unwrap_err().to_string();
        let path = list.path().display().to_string();
        assert!(error.starts_with(&path) && error.contains("line 1"), "{error}");
        let twice = InputArgs {
            file: Some("-".into()),
            inputs: vec!["x=@-".parse().unwrap()],
            ..InputArgs::default()
        };
        assert_eq!(twice.read().unwrap_err().exit_code(), 2);
    }

    #[test]
    fn a_number_for_a_string_is_explained() {
        let args =
            InputArgs { inputs: vec!["text=12345".parse().unwrap()], ..InputArgs::default() };
        let problem = |path: &str| ProblemItem {
            path: path.to_owned(),
            message: r#"12345 is not of type "string""#.to_owned(),
        };
        let mut explained = problem("$.inputs.text");
        args.explain(&mut explained);
        assert!(explained.message.ends_with(r#"--input 'text="12345"'"#), "{}", explained.message);
        let mut other = problem("$.inputs.other");
        args.explain(&mut other);
        assert_eq!(other, problem("$.inputs.other"));
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
