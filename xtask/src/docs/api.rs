//! The reference of the HTTP API: the OpenAPI document that the compiled `exosphere` prints, and
//! a page made from it.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use crate::command;

/// The beginning of the page.
const PAGE_HEAD: &str = "\
# HTTP API

The operations of the API, from the OpenAPI document ([openapi.json](openapi.json)), which also has
every type. `cargo xtask docs` writes this page. A host serves the document at `/v1/openapi.json`,
and a page with the types at `/docs`.

Not here: what each problem means ([problems.md](problems.md)), and the guides.

- Bodies are JSON in UTF-8. Times are in milliseconds since 1970 (UTC).
- Each answer has an `x-request-id`: that of the request if it has one of 1 to 128 letters, digits,
  `-`, `_`, `.` and `:`, else a new one. The lines of the host's log have it too.
- Answers of 1 KiB and more are compressed if the request has `Accept-Encoding: gzip`. Bodies of
  requests are not.
- Every answer with 429 or 503 has a `Retry-After`.
- A start takes `Idempotency-Key` as a header or in its body. Uploads, graphs and settings need no
  key: the same content changes nothing the second time.
- Every path that takes `GET` takes `HEAD`. Another method is answered with 405 and `Allow`.
- The tables leave out the problems that nearly every operation has: 400 `bad-host`, 403
  `other-site` and 503 `full`; with a role also 500 `internal` and 503 `unavailable`; with a
  parameter in the path also 400 `bad-path`.
";

/// Problems of (nearly) every operation, which the head of the page names.
const COMMON: [&str; 6] = ["bad-host", "bad-path", "other-site", "full", "internal", "unavailable"];

/// Returns the document, as the program prints it.
pub fn document(program: &Path) -> Result<String> {
    command::output(Command::new(program).arg("openapi"))
}

/// Returns the page of a document.
pub fn page(document: &str) -> Result<String> {
    let document: Value = serde_json::from_str(document).context("not JSON")?;
    let mut page = PAGE_HEAD.to_owned();
    for tag in list(&document["tags"]) {
        write!(page, "\n## {}\n\n{}\n", word(&tag["name"]), word(&tag["description"]))?;
        for (path, item) in members(&document["paths"]) {
            for (method, operation) in members(item) {
                if operation["tags"][0] == tag["name"] {
                    add(&mut page, path, method, operation)?;
                }
            }
        }
    }
    Ok(page)
}

/// Adds the section of an operation.
fn add(page: &mut String, path: &str, method: &str, operation: &Value) -> Result<()> {
    let Value::String(summary) = &operation["summary"] else { return Ok(()) };
    write!(page, "\n### {summary}\n\n`{} {path}`", method.to_uppercase())?;
    let requires = &operation["x-requires"];
    write!(page, " · role `{}`", word(&requires["role"]))?;
    write!(page, " · quota `{}`", word(&requires["quota"]))?;
    let payloads = if requires["payloads"] == true { " · shows payloads" } else { "" };
    writeln!(page, "{payloads} · `{}`", word(&operation["operationId"]))?;
    if let Some(description) = operation["description"].as_str() {
        write!(page, "\n{description}\n")?;
    }
    let parameters = list(&operation["parameters"]);
    if !parameters.is_empty() {
        page.push_str("\n| parameter | in | type | meaning |\n|---|---|---|---|\n");
    }
    for parameter in parameters {
        let (name, place) = (word(&parameter["name"]), word(&parameter["in"]));
        let about = word(&parameter["description"]).replace('\n', " ").replace('|', "\\|");
        let kind = type_of(&parameter["schema"]);
        writeln!(page, "| `{name}` | {place} | {kind} | {about} |")?;
    }
    for (media_type, content) in members(&operation["requestBody"]["content"]) {
        write!(page, "\nBody: {}, `{media_type}`\n", type_of(&content["schema"]))?;
    }
    page.push_str("\n| status | answer or problems |\n|---|---|\n");
    for (status, response) in members(&operation["responses"]) {
        for (media_type, content) in members(&response["content"]) {
            let schema = &content["schema"];
            let answer = match media_type.as_str() {
                "application/problem+json" => problems(schema),
                _ => format!("{}, `{media_type}`", type_of(schema)),
            };
            if !answer.is_empty() {
                writeln!(page, "| {status} | {answer} |")?;
            }
        }
    }
    Ok(())
}

/// Returns the problems that a schema admits, without the common ones.
fn problems(schema: &Value) -> String {
    let pages = list(&schema["allOf"][1]["properties"]["type"]["enum"]).iter().map(word);
    let kinds = pages.map(|page| page.trim_start_matches("/problems/"));
    let kinds: Vec<_> =
        kinds.filter(|kind| !COMMON.contains(kind)).map(|kind| format!("`{kind}`")).collect();
    kinds.join(", ")
}

/// Returns a type in words.
fn type_of(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        return format!("`{}`", reference.rsplit('/').next().unwrap_or_default());
    }
    let choices: Vec<_> =
        ["oneOf", "anyOf", "allOf"].iter().flat_map(|key| list(&schema[*key])).collect();
    if !choices.is_empty() {
        return choices.into_iter().map(type_of).collect::<Vec<_>>().join(" or ");
    }
    let words: Vec<_> = match &schema["type"] {
        Value::Array(types) => types.iter().map(word).filter(|it| *it != "null").collect(),
        one => vec![word(one)],
    };
    let mut text = words.join(" or ");
    let values: Vec<_> = list(&schema["enum"]).iter().filter_map(Value::as_str).collect();
    if !values.is_empty() && values.len() < 10 {
        text = values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ");
    }
    for (key, about) in [("minimum", " from "), ("maximum", " to ")] {
        if schema[key].is_number() {
            text = format!("{text}{about}{}", schema[key]);
        }
    }
    text
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{problems, type_of};

    #[test]
    fn types_are_shown_in_words() {
        assert_eq!(type_of(&json!({"$ref": "#/components/schemas/Name"})), "`Name`");
        let bounded = json!({"type": ["integer", "null"], "minimum": 1, "maximum": 9});
        assert_eq!(type_of(&bounded), "integer from 1 to 9");
        let choice = json!({"type": "string", "enum": ["A", "B"]});
        assert_eq!(type_of(&choice), "`A`, `B`");
    }

    #[test]
    fn common_problems_are_left_out() {
        let kinds = json!({"type": {"enum": ["/problems/full", "/problems/conflict"]}});
        let schema = json!({"allOf": [{}, {"properties": kinds}]});
        assert_eq!(problems(&schema), "`conflict`");
    }
}
