//! The node `gate` lets some branches through and prunes the others, which is not a
//! failure.

use exosphere_sdk::prelude::*;

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// The value to pass on.
    value: Value,
    /// Lets values through; if false, every branch is pruned.
    #[serde(default = "yes")]
    open: bool,
    /// Only numbers of at least this much go through.
    at_least: Option<f64>,
    /// Only numbers below this go through.
    below: Option<f64>,
}

#[derive(Serialize, JsonSchema)]
struct Output {
    value: Value,
}

fn yes() -> bool {
    true
}

fn gate(input: Input) -> Result<Flow<Output>> {
    match objection(&input)? {
        Some(why) => Ok(Flow::prune_with(json!({"value": input.value, "why": why}))),
        None => Ok(Flow::one(Output { value: input.value })),
    }
}

/// Returns the reason for which the value may not pass, if any.
fn objection(input: &Input) -> Result<Option<String>> {
    if !input.open {
        return Ok(Some("the gate is closed".into()));
    }
    if input.at_least.is_none() && input.below.is_none() {
        return Ok(None);
    }
    let Some(number) = input.value.as_f64() else {
        return Err(Error::permanent(format!("{} is not a number to compare", input.value)));
    };
    if let Some(least) = input.at_least.filter(|least| number < *least) {
        return Ok(Some(format!("{number} is less than {least}")));
    }
    if let Some(bound) = input.below.filter(|bound| number >= *bound) {
        return Ok(Some(format!("{number} is not below {bound}")));
    }
    Ok(None)
}

exosphere_sdk::export! {
    /// Passes a value on if it meets the conditions, else prunes the branch.
    gate,
}

#[cfg(test)]
mod tests {
    use exosphere_sdk::testing::{Attempt, Host};

    use super::*;

    fn attempt(inputs: Value) -> Attempt {
        Host::new().run(&PLUGIN, "gate", inputs)
    }

    #[test]
    fn open_gates_pass_values() {
        for inputs in [
            json!({"value": "x"}),
            json!({"value": 3, "open": true, "at_least": 3, "below": 3.5}),
            json!({"value": null}),
        ] {
            assert_eq!(attempt(inputs.clone()).output(), json!({"value": inputs["value"]}));
        }
    }

    #[test]
    fn closed_gates_prune_with_a_reason() {
        for (inputs, why) in [
            (json!({"value": 1, "open": false}), "the gate is closed"),
            (json!({"value": 1, "at_least": 2}), "1 is less than 2"),
            (json!({"value": 2.5, "below": 2.5}), "2.5 is not below 2.5"),
        ] {
            let expected = json!({"value": inputs["value"], "why": why});
            assert_eq!(attempt(inputs).pruned(), Some(expected));
        }
    }

    #[test]
    fn text_cannot_be_compared() {
        let failed = attempt(json!({"value": "x", "below": 1}));
        assert_eq!(failed.failure().message, "\"x\" is not a number to compare");
        assert!(!failed.failure().retryable);
    }
}
