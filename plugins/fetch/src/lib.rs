//! The node `fetch` asks a service for a JSON document and returns a part of it. An
//! operator grants the service: `exosphere grant add fetch --http "GET
//! https://api.example.com/v1/"`.

use std::collections::BTreeMap;

use exosphere_sdk::prelude::*;

/// The time for a document, below the host's own limit of 10 seconds. So a slow service
/// is an error of this node.
const TIMEOUT: Duration = Duration::from_secs(8);

/// The most bytes of a document.
const MAX_DOCUMENT_BYTES: usize = 1024 * 1024;

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// The URL of the document.
    url: String,
    /// Parameters for the query of the URL.
    #[serde(default)]
    query: BTreeMap<String, String>,
    /// The part to return, as a JSON Pointer (RFC 6901) such as `/items/0/name`. If it is
    /// empty, the whole document.
    #[serde(default)]
    part: String,
}

#[derive(Serialize, JsonSchema)]
struct Output {
    /// The part of the document.
    value: Value,
}

fn fetch(input: Input) -> Result<Output> {
    let mut request = http::get(&input.url)
        .header("accept", "application/json")
        .timeout(TIMEOUT)
        .max_bytes(MAX_DOCUMENT_BYTES);
    for (name, value) in &input.query {
        request = request.query(name, value);
    }
    let mut document: Value = request.send()?.json()?;
    match document.pointer_mut(&input.part) {
        Some(part) => Ok(Output { value: part.take() }),
        None => Err(Error::permanent(format!("the document has no part {:?}", input.part))),
    }
}

exosphere_sdk::export! {
    /// Fetches a JSON document from a service and returns a part of it.
    fetch,
}

#[cfg(test)]
mod tests {
    use exosphere_sdk::testing::{Answer, Attempt, Host};

    use super::*;

    const URL: &str = "https://api.example.com/v1/users";

    fn attempt(answer: Answer, inputs: Value) -> (Attempt, Host) {
        let mut host = Host::new().answer("GET https://api.example.com/v1/users", answer);
        (host.run(&PLUGIN, "fetch", inputs), host)
    }

    #[test]
    fn the_selected_part_is_returned() {
        let document = json!({"items": [{"name": "Ann"}, {"name": "Bob"}]});
        for (part, expected) in [("/items/1/name", json!("Bob")), ("", document.clone())] {
            let inputs = json!({"url": URL, "part": part, "query": {"q": "a b"}});
            let (attempt, host) = attempt(Answer::json(&document), inputs);
            assert_eq!(attempt.output(), json!({"value": expected}));
            assert_eq!(host.requests()[0].url, format!("{URL}?q=a%20b"));
            assert_eq!(host.requests()[0].timeout, Some(TIMEOUT));
        }
    }

    #[test]
    fn a_missing_part_fails_permanently() {
        let inputs = json!({"url": URL, "part": "/items"});
        let (attempt, _) = attempt(Answer::json(json!({})), inputs);
        assert_eq!(attempt.failure().message, "the document has no part \"/items\"");
        assert!(!attempt.failure().retryable);
    }

    #[test]
    fn only_temporary_refusals_are_retried() {
        for (status, retryable) in [(503, true), (429, true), (404, false)] {
            let (attempt, _) = attempt(Answer::status(status), json!({"url": URL}));
            assert_eq!(attempt.failure().retryable, retryable, "{status}");
            let words = format!("GET {URL} was answered with status {status}");
            assert_eq!(attempt.failure().message, words);
        }
    }

    #[test]
    fn oversized_documents_fail_permanently() {
        let large = Answer::bytes(vec![b' '; MAX_DOCUMENT_BYTES + 1]);
        let (attempt, _) = attempt(large, json!({"url": URL}));
        assert!(attempt.failure().message.contains("more than the 1048576 bytes"));
        assert!(!attempt.failure().retryable);
    }
}
