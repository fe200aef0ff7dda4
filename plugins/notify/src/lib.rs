//! The node `notify` posts a notification to a service. An attempt that is repeated sends
//! the same idempotency key, so the service can drop the repetition. An operator grants
//! the service: `exosphere grant add notify --http "POST https://hooks.example.com/"`.

use exosphere_sdk::prelude::*;

/// The time for a notification, below the host's own limit of 10 seconds. So a slow
/// service is an error of this node.
const TIMEOUT: Duration = Duration::from_secs(8);

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// The URL to which the notification is posted.
    url: String,
    /// The text of the notification.
    text: String,
    /// Anything that programs may read from the notification.
    #[serde(default)]
    data: Value,
}

#[derive(Serialize, JsonSchema)]
struct Notification {
    text: String,
    data: Value,
    /// The state that sends it, for its reader to look up.
    state: String,
}

#[derive(Serialize, JsonSchema)]
struct Output {
    /// The status with which the service took the notification.
    status: u16,
}

fn notify(input: Input) -> Result<Output> {
    let Input { url, text, data } = input;
    let notification = Notification { text, data, state: context::state() };
    let response = http::post(url).json(&notification).idempotent().timeout(TIMEOUT).send()?;
    Ok(Output { status: response.status() })
}

exosphere_sdk::export! {
    /// Posts a notification as JSON, with an idempotency key.
    notify,
}

#[cfg(test)]
mod tests {
    use exosphere_sdk::http::ErrorKind;
    use exosphere_sdk::testing::{Answer, Host};

    use super::*;

    const POST: &str = "POST https://hooks.example.com/x";

    fn inputs() -> Value {
        json!({"url": "https://hooks.example.com/x", "text": "done", "data": {"n": 1}})
    }

    #[test]
    fn repeated_notifications_have_the_same_key() {
        let mut host = Host::new()
            .run_id("r")
            .answer(POST, Answer::failure(ErrorKind::Timeout))
            .answer(POST, Answer::status(202));
        assert!(host.run(&PLUGIN, "notify", inputs()).failure().retryable);
        let first = host.requests().to_vec();
        assert_eq!(host.run(&PLUGIN, "notify", inputs()).output(), json!({"status": 202}));
        assert_eq!(host.requests(), first);
        assert_eq!(first[0].header("idempotency-key"), Some("r/1/0/1"));
        let expected = json!({"text": "done", "data": {"n": 1}, "state": "r/1"});
        assert_eq!(first[0].json(), expected);
    }

    #[test]
    fn an_ungranted_service_fails_permanently() {
        let mut host = Host::new();
        let attempt = host.run(&PLUGIN, "notify", inputs());
        assert!(!attempt.failure().retryable);
        let denied = format!("{POST} was denied: it is not granted to this plugin");
        assert!(attempt.failure().message.starts_with(&denied), "{:?}", attempt.failure());
    }
}
