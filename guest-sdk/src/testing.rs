//! Runs nodes in plain `cargo test`, without a host and without WebAssembly.
//!
//! A [`Host`] is a mock of a real host. It gives a node its inputs, context, secrets
//! and store, and records the results:
//!
//! ```
//! use exosphere_sdk::prelude::*;
//! use exosphere_sdk::testing::Host;
//!
//! fn visit() -> Result<()> {
//!     store::increment("visits", 1);
//!     if context::attempt() == 1 {
//!         return Err(Error::new("not ready"));
//!     }
//!     Ok(())
//! }
//!
//! export!(visit);
//!
//! # fn main() {
//! let mut host = Host::new().store("visits", "5");
//! assert_eq!(host.run(&PLUGIN, "visit", json!({})).failure().message, "not ready");
//! assert_eq!(host.stored("visits"), Some("5"), "a failed attempt leaves no trace");
//! assert_eq!(host.run(&PLUGIN, "visit", json!({})).output(), json!({}));
//! assert_eq!(host.stored("visits"), Some("6"));
//! # }
//! ```
//!
//! The mock runs the same code as WebAssembly does: inputs and outputs go through JSON
//! text, and the node is found by its name in the plugin of
//! [`export!`](crate::export!).
//!
//! A node that makes requests over HTTP gets the canned answers of the test
//! ([`Host::answer`]). A request without one is denied, as a request without a grant is by
//! the real host. [`Host::requests`] returns the requests that were made.
//!
//! The mock has no sandbox limits and no conflicts with other states, and it does not
//! check schemas, which the real host checks before and after. The real host ends an
//! attempt in the middle of a call for an invalid store key, or an increment of a value
//! that is not a number. The mock panics with the reason instead.

// A misused mock fails the test with a message.
#![allow(clippy::panic)]

mod http;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::Value;

use crate::log::Level;
use crate::{Completion, Failure, Plugin, Result};

use http::Answers;
pub use http::{Answer, SentRequest};

type Store = BTreeMap<String, String>;

thread_local! {
    /// The attempt that runs on this thread, if any.
    static CURRENT: RefCell<Option<RunningAttempt>> = const { RefCell::new(None) };
}

/// The data of a running attempt, which the node's calls read and change.
struct RunningAttempt {
    context: Context,
    /// A copy that replaces the host's store if the attempt succeeds.
    store: Store,
    secrets: BTreeMap<String, String>,
    config: BTreeMap<String, String>,
    log: Vec<(Level, String)>,
    answers: Answers,
    sent: Vec<SentRequest>,
    /// The number of requests, denied ones included.
    requests_made: u64,
}

#[derive(Debug, Clone)]
struct Context {
    namespace: String,
    graph: String,
    run: String,
    state: String,
    identifier: String,
    attempt: u32,
    idempotency_key: String,
    deadline: u64,
}

/// A mock host with one state. Each [`run`](Host::run) is one more attempt of it.
#[derive(Debug)]
pub struct Host {
    context: Context,
    requeues: u32,
    store: Store,
    secrets: BTreeMap<String, String>,
    config: BTreeMap<String, String>,
    log: Vec<(Level, String)>,
    answers: Answers,
    sent: Vec<SentRequest>,
}

impl Default for Host {
    fn default() -> Self {
        Host::new()
    }
}

impl Host {
    /// Creates a host with an empty store, without secrets, and with a state without
    /// attempts. The deadline is far in the future.
    pub fn new() -> Self {
        let run = "00000000-0000-7000-8000-000000000000";
        Host {
            context: Context {
                namespace: "default".into(),
                graph: "test".into(),
                run: run.into(),
                state: format!("{run}/1"),
                identifier: "node".into(),
                attempt: 1,
                idempotency_key: String::new(),
                deadline: 4_102_444_800_000,
            },
            requeues: 0,
            store: Store::new(),
            secrets: BTreeMap::new(),
            config: BTreeMap::new(),
            log: Vec::new(),
            answers: Answers::default(),
            sent: Vec::new(),
        }
    }

    /// Sets the namespace, by default `default`.
    pub fn namespace(mut self, name: &str) -> Self {
        self.context.namespace = name.into();
        self
    }

    /// Sets the graph, by default `test`.
    pub fn graph(mut self, name: &str) -> Self {
        self.context.graph = name.into();
        self
    }

    /// Sets the id of the run; the state becomes the run's first state.
    pub fn run_id(mut self, id: &str) -> Self {
        self.context.run = id.into();
        self.context.state = format!("{id}/1");
        self
    }

    /// Sets the identifier of the node in the graph, by default `node`.
    pub fn identifier(mut self, identifier: &str) -> Self {
        self.context.identifier = identifier.into();
        self
    }

    /// Sets the number of the next attempt, from 1.
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.context.attempt = attempt;
        self
    }

    /// Sets the deadline of attempts. The mock does not enforce it.
    pub fn deadline(mut self, deadline: SystemTime) -> Self {
        let since = deadline.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.context.deadline = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// Sets a key of the run's store.
    pub fn store(mut self, key: &str, value: &str) -> Self {
        check_key(key);
        self.store.insert(key.into(), value.into());
        self
    }

    /// Sets a secret of the graph. A node can read it only if it declared it.
    pub fn secret(mut self, name: &str, value: &str) -> Self {
        self.secrets.insert(name.into(), value.into());
        self
    }

    /// Sets a granted configuration value.
    pub fn config(mut self, key: &str, value: &str) -> Self {
        self.config.insert(key.into(), value.into());
        self
    }

    /// Adds a canned answer to a request over HTTP, written as `METHOD URL`. The URL is
    /// the whole URL, or the one without its query. Several answers to the same request
    /// are given in order, over all attempts; the last one is repeated.
    pub fn answer(mut self, request: &str, answer: Answer) -> Self {
        self.answers.add(request, answer);
        self
    }

    /// Runs an attempt of a node of the `PLUGIN` that `export!` defined. The next call
    /// is the next attempt of the same state.
    pub fn run(&mut self, plugin: &Plugin, node: &str, inputs: impl Serialize) -> Attempt {
        let inputs = serde_json::to_string(&inputs)
            .unwrap_or_else(|error| panic!("the inputs of the test are not JSON: {error}"));
        let declared = plugin.node(node).map_or(&[][..], |node| node.secrets());
        let seen = self.secrets.clone().into_iter();
        let seen = seen.filter(|(name, _)| declared.contains(&name.as_str())).collect();
        let result = self.enter(seen, || plugin.execute(node, inputs));
        if matches!(result, Ok(Completion::RequeueAfter(_))) {
            self.requeues += 1;
        }
        Attempt { result }
    }

    /// Runs any code as an attempt that can read every secret, to test the parts of a
    /// node.
    pub fn within<T>(&mut self, code: impl FnOnce() -> Result<T>) -> Result<T> {
        self.enter(self.secrets.clone(), code)
    }

    /// Returns the store's value of a key. Writes of failed attempts are not included.
    pub fn stored(&self, key: &str) -> Option<&str> {
        self.store.get(key).map(String::as_str)
    }

    /// Returns the keys of the store, in order.
    pub fn stored_keys(&self) -> Vec<&str> {
        self.store.keys().map(String::as_str).collect()
    }

    /// Returns the log of the last attempt, without its standard output and standard
    /// error.
    pub fn log(&self) -> &[(Level, String)] {
        &self.log
    }

    /// Returns the requests over HTTP of the last attempt, in order, without denied ones.
    pub fn requests(&self) -> &[SentRequest] {
        &self.sent
    }

    fn enter<T, E>(
        &mut self,
        secrets: BTreeMap<String, String>,
        code: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let mut context = self.context.clone();
        context.idempotency_key = format!("{}/{}", context.state, self.requeues);
        let (store, config) = (self.store.clone(), self.config.clone());
        let running = RunningAttempt {
            context,
            store,
            secrets,
            config,
            log: Vec::new(),
            answers: std::mem::take(&mut self.answers),
            sent: Vec::new(),
            requests_made: 0,
        };
        CURRENT.with(|current| current.replace(Some(running)));
        let result = code();
        let Some(running) = CURRENT.take() else {
            panic!("a Host was used inside an attempt of another one");
        };
        self.context.attempt += 1;
        self.log = running.log;
        self.answers = running.answers;
        self.sent = running.sent;
        if result.is_ok() {
            self.store = running.store;
        }
        result
    }
}

/// The outcome of an attempt. The methods for one kind of outcome panic with the actual
/// outcome if it is another, so that the test fails with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The outcome, as the host would receive it.
    pub result: Result<Completion, Failure>,
}

impl Attempt {
    /// Returns the outputs, in order.
    #[track_caller]
    pub fn outputs(&self) -> Vec<Value> {
        match &self.result {
            Ok(Completion::Outputs(texts)) => texts.iter().map(|text| json(text)).collect(),
            other => panic!("the attempt has no outputs: {other:?}"),
        }
    }

    /// Returns the output, if there is exactly one.
    #[track_caller]
    pub fn output(&self) -> Value {
        let mut outputs = self.outputs();
        match (outputs.len(), outputs.pop()) {
            (1, Some(output)) => output,
            (count, _) => panic!("the attempt has {count} outputs instead of one"),
        }
    }

    /// Returns the data of a pruned branch, or `None` if it was pruned without data.
    #[track_caller]
    pub fn pruned(&self) -> Option<Value> {
        match &self.result {
            Ok(Completion::Prune(data)) => data.as_deref().map(json),
            other => panic!("the attempt did not prune: {other:?}"),
        }
    }

    /// Returns the delay of a requeue, in milliseconds.
    #[track_caller]
    pub fn requeued_ms(&self) -> u64 {
        match self.result {
            Ok(Completion::RequeueAfter(millis)) => millis,
            ref other => panic!("the attempt did not requeue: {other:?}"),
        }
    }

    /// Returns the failure of the attempt.
    #[track_caller]
    pub fn failure(&self) -> &Failure {
        match &self.result {
            Err(failure) => failure,
            other => panic!("the attempt did not fail: {other:?}"),
        }
    }
}

#[track_caller]
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("not JSON: {error}: {text}"))
}

/// Checks a store key against the rule of the contract and the host's limit on its
/// length.
fn check_key(key: &str) {
    let fits = !key.is_empty() && key.len() <= 512 && !key.contains(['.', '\0']);
    assert!(fits, "{key:?} is not a store key: 1 to 512 bytes without '.' and NUL");
}

/// The host functions of the contract, for the attempt that runs on this thread.
pub(crate) mod imports {
    use super::{CURRENT, Context, RunningAttempt};

    fn with_attempt<T>(access: impl FnOnce(&mut RunningAttempt) -> T) -> T {
        CURRENT.with_borrow_mut(|current| match current {
            Some(attempt) => access(attempt),
            None => panic!(
                "there is no host here: run the node by exosphere_sdk::testing::Host, \
                 other code by its method `within`"
            ),
        })
    }

    pub(crate) mod context {
        use super::{Context, with_attempt};

        fn with_context<T>(read: impl FnOnce(&Context) -> T) -> T {
            with_attempt(|attempt| read(&attempt.context))
        }

        pub(crate) fn namespace() -> String {
            with_context(|context| context.namespace.clone())
        }

        pub(crate) fn graph() -> String {
            with_context(|context| context.graph.clone())
        }

        pub(crate) fn run() -> String {
            with_context(|context| context.run.clone())
        }

        pub(crate) fn state() -> String {
            with_context(|context| context.state.clone())
        }

        pub(crate) fn identifier() -> String {
            with_context(|context| context.identifier.clone())
        }

        pub(crate) fn attempt() -> u32 {
            with_context(|context| context.attempt)
        }

        pub(crate) fn idempotency_key() -> String {
            with_context(|context| context.idempotency_key.clone())
        }

        pub(crate) fn deadline() -> u64 {
            with_context(|context| context.deadline)
        }
    }

    pub(crate) mod store {
        use super::super::check_key;
        use super::with_attempt;

        pub(crate) fn get(key: &str) -> Option<String> {
            check_key(key);
            with_attempt(|attempt| attempt.store.get(key).cloned())
        }

        pub(crate) fn set(key: &str, value: &str) {
            check_key(key);
            with_attempt(|attempt| attempt.store.insert(key.into(), value.into()));
        }

        pub(crate) fn remove(key: &str) {
            check_key(key);
            with_attempt(|attempt| attempt.store.remove(key));
        }

        pub(crate) fn keys() -> Vec<String> {
            with_attempt(|attempt| attempt.store.keys().cloned().collect())
        }

        pub(crate) fn increment(key: &str, delta: i64) {
            let before = get(key).unwrap_or_else(|| "0".into());
            let Some(sum) = before.parse::<i64>().ok().and_then(|before| before.checked_add(delta))
            else {
                panic!(
                    "store key {key:?} holds {before:?}: adding {delta} is not a whole number of 64 bits"
                );
            };
            set(key, &sum.to_string());
        }
    }

    pub(crate) mod log {
        use super::with_attempt;
        use crate::log::Level;

        pub(crate) fn write(level: Level, message: &str) {
            with_attempt(|attempt| attempt.log.push((level, message.into())));
        }
    }

    pub(crate) mod secrets {
        use super::with_attempt;

        pub(crate) fn get(name: &str) -> Option<String> {
            with_attempt(|attempt| attempt.secrets.get(name).cloned())
        }
    }

    pub(crate) mod http {
        use super::super::http::exchange as answer;
        use super::with_attempt;
        use crate::http::{Cause, Incoming, Outgoing};

        pub(crate) fn requests() -> u64 {
            with_attempt(|attempt| attempt.requests_made)
        }

        pub(crate) fn exchange(request: Outgoing) -> Result<Incoming, Cause> {
            with_attempt(|attempt| answer(attempt, request))
        }
    }

    pub(crate) mod config {
        use super::with_attempt;

        pub(crate) fn get(key: &str) -> Option<String> {
            with_attempt(|attempt| attempt.config.get(key).cloned())
        }

        pub(crate) fn all() -> Vec<(String, String)> {
            with_attempt(|attempt| attempt.config.clone().into_iter().collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::{Error, Flow, context, secrets, store};

    fn script(input: Value) -> Result<Flow<Value>> {
        store::set("seen", "yes");
        crate::log::info!("attempt {}", context::attempt());
        match input["do"].as_str() {
            Some("prune") => Ok(Flow::prune_with(json!({"why": "so"}))),
            Some("requeue") => Ok(Flow::requeue_after(Duration::from_millis(5))),
            Some("fail") => Err(Error::new("no")),
            Some("two") => Ok(Flow::many([json!({"n": 1}), json!({"n": 2})])),
            _ => Ok(Flow::one(json!({
                "declared": secrets::get("declared"),
                "other": secrets::get("other"),
                "key": context::idempotency_key(),
            }))),
        }
    }

    crate::export!(script reads ["declared"]);

    #[test]
    fn attempts_report_every_kind_of_outcome() {
        let mut host = Host::new().attempt(3);
        assert_eq!(host.run(&PLUGIN, "script", json!({"do": "fail"})).failure().message, "no");
        assert_eq!(host.stored("seen"), None);
        assert_eq!(host.log(), [(Level::Info, "attempt 3".to_owned())]);
        let pruned = host.run(&PLUGIN, "script", json!({"do": "prune"})).pruned();
        assert_eq!(pruned, Some(json!({"why": "so"})));
        assert_eq!(host.stored("seen"), Some("yes"));
        assert_eq!(host.log(), [(Level::Info, "attempt 4".to_owned())]);
        let outputs = host.run(&PLUGIN, "script", json!({"do": "two"})).outputs();
        assert_eq!(outputs, [json!({"n": 1}), json!({"n": 2})]);
        assert!(
            host.run(&PLUGIN, "other", json!({})).failure().message.contains("no node `other`")
        );
    }

    #[test]
    fn secrets_are_filtered_and_requeues_change_keys() {
        let mut host = Host::new().run_id("r").secret("declared", "1").secret("other", "2");
        let first = host.run(&PLUGIN, "script", json!({})).output();
        assert_eq!(first, json!({"declared": "1", "other": null, "key": "r/1/0"}));
        assert_eq!(host.run(&PLUGIN, "script", json!({"do": "requeue"})).requeued_ms(), 5);
        assert_eq!(host.run(&PLUGIN, "script", json!({})).output()["key"], "r/1/1");
        assert_eq!(host.within(|| Ok(secrets::get("other"))), Ok(Some("2".into())));
    }

    #[test]
    fn the_context_returns_the_configured_values() {
        let deadline = UNIX_EPOCH + Duration::from_millis(1_234);
        let mut host =
            Host::new().namespace("n").graph("g").run_id("r").identifier("i").deadline(deadline);
        let seen = host.within(|| {
            assert_eq!(context::deadline(), deadline);
            Ok([
                context::namespace(),
                context::graph(),
                context::run(),
                context::state(),
                context::identifier(),
            ])
        });
        assert_eq!(seen, Ok(["n", "g", "r", "r/1", "i"].map(String::from)));
    }

    #[test]
    #[should_panic(expected = "is not a store key")]
    fn an_invalid_store_key_panics() {
        let _ = Host::new().within(|| {
            store::set("a.b", "1");
            Ok(())
        });
    }

    #[test]
    #[should_panic(expected = "is not a whole number")]
    fn incrementing_a_text_value_panics() {
        let _ = Host::new().store("word", "one").within(|| {
            store::increment("word", 1);
            Ok(())
        });
    }

    #[test]
    #[should_panic(expected = "there is no host here")]
    fn store_access_without_a_host_panics() {
        store::get("a");
    }

    #[test]
    #[should_panic(expected = "did not fail")]
    fn asserting_the_wrong_outcome_panics() {
        Host::new().run(&PLUGIN, "script", json!({})).failure();
    }
}
