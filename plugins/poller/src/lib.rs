//! The node `poller` waits until a counter in the run's store is high enough. It
//! requeues instead of sleeping, because a sleep would occupy a slot of the host.

use exosphere_sdk::prelude::*;

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// The store key to look at. A missing one counts as 0.
    key: String,
    /// The value that the key must reach.
    until: i64,
    /// The delay between two looks, in milliseconds.
    #[serde(default = "hundred")]
    every_ms: u64,
}

#[derive(Serialize, JsonSchema)]
struct Output {
    key: String,
    /// The last value of the key.
    value: i64,
    /// The number of attempts that it took.
    attempts: u32,
}

fn hundred() -> u64 {
    100
}

fn poller(input: Input) -> Result<Flow<Output>> {
    let value = store::parse(&input.key)?.unwrap_or(0);
    if value < input.until {
        log::debug!("`{}` is {value}, not yet {}", input.key, input.until);
        return Ok(Flow::requeue_after(Duration::from_millis(input.every_ms)));
    }
    Ok(Flow::one(Output { key: input.key, value, attempts: context::attempt() }))
}

exosphere_sdk::export! {
    /// Runs again and again until a counter of the store is high enough.
    poller,
}

#[cfg(test)]
mod tests {
    use exosphere_sdk::testing::Host;

    use super::*;

    #[test]
    fn poller_requeues_until_the_counter_is_reached() {
        let inputs = json!({"key": "done", "until": 2, "every_ms": 30});
        let mut host = Host::new();
        assert_eq!(host.run(&PLUGIN, "poller", &inputs).requeued_ms(), 30);
        let mut host = host.store("done", "1");
        assert_eq!(host.run(&PLUGIN, "poller", &inputs).requeued_ms(), 30);
        let mut host = host.store("done", "2");
        let output = host.run(&PLUGIN, "poller", &inputs).output();
        assert_eq!(output, json!({"key": "done", "value": 2, "attempts": 3}));
    }

    #[test]
    fn the_default_interval_is_100_ms() {
        let attempt = Host::new().run(&PLUGIN, "poller", json!({"key": "k", "until": 1}));
        assert_eq!(attempt.requeued_ms(), 100);
    }

    #[test]
    fn non_numeric_counters_fail() {
        let mut host = Host::new().store("k", "many");
        let attempt = host.run(&PLUGIN, "poller", json!({"key": "k", "until": 1}));
        assert!(attempt.failure().message.contains("`k`"));
    }
}
