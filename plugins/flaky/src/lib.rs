//! The node `flaky` fails a given number of times, to demonstrate retries.

use exosphere_sdk::prelude::*;

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// The attempts up to this one fail.
    fail_attempts: u32,
    /// Fail in a way that is not retried.
    #[serde(default)]
    permanent: bool,
    /// The message of the failure.
    message: Option<String>,
    /// Set this key of the store before anything else. A failed attempt leaves
    /// no trace, so it can only be seen after a success.
    mark: Option<String>,
    /// Returned as it is.
    #[serde(default)]
    echo: Value,
}

#[derive(Serialize, JsonSchema)]
struct Output {
    /// The attempt that succeeded.
    attempt: u32,
    echo: Value,
}

fn flaky(input: Input) -> Result<Output> {
    let attempt = context::attempt();
    if let Some(key) = &input.mark {
        store::set(key, attempt.to_string());
    }
    if attempt > input.fail_attempts {
        return Ok(Output { attempt, echo: input.echo });
    }
    log::warn!("attempt {attempt} fails, as it was told to");
    let message = input.message.unwrap_or_else(|| format!("attempt {attempt} was told to fail"));
    let error = if input.permanent { Error::permanent(message) } else { Error::new(message) };
    Err(error.with_details(json!({"attempt": attempt})))
}

exosphere_sdk::export! {
    /// Fails on its first attempts, then returns what it was given.
    flaky,
}

#[cfg(test)]
mod tests {
    use exosphere_sdk::testing::Host;

    use super::*;

    #[test]
    fn flaky_fails_then_succeeds() {
        let inputs = json!({"fail_attempts": 2, "echo": [1], "mark": "seen"});
        let mut host = Host::new();
        for attempt in 1..=2 {
            let failed = host.run(&PLUGIN, "flaky", &inputs);
            assert_eq!(failed.failure().message, format!("attempt {attempt} was told to fail"));
            assert!(failed.failure().retryable);
            assert_eq!(host.stored("seen"), None, "a failed attempt leaves no trace");
            assert_eq!(host.log().len(), 1);
        }
        let output = host.run(&PLUGIN, "flaky", &inputs).output();
        assert_eq!(output, json!({"attempt": 3, "echo": [1]}));
        assert_eq!(host.stored("seen"), Some("3"));
    }

    #[test]
    fn flaky_can_fail_permanently() {
        let inputs = json!({"fail_attempts": 1, "permanent": true, "message": "no"});
        let attempt = Host::new().run(&PLUGIN, "flaky", inputs);
        assert_eq!(
            (attempt.failure().message.as_str(), attempt.failure().retryable),
            ("no", false)
        );
        assert_eq!(attempt.failure().details.as_deref(), Some(r#"{"attempt":1}"#));
    }
}
