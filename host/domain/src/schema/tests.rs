//! Tests of schemas: ordinary ones, refused ones, and ones of exponential cost.

use serde_json::json;

use super::*;
use crate::budget::StepBudget;

fn compiled(schema: &Value) -> Result<Schema, String> {
    Schema::compile(schema, &StepBudget::new(u64::MAX)).map_err(|refusal| refusal.to_string())
}

/// Returns a schema object that allows anything under each of these patterns.
fn patterns(patterns: impl Iterator<Item = String>) -> serde_json::Map<String, Value> {
    patterns.map(|pattern| (pattern, json!(true))).collect()
}

fn checked(schema: Value, value: Value) -> Result<(), String> {
    let schema = compiled(&schema).expect("it compiles");
    schema.check(&value, &StepBudget::new(u64::MAX)).map_err(|refusal| refusal.to_string())
}

#[test]
fn a_misfit_names_its_path() {
    let schema = json!({
        "type": "object",
        "properties": {"list": {"type": "array", "items": {"$ref": "#/$defs/Entry"}}},
        "required": ["list"],
        "$defs": {"Entry": {"type": "object", "properties": {"odd key": {"type": "integer"}}}}
    });
    assert_eq!(checked(schema.clone(), json!({"list": [{"odd key": 1}]})), Ok(()));
    assert_eq!(
        checked(schema.clone(), json!({"list": [{}, {"odd key": "x"}]})),
        Err(r#"$.list[1]["odd key"]: "x" is not of type "integer""#.to_owned())
    );
    assert_eq!(
        checked(schema.clone(), json!({"list": {"a": [1]}})),
        Err(r#"$.list: this is not of type "array""#.to_owned())
    );
    assert_eq!(checked(schema, json!({})), Err(r#"$: "list" is a required property"#.to_owned()));
}

#[test]
fn invalid_schemas_are_refused() {
    let deep = (0..70).fold(json!(true), |inner, _| json!({"not": inner}));
    let chain = (0..30).fold(json!(true), |inner, _| json!({"not": inner}));
    let table = [
        (json!({"type": "strin"}), "does not compile"),
        (json!(3), "does not compile"),
        (json!({"$ref": "https://example.com/x.json"}), "leads out of the schema"),
        (json!({"$ref": "other.json#/x"}), "leads out of the schema"),
        (json!({"$defs": {"unused": {"$ref": "http://example.com/"}}}), "example.com"),
        (json!({"$ref": "#/$defs/none"}), "leads to nothing"),
        (json!({"$ref": "#"}), "without going deeper"),
        (
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}}),
            "without going deeper",
        ),
        (json!({"$schema": "http://json-schema.org/draft-04/schema#"}), "must name JSON Schema"),
        (json!({"properties": {"a": {"$id": "http://b"}}}), "top of a schema only"),
        (json!({"$dynamicRef": "#x"}), "not supported"),
        (json!({"pattern": "(?=x)"}), "does not compile"),
        (json!({"pattern": "\\p{L}{5000}"}), "does not compile"),
        (
            json!({"properties": (0..3000).map(|n| (n.to_string(), json!(true))).collect::<serde_json::Map<_, _>>()}),
            "more than 2000 parts",
        ),
        (
            json!({"patternProperties": patterns((0..101).map(|n| n.to_string()))}),
            "more than 100 patterns",
        ),
        (deep, "64 levels"),
        (chain, "more than 24 parts"),
    ];
    for (schema, message) in table {
        let Err(error) = compiled(&schema) else { panic!("{schema} compiles") };
        assert!(error.contains(message), "{error}");
        assert!(error.chars().count() <= MAX_MESSAGE + 1);
    }
}

#[test]
fn known_dialects_are_accepted() {
    for dialect in [
        "https://json-schema.org/draft/2020-12/schema",
        "https://json-schema.org/draft/2019-09/schema",
        "http://json-schema.org/draft-07/schema#",
        "http://json-schema.org/draft-06/schema",
    ] {
        let schema = json!({"$schema": dialect, "$id": "https://example.com/x", "type": "object"});
        assert_eq!(checked(schema, json!({})), Ok(()), "{dialect}");
    }
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!({}), |inner, _| json!({"a": inner}))
}

#[test]
fn unbounded_checks_are_refused_beforehand() {
    let twice = json!({"properties": {"a": {"$ref": "#"}}});
    let doubling = json!({
        "allOf": [{"properties": {"a": {"$ref": "#"}}}, {"properties": {"a": {"$ref": "#"}}}]
    });
    assert_eq!(checked(twice, nested(150)), Ok(()));
    assert_eq!(checked(doubling.clone(), nested(12)), Ok(()));
    let error = checked(doubling, nested(60)).unwrap_err();
    assert!(error.contains("steps to check"), "{error}");

    // The schema above without recursion: 20 definitions, each naming the next
    // twice.
    let defs = (0..20).map(|n| {
        let next = json!({"$ref": format!("#/$defs/{}", n + 1)});
        (
            n.to_string(),
            json!({"allOf": [{"properties": {"a": next}}, {"properties": {"a": next}}]}),
        )
    });
    let mut defs: serde_json::Map<_, _> = defs.collect();
    defs.insert("20".to_owned(), json!({"enum": (0..1000).collect::<Vec<_>>()}));
    let error = checked(json!({"$ref": "#/$defs/0", "$defs": defs}), nested(20)).unwrap_err();
    assert!(error.contains("steps to check"), "{error}");
}

#[test]
fn tagged_recursion_is_ordinary() {
    let arm = |kind: &str| {
        let sides = json!({"kind": {"const": kind}, "left": {"$ref": "#"}, "right": {"$ref": "#"}});
        json!({"type": "object", "properties": sides})
    };
    let schema = json!({"oneOf": [arm("add"), arm("mul"), {"type": "integer"}]});
    let tree = (0..8).fold(json!(1), |t, _| json!({"kind": "add", "left": t, "right": t}));
    assert_eq!(checked(schema, tree), Ok(()));
}

#[test]
fn large_values_are_ordinary() {
    let schema = json!({
        "properties": {"counts": {"type": "array", "items": {
            "type": "object", "additionalProperties": {"type": "integer", "minimum": 0}
        }}}
    });
    let entry: serde_json::Map<_, _> = (0..100).map(|n| (format!("word{n}"), json!(n))).collect();
    assert_eq!(checked(schema, json!({"counts": vec![entry; 2000]})), Ok(()));
}

/// Checks the longest paths through a schema that the limits allow, on the stack of a test's
/// thread: 2 MiB, as for a host's worker.
#[test]
fn deep_values_do_not_overflow_the_stack() {
    for keyword in ["properties", "items", "unevaluatedProperties", "patternProperties"] {
        let link = |n: usize| {
            let next = json!({"$ref": format!("#/$defs/{}", n + 1)});
            match keyword {
                "properties" => json!({"properties": {"a": next}}),
                "patternProperties" if n > 90 => json!({"properties": {"a": next}}),
                "patternProperties" => json!({"patternProperties": {"a": next}}),
                _ => json!({keyword: next}),
            }
        };
        let mut defs: serde_json::Map<_, _> = (0..990).map(|n| (n.to_string(), link(n))).collect();
        defs.insert("990".to_owned(), json!(true));
        let long = json!({"$ref": "#/$defs/0", "$defs": defs});
        assert_eq!(checked(long, nested(MAX_VALUE_DEPTH - 1)), Ok(()), "{keyword}");

        let chain = (0..20).fold(link(usize::MAX - 1), |inner, n| match n % 3 {
            0 => json!({"allOf": [inner]}),
            1 => json!({"anyOf": [inner]}),
            _ => json!({"oneOf": [inner, false]}),
        });
        let text = chain.to_string().replace(&format!("#/$defs/{}", usize::MAX), "#");
        let chain: Value = crate::json::read_stored(&text).unwrap();
        let checked = checked(chain, nested(MAX_VALUE_DEPTH - 1));
        assert!(checked.is_ok() || keyword == "unevaluatedProperties", "{checked:?}");
    }
}

/// Builds a schema of `levels` levels, each of which applies the next `ways`
/// times.
fn levels(levels: usize, branches: usize) -> Value {
    let mut defs = serde_json::Map::new();
    for level in 0..levels {
        let next = json!({"$ref": format!("#/$defs/{}", level + 1)});
        defs.insert(level.to_string(), json!({"allOf": vec![next; branches]}));
    }
    defs.insert(levels.to_string(), json!({"type": "object"}));
    json!({"$ref": "#/$defs/0", "$defs": defs})
}

#[test]
fn a_check_reserves_its_steps() {
    let schema = compiled(&levels(6, 4)).unwrap();
    let budget = StepBudget::new(3 * 6_000 + 20_000);
    let checks = (0..10).filter(|_| schema.check(&json!({}), &budget).is_ok()).count();
    assert!((1..=6).contains(&checks), "{checks}");
    assert_eq!(schema.check(&json!({}), &budget), Err(Refusal::Exhausted));
}

#[test]
fn estimating_a_check_takes_steps() {
    let schema = compiled(&json!({"items": {"$ref": "#"}})).unwrap();
    let list = json!(vec![0; 1_000]);
    // Two visits of each element, at ten steps each; the check itself is a tenth of that.
    assert_eq!(schema.check(&list, &StepBudget::new(10_000)), Err(Refusal::Exhausted));
    assert_eq!(schema.check(&list, &StepBudget::new(40_000)), Ok(()));
}

#[test]
fn an_explanation_takes_steps() {
    let schema = compiled(&json!({"type": "object", "required": ["a"]})).unwrap();
    let refusal = schema.check(&json!({}), &StepBudget::new(5)).unwrap_err();
    assert!(refusal.to_string().contains("to say where"), "{refusal}");
}

#[test]
fn compiling_takes_steps_for_parts_and_patterns() {
    let wide = |key: &str| json!({"allOf": vec![json!({key: "^a"}); 10]});
    let compile = |schema: &Value, steps| Schema::compile(schema, &StepBudget::new(steps)).is_ok();
    assert!(compile(&wide("title"), 50_000));
    assert!(!compile(&wide("title"), 10_000));
    assert!(!compile(&wide("pattern"), 50_000));
}

#[test]
fn an_always_expensive_schema_is_detected() {
    assert_eq!(compiled(&levels(7, 4)).unwrap().excess_cost(), None);
    let cause = compiled(&levels(11, 4)).unwrap().excess_cost().unwrap();
    assert!(cause.contains("more than 100000 steps"), "{cause}");
}

#[test]
fn pattern_costs_grow_with_name_length() {
    let schema = json!({"patternProperties": patterns((0..90).map(|n| format!("^{n}")))});
    let error = checked(schema, json!({"x".repeat(1 << 20): 1})).unwrap_err();
    assert!(error.contains("steps to check"), "{error}");
}
