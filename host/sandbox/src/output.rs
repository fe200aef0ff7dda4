//! Decodes a node's answer into an outcome. Every byte is checked here, before any other
//! part of the host reads it.
//!
//! Not here: the check against the node's own output schema, which the caller has.

use exosphere_domain::failure::{Failure, FailureKind};
use exosphere_domain::ids::Millis;
use exosphere_domain::json::{self, JsonError, TextFacts};
use exosphere_domain::limits::{Limit, Limits};
use exosphere_domain::outcome::Outcome;
use serde_json::Value;

use crate::bindings::v0_1::exports::exosphere::node::guest as wit;
use crate::guest::secrets::Secrets;
use crate::sanitize::{clean_lines, cut};

/// The longest delay that a node may ask for, in milliseconds: 100 years.
const MAX_REQUEUE_DELAY_MS: u64 = 100 * 366 * 24 * 3_600 * 1_000;

/// Maximum bytes of the details that a node may add to its failure.
const MAX_DETAILS_BYTES: usize = 64 * 1024;

/// Maximum bytes of memory of those details once they are parsed. They are copied and searched
/// for secrets, and parsed JSON may take 230 times its bytes.
const MAX_DETAILS_MEMORY_BYTES: u64 = 2 * 1024 * 1024;

/// Returns the outcome of a node's answer, and the bytes of its outputs.
pub(crate) fn decode_outcome(
    answer: Result<wit::Completion, wit::Failure>,
    limits: &Limits,
    secrets: &Secrets,
) -> (Outcome, u64) {
    let decoded = match answer {
        Ok(wit::Completion::Outputs(outputs)) => check_outputs(outputs, limits),
        Ok(wit::Completion::Prune(data)) => check_prune(data, limits),
        Ok(wit::Completion::RequeueAfter(delay)) => check_delay(delay),
        Err(failure) => Err(node_failure(failure, secrets)),
    };
    decoded.unwrap_or_else(|failure| (Outcome::Failed(secrets.redact_failure(failure)), 0))
}

fn check_outputs(outputs: Vec<String>, limits: &Limits) -> Result<(Outcome, u64), Failure> {
    if outputs.len() > limits.size(Limit::Outputs) {
        return Err(limits.reached(Limit::Outputs));
    }
    let bytes: u64 = outputs.iter().map(|output| output.len() as u64).sum();
    if bytes > limits.get(Limit::OutputBytes) {
        return Err(limits.reached(Limit::OutputBytes));
    }
    let mut checked = Vec::with_capacity(outputs.len());
    for (index, output) in outputs.into_iter().enumerate() {
        let part = JsonPart { subject: "output", index: Some(index) };
        let output = part.check(output, limits)?;
        if !output.starts_with('{') {
            return Err(part.fails("is JSON, but no object"));
        }
        checked.push(output);
    }
    Ok((Outcome::Outputs(checked), bytes))
}

fn check_prune(data: Option<String>, limits: &Limits) -> Result<(Outcome, u64), Failure> {
    let bytes = data.as_ref().map_or(0, |data| data.len() as u64);
    let part = JsonPart { subject: "the data of prune", index: None };
    let data = data.map(|data| part.check(data, limits)).transpose()?;
    Ok((Outcome::Prune(data), bytes))
}

fn check_delay(delay: u64) -> Result<(Outcome, u64), Failure> {
    let fits = (1..=MAX_REQUEUE_DELAY_MS).contains(&delay);
    match Millis::try_from(delay) {
        Ok(delay) if fits => Ok((Outcome::RequeueAfter(delay), 0)),
        _ => Err(Failure::new(
            FailureKind::InvalidOutput,
            format!("requeue-after({delay}): use 1 to {MAX_REQUEUE_DELAY_MS} milliseconds"),
        )),
    }
}

/// Returns the failure that the node reported. Secrets are redacted first, because making
/// a failure cuts its message.
fn node_failure(failure: wit::Failure, secrets: &Secrets) -> Failure {
    let kind = if failure.retryable { FailureKind::Retryable } else { FailureKind::Permanent };
    let reported = Failure::new(kind, secrets.redact(clean_lines(&failure.message)));
    match failure.details {
        None => reported,
        Some(text) => reported.with(details(&text, secrets)),
    }
}

/// Parses the details of a failure. Details are best effort: invalid, too long or too heavy
/// JSON is kept as text. So is JSON that readers would parse differently.
fn details(text: &str, secrets: &Secrets) -> Value {
    if text.len() > MAX_DETAILS_BYTES {
        let kept = clean_lines(cut(text, MAX_DETAILS_BYTES));
        return Value::String(secrets.redact_cut(kept).into_owned());
    }
    let value = json::read(text, &mut MAX_DETAILS_MEMORY_BYTES.clone());
    value.unwrap_or_else(|_| Value::String(clean_lines(text)))
}

/// The part of an answer that holds a JSON text, by which a failure names it.
struct JsonPart {
    subject: &'static str,
    index: Option<usize>,
}

impl JsonPart {
    /// Checks the text and returns it without blanks between its tokens.
    fn check(&self, text: String, limits: &Limits) -> Result<String, Failure> {
        if text.len() > limits.size(Limit::OutputBytesEach) {
            return Err(limits.reached(Limit::OutputBytesEach));
        }
        match json::check(&text, limits.size(Limit::OutputDepth)) {
            Ok(TextFacts { has_blanks: true, .. }) => Ok(compact(&text)),
            Ok(_) => Ok(text),
            Err(error) => {
                let failure = self.fails(&format!("is not valid JSON for an output: {error}"));
                let is_too_deep = matches!(error, JsonError::Unfit { is_too_deep: true, .. });
                Err(if is_too_deep { with_limit(failure, limits) } else { failure })
            }
        }
    }

    fn fails(&self, message: &str) -> Failure {
        let index = self.index.map(|index| format!(" {index}")).unwrap_or_default();
        Failure::new(FailureKind::InvalidOutput, format!("{}{index} {message}", self.subject))
    }
}

/// Names the depth limit in the failure of a text that is nested too deeply. It stays
/// an invalid output, since not every reader accepts such JSON.
fn with_limit(failure: Failure, limits: &Limits) -> Failure {
    let Failure { message, details, .. } = limits.reached(Limit::OutputDepth);
    let message = format!("{}; {message}", failure.message);
    Failure { details, ..Failure::new(failure.kind, message) }
}

/// Removes the blanks between the tokens of valid JSON. The order of keys and the
/// spelling of numbers stay.
fn compact(text: &str) -> String {
    let mut scan = Scan::default();
    text.chars().filter(|c| !c.is_ascii() || scan.keeps(*c as u8)).collect()
}

/// A scanner that tells blanks between tokens from blanks in strings.
#[derive(Default)]
struct Scan {
    in_string: bool,
    escaped: bool,
}

impl Scan {
    /// Returns whether the next byte is part of a token.
    fn keeps(&mut self, byte: u8) -> bool {
        if self.in_string {
            self.in_string = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
            return true;
        }
        self.in_string = byte == b'"';
        !byte.is_ascii_whitespace()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn outputs(outputs: &[&str]) -> Result<Vec<String>, String> {
        let limits = Limits::default()
            .with(Limit::OutputDepth, 3)
            .with(Limit::OutputBytesEach, 100)
            .with(Limit::Outputs, 2);
        let outputs = outputs.iter().map(|output| (*output).to_owned()).collect();
        match decode_outcome(Ok(wit::Completion::Outputs(outputs)), &limits, &Secrets::default()).0
        {
            Outcome::Outputs(outputs) => Ok(outputs),
            Outcome::Failed(failure) => Err(failure.to_string()),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn only_blanks_between_tokens_are_removed() {
        let text = "\n{ \"b\": [1.50, 18446744073709551615],\t\"a \\\" \": \"ü \\\\\" }";
        let compact = "{\"b\":[1.50,18446744073709551615],\"a \\\" \":\"ü \\\\\"}";
        assert_eq!(outputs(&[text, "{}"]).unwrap(), [compact, "{}"]);
    }

    #[test]
    fn ambiguous_json_is_refused() {
        for (text, message) in [
            ("", "invalid-output: output 0 is not valid JSON for an output: EOF"),
            ("nonsense", "invalid-output: output 0 is not valid JSON"),
            ("{} {}", "invalid-output: output 0 is not valid JSON for an output: trailing"),
            ("[]", "invalid-output: output 0 is JSON, but no object"),
            (r#"{"a":1,"a":2}"#, "key \"a\" comes twice"),
            (r#"{"a":{"b":[1,1],"b":2}}"#, "output: $.a.b: the key \"b\" comes twice"),
            (r#"{"a":1e999}"#, "number out of range"),
            (r#"{"a":[18446744073709551616]}"#, "$.a[0]: the number 18446744073709551616 would be"),
            (r#"{"a":"\ud800"}"#, "hex escape"),
            ("{\"a\":\"\0\"}", "control character"),
            (r#"{"a":[[[]]]}"#, "$.a[0][0]: this is nested deeper than 3 levels"),
        ] {
            let error = outputs(&[text]).unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
        assert!(outputs(&[r#"{"a":[[[]]]}"#]).unwrap_err().contains("--limit output_depth=.."));
        assert!(outputs(&[r#"{"a":[[]]}"#]).is_ok());
        let long_object = format!("{{\"a\":\"{}\"}}", "x".repeat(100));
        assert!(outputs(&[&long_object]).unwrap_err().starts_with("limit: "));
        assert!(outputs(&["{}", "{}", "{}"]).unwrap_err().contains("`outputs`"));
    }

    #[test]
    fn signals_are_checked() {
        let no_secrets = Secrets::default();
        let decode = |answer| decode_outcome(answer, &Limits::default(), &no_secrets).0;
        let is_invalid = |outcome: &Outcome| match outcome {
            Outcome::Failed(failure) => failure.kind == FailureKind::InvalidOutput,
            _ => false,
        };
        assert!(is_invalid(&decode(Ok(wit::Completion::RequeueAfter(0)))));
        assert!(is_invalid(&decode(Ok(wit::Completion::RequeueAfter(u64::MAX)))));
        assert!(is_invalid(&decode(Ok(wit::Completion::Prune(Some("{".into()))))));
        assert_eq!(decode(Ok(wit::Completion::RequeueAfter(5))), Outcome::RequeueAfter(5));
        assert_eq!(
            decode(Ok(wit::Completion::Prune(Some("[1, 2]".into())))),
            Outcome::Prune(Some("[1,2]".into()))
        );
    }

    #[test]
    fn a_reported_failure_is_sanitized() {
        let accepts = |details: &str| {
            let failure = wit::Failure {
                message: "no\u{1b}[31m luck".into(),
                retryable: false,
                details: Some(details.into()),
            };
            node_failure(failure, &Secrets::default())
        };
        let failure = accepts(r#"{"code": 7}"#);
        assert_eq!((failure.kind, failure.message.as_str()), (FailureKind::Permanent, "no luck"));
        assert_eq!(failure.details, Some(serde_json::json!({"code": 7})));
        assert_eq!(accepts("{").details, Some(serde_json::json!("{")));
        let magic = r#"{"$serde_json::private::RawValue":"[1]"}"#;
        assert_eq!(accepts(magic).details.unwrap().to_string(), magic);
        for kept_as_text in [r#"{"a":1,"a":2}"#, &format!("[{}0]", "{},".repeat(10_000))] {
            assert_eq!(accepts(kept_as_text).details, Some(Value::String(kept_as_text.into())));
        }
    }
}
