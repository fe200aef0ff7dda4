//! The check of a node's outputs against their schema, in pieces: it can stop at any
//! output and continue there.
//!
//! Not here: the thread that it runs on, and the attempt that is billed.

use std::sync::Arc;

use exosphere_domain::budget::Budget;
use exosphere_domain::json::{self, JsonError};
use exosphere_domain::node::DescribedNode;
use exosphere_domain::schema::Refusal;

/// Steps to read an output, beyond those for its bytes.
const OUTPUT_STEPS: u64 = 20;

/// Outputs under check.
pub(crate) struct OutputCheck {
    outputs: Vec<String>,
    next: usize,
    node: Arc<DescribedNode>,
    json_bytes: u64,
}

/// The progress of a check.
pub(crate) enum Progress {
    /// All outputs match their schema.
    Passed,
    /// The budget is exhausted, or the slice is over.
    Paused,
    /// An output takes more memory than the limit `json_bytes`.
    TooLargeInMemory,
    /// An output does not match its schema.
    Mismatch { output: usize, cause: String },
}

impl OutputCheck {
    /// Creates a check that begins at the first output. An output may take up to
    /// `json_bytes` of memory.
    pub(crate) fn new(outputs: Vec<String>, node: Arc<DescribedNode>, json_bytes: u64) -> Self {
        OutputCheck { outputs, next: 0, node, json_bytes }
    }

    /// Returns the outputs, checked or not.
    pub(crate) fn into_outputs(self) -> Vec<String> {
        self.outputs
    }

    /// Continues within a budget, until the slice is over.
    pub(crate) fn resume(
        &mut self,
        budget: &dyn Budget,
        is_slice_over: impl Fn() -> bool,
    ) -> Progress {
        while let Some(output) = self.outputs.get(self.next) {
            if is_slice_over() {
                return Progress::Paused;
            }
            // A byte takes about a step to read and to drop.
            if budget.take(OUTPUT_STEPS + output.len() as u64).is_err() {
                return Progress::Paused;
            }
            let value = match json::read_stored_within(output, &mut { self.json_bytes }) {
                Ok(value) => value,
                Err(JsonError::TooLargeInMemory) => return Progress::TooLargeInMemory,
                Err(error) => {
                    return Progress::Mismatch { output: self.next, cause: error.to_string() };
                }
            };
            match self.node.outputs(budget).and_then(|schema| schema.check(&value, budget)) {
                Ok(()) => self.next += 1,
                Err(Refusal::Exhausted) => return Progress::Paused,
                Err(Refusal::Mismatch(cause)) => {
                    return Progress::Mismatch { output: self.next, cause };
                }
            }
        }
        Progress::Passed
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use exosphere_domain::budget::StepBudget;
    use exosphere_domain::node::NodeDescription;
    use serde_json::json;

    use super::*;

    fn check(outputs: &[&str]) -> OutputCheck {
        let node = NodeDescription {
            name: "node".parse().unwrap(),
            description: String::new(),
            inputs: json!({}),
            outputs: json!({"properties": {"a": {"type": "integer"}}}),
            secrets: Vec::new(),
        };
        let node = Arc::new(DescribedNode::from(node));
        // The schema is compiled beforehand, as an attempt does.
        node.outputs(&StepBudget::new(u64::MAX)).unwrap();
        OutputCheck::new(outputs.iter().map(|text| (*text).to_owned()).collect(), node, 1 << 20)
    }

    #[test]
    fn a_paused_check_resumes_where_it_stopped() {
        let mut check = check(&["{}", r#"{"a":1}"#, r#"{"a":"x"}"#]);
        let mut pauses = 0;
        let mismatch = loop {
            match check.resume(&StepBudget::new(40), || false) {
                Progress::Paused => pauses += 1,
                Progress::Mismatch { output, cause } => break (output, cause),
                _ => panic!("the last one is wrong"),
            }
        };
        assert_eq!(mismatch.0, 2);
        assert!(pauses >= 2, "{pauses}");
    }

    #[test]
    fn a_heavy_output_is_not_read() {
        let heavy = format!(r#"{{"a":[{}1]}}"#, "1,".repeat(30_000));
        let progress = check(&["{}", &heavy]).resume(&StepBudget::new(u64::MAX), || false);
        assert!(matches!(progress, Progress::TooLargeInMemory));
    }
}
