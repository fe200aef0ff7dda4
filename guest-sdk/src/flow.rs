//! Outcomes of a node other than one plain output, and their form for the host.
//!
//! Not here: failures, see [`Error`]; and the host's reaction to an outcome.

use std::any::TypeId;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::schema;
use crate::{Error, Result};

/// The outcome of a node, where one plain output is not enough.
///
/// ```
/// use exosphere_sdk::prelude::*;
/// # #[derive(Deserialize, JsonSchema)] struct Text { text: String }
/// # #[derive(Serialize, JsonSchema)] struct Line { line: String }
///
/// fn lines(input: Text) -> Result<Flow<Line>> {
///     if input.text.is_empty() {
///         return Ok(Flow::prune());
///     }
///     Ok(Flow::many(input.text.lines().map(|line| Line { line: line.to_owned() })))
/// }
/// # assert!(matches!(lines(Text { text: "a\nb".into() }), Ok(Flow::Outputs(o)) if o.len() == 2));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum Flow<T> {
    /// Zero or more outputs. With more than one it is a fanout: each output starts a
    /// branch of its own. With none it is an empty fanout: nothing runs after this
    /// state.
    Outputs(Vec<T>),
    /// The branch ends here. The data, if any, is kept for people to read.
    Prune(Option<Value>),
    /// A requeue: this state runs again after this time. It uses up no retry, and its writes to
    /// the store are kept.
    RequeueAfter(Duration),
}

impl<T> Flow<T> {
    /// Creates one output, as if it were returned directly.
    pub fn one(output: T) -> Self {
        Flow::Outputs(vec![output])
    }

    /// Creates a fanout. A unite gathers the branches in the order of the outputs.
    pub fn many(outputs: impl IntoIterator<Item = T>) -> Self {
        Flow::Outputs(outputs.into_iter().collect())
    }

    /// Creates an empty fanout: a success after which no state runs.
    pub fn empty() -> Self {
        Flow::Outputs(Vec::new())
    }

    /// Creates a prune: the branch ends here.
    pub fn prune() -> Self {
        Flow::Prune(None)
    }

    /// Creates a prune with data that explains why the branch ends here.
    pub fn prune_with(data: impl Into<Value>) -> Self {
        Flow::Prune(Some(data.into()))
    }

    /// Creates a requeue: the same state runs again after `delay`. The delay is rounded
    /// up to whole milliseconds and to at least one, so that a computed delay of zero
    /// needs no special case.
    pub fn requeue_after(delay: Duration) -> Self {
        Flow::RequeueAfter(delay)
    }
}

impl<T> From<T> for Flow<T> {
    fn from(output: T) -> Self {
        Flow::one(output)
    }
}

/// The outcome of a successful execution, as the host receives it: the contract's
/// variant of that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Completion {
    /// Zero or more JSON objects, each as text.
    Outputs(Vec<String>),
    /// The branch ends here; JSON text for people to read.
    Prune(Option<String>),
    /// A requeue: the state runs again after this number of milliseconds, more than zero.
    RequeueAfter(u64),
}

/// A type that a node function may return in its `Ok`.
///
/// Every type that can be serialized and has a schema is one output, `()` is an output without
/// fields, and [`Flow`] covers all other outcomes. Implement it by hand only to bypass the
/// typed layer, for example to pass JSON text on unparsed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not something a node can return",
    note = "derive `Serialize` and `JsonSchema` for the output type",
    note = "return `Result<Output>` or `Result<Flow<Output>>`"
)]
pub trait Reply {
    /// Returns the JSON Schema of one output.
    fn schema() -> Value;
    /// Returns the outcome with its outputs as text.
    fn complete(self) -> Result<Completion>;
}

impl<T: Serialize + JsonSchema + 'static> Reply for T {
    fn schema() -> Value {
        if is_unit::<T>() { schema::empty_object() } else { schema::of_output::<T>() }
    }

    fn complete(self) -> Result<Completion> {
        Ok(Completion::Outputs(vec![object(&self)?]))
    }
}

impl<T: Serialize + JsonSchema + 'static> Reply for Flow<T> {
    fn schema() -> Value {
        <T as Reply>::schema()
    }

    fn complete(self) -> Result<Completion> {
        Ok(match self {
            Flow::Outputs(outputs) => {
                // Each output is freed as soon as it is written: memory is limited.
                Completion::Outputs(outputs.into_iter().map(|o| object(&o)).collect::<Result<_>>()?)
            }
            Flow::Prune(data) => Completion::Prune(data.map(|data| data.to_string())),
            Flow::RequeueAfter(delay) => Completion::RequeueAfter(whole_millis(delay)),
        })
    }
}

fn is_unit<T: 'static>() -> bool {
    TypeId::of::<T>() == TypeId::of::<()>()
}

/// Returns an output as JSON text. A value that is not an object is rejected here,
/// because the host's error could not name its Rust type.
fn object<T: Serialize + 'static>(output: &T) -> Result<String> {
    if is_unit::<T>() {
        return Ok("{}".to_owned());
    }
    let text = serde_json::to_string(output).map_err(|error| {
        Error::permanent(format!("the output cannot be written as JSON: {error}"))
    })?;
    if !text.starts_with('{') {
        return Err(Error::permanent(format!(
            "the output is not a JSON object: return a struct with named fields instead of `{}`",
            std::any::type_name::<T>()
        )));
    }
    Ok(text)
}

fn whole_millis(delay: Duration) -> u64 {
    let millis = delay.as_nanos().div_ceil(1_000_000).max(1);
    u64::try_from(millis).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[derive(Serialize, JsonSchema)]
    struct Out {
        n: u32,
    }

    #[test]
    fn a_plain_value_is_one_output() {
        assert_eq!(Out { n: 1 }.complete(), Ok(Completion::Outputs(vec!["{\"n\":1}".into()])));
        assert_eq!(().complete(), Ok(Completion::Outputs(vec!["{}".into()])));
        assert_eq!(<() as Reply>::schema(), json!({"type": "object"}));
    }

    #[test]
    fn each_flow_maps_to_its_completion() {
        let many: Flow<Out> = Flow::many((0..2).map(|n| Out { n }));
        let texts = vec!["{\"n\":0}".into(), "{\"n\":1}".into()];
        assert_eq!(many.complete(), Ok(Completion::Outputs(texts)));
        assert_eq!(Flow::<Out>::empty().complete(), Ok(Completion::Outputs(vec![])));
        assert_eq!(Flow::from(()).complete(), Ok(Completion::Outputs(vec!["{}".into()])));
        assert_eq!(Flow::<Out>::prune().complete(), Ok(Completion::Prune(None)));
        assert_eq!(
            Flow::<Out>::prune_with(json!({"why": "old"})).complete(),
            Ok(Completion::Prune(Some("{\"why\":\"old\"}".into())))
        );
        assert_eq!(<Flow<Out> as Reply>::schema(), <Out as Reply>::schema());
    }

    #[test]
    fn requeue_delays_round_up_and_stay_positive() {
        let millis = |delay| match Flow::<()>::requeue_after(delay).complete().unwrap() {
            Completion::RequeueAfter(millis) => millis,
            other => unreachable!("{other:?}"),
        };
        assert_eq!(millis(Duration::ZERO), 1);
        assert_eq!(millis(Duration::from_micros(1_001)), 2);
        assert_eq!(millis(Duration::from_secs(3)), 3_000);
        assert_eq!(millis(Duration::MAX), u64::MAX);
    }

    #[test]
    fn non_object_outputs_fail_permanently() {
        let error = vec![1, 2].complete().unwrap_err();
        assert!(!error.is_retryable());
        assert!(error.message().contains("not a JSON object"), "{error}");
        assert!(Some(1).complete().is_err());
        assert!(None::<Out>.complete().is_err());
        let keys = std::collections::BTreeMap::from([((1, 2), 3)]);
        assert!(object(&keys).unwrap_err().message().contains("cannot be written as JSON"));
    }
}
