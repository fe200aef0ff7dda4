//! The OpenAPI document of a host, and the check of an answer against it.

use anyhow::{Context, Result, ensure};
use exosphere_tests::Host;
use serde_json::{Value, json};

use crate::sent::Answer;

/// The document.
pub struct Document(Value);

/// An operation of the document.
#[derive(Debug, Clone)]
pub struct Operation {
    pub id: String,
    pub method: String,
    /// The path, with the names of its parameters in braces.
    pub path: String,
    pub responses: Value,
    pub takes_upload: bool,
    /// The least role that may send it, or `public`.
    pub role: String,
    pub shows_payloads: bool,
    /// Set if the caller's key must be valid for all namespaces.
    pub all_namespaces: bool,
}

/// The roles, each of which may do what those before it may.
pub const ROLES: [&str; 4] = ["viewer", "operator", "deployer", "admin"];

impl Document {
    /// Reads the document of a host.
    pub fn of(host: &Host) -> Result<Document> {
        Ok(Document(host.get("//v1/openapi.json")?))
    }

    /// Returns every operation.
    pub fn operations(&self) -> Result<Vec<Operation>> {
        let mut operations = Vec::new();
        for (path, item) in self.0["paths"].as_object().context("no paths")? {
            for (method, operation) in item.as_object().context("no operations")? {
                operations.push(Operation {
                    id: operation["operationId"].as_str().context("no id")?.to_owned(),
                    method: method.to_uppercase(),
                    path: path.clone(),
                    responses: operation["responses"].clone(),
                    takes_upload: operation["requestBody"]["content"]["application/wasm"]
                        .is_object(),
                    role: operation["x-requires"]["role"].as_str().context("no role")?.to_owned(),
                    shows_payloads: operation["x-requires"]["payloads"] == true,
                    all_namespaces: operation["x-requires"]["all_namespaces"] == true,
                });
            }
        }
        Ok(operations)
    }

    /// Fails unless an operation documents an answer: its status, its media type and its shape.
    pub fn check(&self, operation: &Operation, answer: &Answer) -> Result<()> {
        let Operation { id, responses, .. } = operation;
        let Answer { status, media_type, text } = answer;
        let content = &responses[status.to_string()]["content"];
        let documented = content[media_type]["schema"].clone();
        ensure!(!documented.is_null(), "{id} does not document {status} {media_type}: {text}");
        if media_type.ends_with("json") && *id != "openapi" {
            let schema = json!({"allOf": [documented], "components": self.0["components"]});
            let validator = jsonschema::validator_for(&schema)?;
            let json = answer.json()?;
            let errors: Vec<_> = validator.iter_errors(&json).map(|it| it.to_string()).collect();
            ensure!(errors.is_empty(), "{id}: {status}: {errors:?}: {json:#}");
        }
        Ok(())
    }
}

impl Operation {
    /// Returns the documented statuses of success.
    pub fn successes(&self) -> Vec<u16> {
        let statuses = self.responses.as_object().into_iter().flatten();
        statuses.filter_map(|(status, _)| status.parse().ok()).filter(|it| *it < 300).collect()
    }

    /// Returns the documented kinds of problems.
    pub fn problems(&self) -> Vec<String> {
        let contents = self.responses.as_object().into_iter().flatten();
        let schemas = contents.map(|(_, it)| &it["content"]["application/problem+json"]["schema"]);
        let pages =
            schemas.filter_map(|it| it["allOf"][1]["properties"]["type"]["enum"].as_array());
        let kinds = pages.flatten().filter_map(|page| page.as_str()?.strip_prefix("/problems/"));
        kinds.map(str::to_owned).collect()
    }
}
