//! The check of a node's outputs against their schema, in pieces: it can stop at any
//! output and go on there.
//!
//! Not here: on which thread, and who is billed.

use std::sync::Arc;

use exosphere_domain::budget::Budget;
use exosphere_domain::node::DescribedNode;
use exosphere_domain::schema::Refusal;
use exosphere_domain::weight;
use serde_json::Value;

/// Steps to read an output that are not for its bytes.
const OUTPUT_STEPS: u64 = 20;

/// Outputs under check.
pub(crate) struct OutputCheck {
    outputs: Vec<String>,
    next: usize,
    node: Arc<DescribedNode>,
    json_bytes: u64,
}

/// How far a check came.
pub(crate) enum Progress {
    /// All outputs are as they should be.
    Passed,
    /// The budget is exhausted, or the slice is over.
    Paused,
    /// An output takes more memory than the limit `json_bytes`.
    TooHeavy,
    /// An output is not as it should be.
    Misfit { output: usize, why: String },
}

impl OutputCheck {
    /// Begins at the first output. An output may take up to `json_bytes` of memory.
    pub(crate) fn new(outputs: Vec<String>, node: Arc<DescribedNode>, json_bytes: u64) -> Self {
        OutputCheck { outputs, next: 0, node, json_bytes }
    }

    /// Gives the outputs back.
    pub(crate) fn into_outputs(self) -> Vec<String> {
        self.outputs
    }

    /// Goes on within a budget, as long as a slice is not over.
    pub(crate) fn go_on(
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
            if weight::of_text(output) > self.json_bytes {
                return Progress::TooHeavy;
            }
            match self.check(output, budget) {
                Ok(()) => self.next += 1,
                Err(Refusal::Exhausted) => return Progress::Paused,
                Err(Refusal::Misfit(why)) => return Progress::Misfit { output: self.next, why },
            }
        }
        Progress::Passed
    }

    fn check(&self, output: &str, budget: &dyn Budget) -> Result<(), Refusal> {
        let value: Value =
            serde_json::from_str(output).map_err(|error| Refusal::Misfit(error.to_string()))?;
        self.node.outputs(budget)?.check(&value, budget)
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
        // Compiled beforehand, as an attempt does.
        node.outputs(&StepBudget::new(u64::MAX)).unwrap();
        OutputCheck::new(outputs.iter().map(|text| (*text).to_owned()).collect(), node, 1 << 20)
    }

    #[test]
    fn a_paused_check_goes_on_where_it_stopped() {
        let mut check = check(&["{}", r#"{"a":1}"#, r#"{"a":"x"}"#]);
        let mut pauses = 0;
        let misfit = loop {
            match check.go_on(&StepBudget::new(40), || false) {
                Progress::Paused => pauses += 1,
                Progress::Misfit { output, why } => break (output, why),
                _ => panic!("the last one is wrong"),
            }
        };
        assert_eq!(misfit.0, 2);
        assert!(pauses >= 2, "{pauses}");
    }

    #[test]
    fn a_heavy_output_is_not_read() {
        let heavy = format!(r#"{{"a":[{}1]}}"#, "1,".repeat(30_000));
        let progress = check(&["{}", &heavy]).go_on(&StepBudget::new(u64::MAX), || false);
        assert!(matches!(progress, Progress::TooHeavy));
    }
}
