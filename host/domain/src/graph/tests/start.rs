//! Tests of start requests.

use super::*;
use crate::limits::{Limit, Limits};

fn started(inputs: Value, store: Value) -> Result<Start, String> {
    let graph = apply(&example()).unwrap().graph;
    let limits = Limits::default()
        .with(Limit::InputBytes, 1000)
        .with(Limit::StoreValueBytes, 10)
        .with(Limit::StoreBytes, 60)
        .with(Limit::StoreKeys, 3);
    let budget = StepBudget::new(u64::MAX);
    let given = (Some(&inputs), Some(&store));
    check_start(&graph, &description("split").into(), given, &limits, &budget)
        .map_err(|problems| lines(problems).join("\n"))
}

#[test]
fn a_start_fills_in_the_defaults() {
    let start = started(json!({"text": "x"}), json!({"cursor": "1"})).unwrap();
    assert_eq!(Value::Object(start.inputs), json!({"text": "x"}));
    assert_eq!(json!(start.store), json!({"cursor": "1", "batch_size": "100"}));
    let start = started(Value::Null, json!({"cursor": "1", "batch_size": "2"})).unwrap();
    assert_eq!(json!(start.store), json!({"cursor": "1", "batch_size": "2"}));
}

#[test]
fn a_start_reports_every_problem() {
    let store = json!({"cursor": "1"});
    let table = [
        (json!([]), store.clone(), "$.inputs: this is an array, and must be an object"),
        (
            json!({"txt": "x"}),
            store.clone(),
            "$.inputs.txt: \"split\" has no input \"txt\"; did you mean \"text\"?",
        ),
        (
            json!({"text": 3}),
            store.clone(),
            "$.inputs.text: this does not fit the input's schema: $.text: 3 is not of type \"string\"",
        ),
        (
            json!({"text": "x".repeat(1000)}),
            store.clone(),
            "$.inputs: too much: bytes of inputs: 1011 bytes; the limit is 1000 bytes (`input_bytes`)",
        ),
        (json!({}), Value::Null, "$.store: the required store key \"cursor\" is missing; give it"),
        (json!({}), json!("x"), "$.store: this is a string, and must be an object of strings"),
        (
            json!({}),
            json!({"cursor": 1}),
            "$.store.cursor: store values are strings; put quotes around it: \"1\"",
        ),
        (
            json!({}),
            json!({"cursor": "1", "a.b": "x"}),
            "$.store[\"a.b\"]: \"a.b\" is not a store key: use 1 to 512 bytes with neither '.' nor NUL among them",
        ),
        (
            json!({}),
            json!({"cursor": "12345678901"}),
            "$.store.cursor: too much: bytes of one value in the store: 11 bytes; the limit is \
             10 bytes (`store_value_bytes`)",
        ),
        (
            json!({}),
            json!({"cursor": "1", "c": "", "d": ""}),
            "$.store: too much: keys in the store: 4; the limit is 3 (`store_keys`)",
        ),
        (
            json!({"txt": 1, "text": 2}),
            json!(1),
            "$.inputs.text: this does not fit the input's schema: $.text: 2 is not of type \
             \"string\"\n$.inputs.txt: \"split\" has no input \"txt\"; did you mean \
             \"text\"?\n$.store: this is a number, and must be an object of strings",
        ),
    ];
    for (inputs, store, expected) in table {
        assert_eq!(started(inputs, store).unwrap_err(), expected);
    }
}
