//! The node `tally` adds to a counter in the run's store. Any number of branches may do
//! so at the same time. The sum is exact, because increments merge at commit.

use exosphere_sdk::prelude::*;

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// The store key to add to.
    key: String,
    /// The number to add.
    #[serde(default = "one")]
    by: i64,
    /// Returned as it is.
    #[serde(default)]
    value: Value,
}

#[derive(Serialize, JsonSchema)]
struct Output {
    key: String,
    by: i64,
    value: Value,
}

fn one() -> i64 {
    1
}

fn tally(input: Input) -> Result<Output> {
    store::increment(&input.key, input.by);
    Ok(Output { key: input.key, by: input.by, value: input.value })
}

exosphere_sdk::export! {
    /// Adds to a counter of the store.
    tally,
}

#[cfg(test)]
mod tests {
    use exosphere_sdk::testing::Host;

    use super::*;

    #[test]
    fn tally_adds_to_the_counter() {
        let mut host = Host::new();
        let output = host.run(&PLUGIN, "tally", json!({"key": "n"})).output();
        assert_eq!(output, json!({"key": "n", "by": 1, "value": null}));
        let output =
            host.run(&PLUGIN, "tally", json!({"key": "n", "by": -3, "value": "x"})).output();
        assert_eq!(output, json!({"key": "n", "by": -3, "value": "x"}));
        assert_eq!(host.stored("n"), Some("-2"));
    }
}
