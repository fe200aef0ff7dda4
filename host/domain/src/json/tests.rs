//! Tests of the JSON parser: accepted texts, refused texts, and the paths of
//! problems.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]
use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;
use crate::json_size;

fn read_all(text: &str) -> Result<Value, JsonError> {
    read(text, &mut { u64::MAX })
}

fn problems(text: &str) -> Vec<String> {
    let line = |problem: Problem| format!("{}: {}", problem.path, problem.message);
    read_all(text).unwrap_err().into_problems().into_iter().map(line).collect()
}

#[test]
fn magic_keys_of_serde_json_stay_text() {
    for key in ["$serde_json::private::RawValue", "$serde_json::private::Number"] {
        let text = format!(r#"{{"{key}":"[1,2]"}}"#);
        let map = Map::from_iter([(key.to_owned(), json!("[1,2]"))]);
        assert_eq!(read_all(&text).unwrap(), Value::Object(map.clone()));
        assert_eq!(read_stored(&text).unwrap(), Value::Object(map.clone()));
        let deep = json!({ "a": [Value::Object(map)] });
        assert_eq!(read_all(&deep.to_string()).unwrap().to_string(), deep.to_string());
    }
}

#[test]
fn duplicate_keys_are_refused_with_their_paths() {
    let text = r#"{"a":{"b":1,"b":2},"c":[{"\u0064":1,"d":2}],"a":0}"#;
    assert_eq!(
        problems(text),
        [
            "$.a.b: the key \"b\" comes twice; keep one of them",
            "$.c[0].d: the key \"d\" comes twice; keep one of them",
            "$.a: the key \"a\" comes twice; keep one of them",
        ]
    );
    let many: String = (0..30).map(|n| format!("\"k{n}\":0,")).collect();
    let text = format!("{{{many}\"k7\":1,\"k29\":1}}");
    assert_eq!(problems(&text).len(), 2);
    assert_eq!(check(&text, MAX_DEPTH).unwrap_err(), read_all(&text).unwrap_err());
    let value = read_stored(r#"{"a":1,"a":2}"#).unwrap();
    assert_eq!(value, json!({"a": 2}));
}

#[test]
fn long_keys_are_not_cut_in_messages() {
    let key = "x".repeat(65);
    let found = problems(&format!("{{\"{key}\":[{{\"{key}\":1e400}}]}}"));
    assert!(found[0].starts_with("$[a key of 65 bytes][0][a key of 65 bytes]: "), "{found:?}");
    let deep = "{\"some key\":".repeat(60) + "1e400" + &"}".repeat(60);
    assert!(problems(&deep)[0].split(": ").next().unwrap().len() <= 203);
}

#[test]
fn numbers_are_kept_or_refused() {
    for exact in [
        "0",
        "-0",
        "7",
        "-9223372036854775808",
        "18446744073709551615",
        "0.1",
        "1.50",
        "3.0e2",
        "1e22",
        "-2.5E-3",
        "0.30000000000000004",
        "1.7976931348623157e308",
        "5e-324",
        // A tie: Rust writes the second number, other writers the first.
        "1476220556476072.2",
        "1476220556476072.3",
        "2.2250738585072014e-308",
        "9007199254740993",
        "0e999999999999999999999",
        "0.000",
        "1.000000000000000000000",
        "100000000000000000000e-2",
        "123456789012345.6",
    ] {
        assert!(read_all(exact).is_ok(), "{exact}: {:?}", read_all(exact));
        assert!(check(exact, 0).is_ok(), "{exact}");
        assert_eq!(
            read_all(exact).unwrap().as_f64().unwrap().to_bits(),
            exact.parse::<f64>().unwrap().to_bits(),
            "{exact}"
        );
    }
    for (refused, message) in [
        ("18446744073709551616", "would be rounded"),
        ("-9223372036854775809", "would be rounded"),
        ("12345678901234567890123", "would be rounded"),
        ("100000000000000000000", "would be rounded"),
        ("0.12345678901234567890123", "would be rounded"),
        ("0.10000000000000001", "would be rounded"),
        ("9007199254740993.0", "would be rounded"),
        ("1e-400", "would be rounded"),
        ("3e-324", "would be rounded"),
        ("1e400", "out of range"),
        ("-1e99999999999999999999", "out of range"),
    ] {
        let found = problems(&format!(r#"{{"a":[{refused}]}}"#));
        assert!(
            found[0].starts_with("$.a[0]: the number ") && found[0].contains(message),
            "{found:?}"
        );
        assert!(found[0].ends_with("send it as a string"), "{found:?}");
        assert!(check(refused, 0).is_err(), "{refused}");
    }
    let long_number = "1".repeat(41);
    assert!(problems(&long_number)[0].starts_with("$: a number of 41 characters would be rounded"));
    let stored = read_stored("[18446744073709551616,1e-400]").unwrap();
    assert_eq!(stored, json!([18_446_744_073_709_551_616.0_f64, 0.0]));
}

#[test]
fn problems_are_bounded_in_number() {
    let text = format!("[{}0]", "1e400,".repeat(100));
    let found = problems(&text);
    assert_eq!(found.len(), MAX_PROBLEMS + 1);
    assert_eq!(found[MAX_PROBLEMS], "$: and 80 more problems");
}

#[test]
fn malformed_text_is_refused_with_its_line() {
    for (text, message) in [
        ("", "EOF: the text ends too early, at line 1 column 1"),
        ("{\"a\":\n tru", "EOF: the text ends too early, at line 2 column 5"),
        ("{\"ä\": x}", "expected a value, at line 1 column 7"),
        ("{} {}", "trailing characters after the value, at line 1 column 4"),
        ("{\"a\" 1}", "expected ':' after a key"),
        ("{a:1}", "expected a key in double quotes"),
        ("[1,]", "expected a value"),
        ("{\"a\":1,}", "expected a key"),
        ("[1 2]", "expected ',' or ']'"),
        ("\"\u{1}\"", "control character in a string"),
        ("\"\\x\"", "invalid escape"),
        ("\"\\ud800\"", "lone surrogate in a hex escape"),
        ("\"\\udc00\"", "lone surrogate in a hex escape"),
        ("\"\\u00g0\"", "invalid hex escape"),
        ("01", "needless 0"),
        ("1.", "EOF"),
        ("-", "EOF"),
        ("1e+", "EOF"),
        ("+1", "expected a value"),
        ("\u{feff}{}", "expected a value"),
    ] {
        let found = read_all(text).unwrap_err();
        assert!(
            matches!(&found, JsonError::Malformed(cause) if cause.contains(message)),
            "{text}: {found}"
        );
        assert_eq!(check(text, MAX_DEPTH).unwrap_err(), found);
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
    assert!(read_all(&nested(MAX_DEPTH)).is_ok());
    let error = read_all(&nested(MAX_DEPTH + 1)).unwrap_err();
    assert!(matches!(error, JsonError::Unfit { is_too_deep: true, .. }), "{error}");
    assert!(read_all(&"[".repeat(1_000_000)).is_err());
    assert!(check(&nested(3), 3).is_ok());
    let error = check(r#"{"a":[[[]]]}"#, 3).unwrap_err();
    assert_eq!(error.to_string(), "$.a[0][0]: this is nested deeper than 3 levels");
}

#[test]
fn memory_is_counted_while_values_are_built() {
    let text = r#"{"a":[1,{"b":"text"},null],"c":{}}"#;
    let value = read_all(text).unwrap();
    let mut bytes_left = json_size::estimate_value(&value);
    read(text, &mut bytes_left.clone()).unwrap();
    assert_eq!(read(text, &mut (bytes_left - 1)), Err(JsonError::TooLargeInMemory));
    read(text, &mut bytes_left).unwrap();
    assert_eq!(bytes_left, 0);
    let max = MAX_MEMORY_PER_BYTE;
    for heavy in ["[]", "{}", "[{}]", "[[[],[]]]", r#"{"":{"":{}}}"#, "0"] {
        let list = format!("[{}0]", format!("{heavy},").repeat(1_000));
        let bytes = json_size::estimate_value(&read_all(&list).unwrap());
        assert!(bytes <= max * list.len() as u64, "{heavy}: {bytes} of {}", list.len());
    }
    let many = format!("[{}{{}}]", "{},".repeat(1_000_000));
    assert_eq!(read(&many, &mut (1 << 20)), Err(JsonError::TooLargeInMemory));
}

fn set(paths: &[&str]) -> (FieldSet, Vec<Vec<String>>) {
    let paths: Vec<Vec<String>> = paths
        .iter()
        .map(|path| path.split('.').filter(|field| !field.is_empty()).map(str::to_owned).collect())
        .collect();
    (FieldSet::new(paths.iter().map(Vec::as_slice)), paths)
}

#[test]
fn fields_are_picked_out_of_a_text() {
    let text = r#"{"a":{"b":[10,{"c":"x"}],"n":1},"big":[[1,2],[3]],"d":"e"}"#;
    let value = read_all(text).unwrap();
    let (set, paths) = set(&["a.b.1.c", "a.b.1", "d", "a.b.01", "d.x", "big.9", "none"]);
    let picked = set.pick(text, &mut { u64::MAX }).unwrap();
    let found: Vec<_> = paths.iter().map(|path| set.find(&picked, path)).collect();
    let expected =
        [Some(json!("x")), Some(json!({"c": "x"})), Some(json!("e")), None, None, None, None];
    assert_eq!(found, expected.each_ref().map(Option::as_ref));
    assert_eq!(picked, set.pick_from(&value));
}

#[test]
fn an_empty_path_picks_the_whole() {
    let text = r#"{"a":1}"#;
    let (set, _) = set(&["a", ""]);
    let picked = set.pick(text, &mut { u64::MAX }).unwrap();
    assert_eq!(set.find(&picked, &[]), Some(&json!({"a": 1})));
    assert_eq!(set.find(&picked, &["a".to_owned()]), Some(&json!(1)));
}

#[test]
fn unnamed_fields_take_no_memory() {
    let rows: String = (0..100_000).map(|_| "{\"x\":1},").collect();
    let text = format!(r#"{{"rows":[{rows}{{}}],"small":7}}"#);
    let (set, paths) = set(&["small"]);
    let mut bytes_left = 1_000;
    let picked = set.pick(&text, &mut bytes_left).unwrap();
    assert_eq!(set.find(&picked, &paths[0]), Some(&json!(7)));
    assert_eq!(1_000 - bytes_left, picked.memory_bytes());
    let (set, _) = self::set(&["rows"]);
    assert_eq!(set.pick(&text, &mut 1_000), Err(JsonError::TooLargeInMemory));
}

#[test]
fn typed_values_keep_magic_keys() {
    #[derive(serde::Deserialize)]
    struct Holder {
        #[serde(deserialize_with = "verbatim")]
        one: Value,
        #[serde(default, deserialize_with = "maybe_verbatim")]
        two: Option<Value>,
        #[serde(default, deserialize_with = "verbatim_list")]
        three: Vec<Value>,
    }
    impl Typed for Holder {}
    let magic = r#"{"$serde_json::private::RawValue":"[1]"}"#;
    let text = format!(r#"{{"one":{magic},"two":[{magic}],"three":[{magic}]}}"#);
    for holder in [from_text::<Holder>(&text).unwrap(), from_stored::<Holder>(&text).unwrap()] {
        assert_eq!(holder.one.to_string(), magic);
        assert_eq!(holder.two.unwrap().to_string(), format!("[{magic}]"));
        assert_eq!(holder.three[0].to_string(), magic);
    }
}

/// Generates values without numbers that serde_json's own parser rounds.
fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1_000_000..1_000_000_i64).prop_map(|n| Value::from(n as f64 / 64.0)),
        any::<String>().prop_map(Value::from),
        "[a-c\"\\\\\n\u{1}ü😀]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::vec(("[a-c0-2]{0,2}|.{0,3}", inner), 0..20)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Writes a value with whitespace, and with escapes that are not required.
fn spread(value: &Value, blanks: &str) -> String {
    let text = serde_json::to_string_pretty(value).unwrap();
    text.replace('\n', blanks).replace('b', "\\u0062").replace("\\\\u0062", "\\\\b")
}

proptest! {
    #[test]
    fn agrees_with_serde_json_on_values(value in values(), blanks in "[ \n\t\r]{0,3}") {
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            prop_assert_eq!(&read_all(&text).unwrap(), &value);
        }
        let text = spread(&value, &blanks);
        if let Ok(reference) = serde_json::from_str::<Value>(&text) {
            prop_assert_eq!(read_stored(&text).unwrap(), reference);
        }
    }

    #[test]
    fn doubles_are_read_as_they_are_written(bits in any::<u64>()) {
        let double = f64::from_bits(bits);
        prop_assume!(double.is_finite());
        for text in [json!(double).to_string(), format!("{double:?}"), format!("{double:e}")] {
            if let Ok(whole) = text.parse::<i128>() {
                prop_assume!(u64::try_from(whole).is_ok() || i64::try_from(whole).is_ok());
            }
            let read = read_all(&text).unwrap().as_f64().unwrap();
            prop_assert_eq!(read.to_bits(), bits, "{}", text);
        }
    }

    #[test]
    fn decimals_are_kept_exactly_or_refused(
        whole in "-?(0|[1-9][0-9]{0,20})", fraction in "(\\.[0-9]{1,20})?", e in "([eE][+-]?[0-9]{1,3})?",
    ) {
        let text = format!("{whole}{fraction}{e}");
        prop_assert_eq!(read_all(&text).is_ok(), check(&text, 0).is_ok());
        if let Ok(value) = read_all(&text) {
            prop_assert_eq!(normal(&text), normal(&value.to_string()), "{}", text);
        }
    }

    #[test]
    fn counted_memory_matches_the_built_value(value in values()) {
        let mut bytes_left = 1 << 40;
        read(&value.to_string(), &mut bytes_left).unwrap();
        let bytes = json_size::estimate_value(&value);
        prop_assert_eq!((1 << 40) - bytes_left, bytes);
        // With little room, memory is estimated before the value is built.
        let text = spread(&value, " ");
        if let Ok(value) = read_stored(&text) {
            let bytes = json_size::estimate_value(&value);
            prop_assert_eq!(read_stored_within(&text, &mut { bytes }), Ok(value));
            prop_assert_eq!(
                Reader::new(&text, Rules::LENIENT, bytes - 1).document(Mode::Estimate),
                Err(JsonError::TooLargeInMemory)
            );
        }
    }

    #[test]
    fn modes_agree_on_broken_texts(
        value in values(),
        at in any::<prop::sample::Index>(),
        put in "[\\[\\]{}:,\"0-9eE.\\-ab \\\\]{0,2}",
        cut in 0..3_usize,
    ) {
        let text = value.to_string();
        let from = text.floor_char_boundary(at.index(text.len() + 1));
        let to = text.ceil_char_boundary((from + cut).min(text.len()));
        let text = format!("{}{put}{}", &text[..from], &text[to..]);
        let built = read_all(&text);
        prop_assert_eq!(built.err(), check(&text, MAX_DEPTH).err());
        let stored = read_stored(&text);
        let reference = serde_json::from_str::<Value>(&text);
        prop_assert_eq!(stored.is_ok(), reference.is_ok(), "{}: {:?} and {:?}", text, stored, reference);
    }

    #[test]
    fn reading_json_never_panics(
        text in any::<String>(),
        bytes in prop::collection::vec(any::<u8>(), 0..64),
        json in "[\\[\\]{}:,\"0-9eE.\\-tfn \\\\u]*",
    ) {
        for text in [text.as_str(), &String::from_utf8_lossy(&bytes), &json] {
            let _ = (read_all(text), check(text, 3), set(&["a", "0.b"]).0.pick(text, &mut 9_999));
        }
    }

    #[test]
    fn picking_agrees_with_building_then_picking(
        value in values(), paths in prop::collection::vec("([a-c0-2]{1,2}(\\.[a-c0-2]{1,2}){0,3})?", 0..6),
    ) {
        let (set, paths) = set(&paths.iter().map(String::as_str).collect::<Vec<_>>());
        let mut bytes_left = 1 << 40;
        let picked = set.pick(&value.to_string(), &mut bytes_left).unwrap();
        prop_assert_eq!(&picked, &set.pick_from(&value));
        prop_assert_eq!((1 << 40) - bytes_left, picked.memory_bytes());
        for path in &paths {
            prop_assert_eq!(set.find(&picked, path), crate::template::lookup_path(&value, path));
        }
    }
}

/// Returns a decimal's sign, digits without surrounding zeros, and exponent, computed
/// independently of the parser.
fn normal(text: &str) -> (bool, String, i64) {
    let (sign, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let mut exponent = exponent.parse::<i64>().unwrap() - fraction.len() as i64;
    let mut digits = format!("{whole}{fraction}").trim_start_matches('0').to_owned();
    while digits.ends_with('0') {
        digits.pop();
        exponent += 1;
    }
    if digits.is_empty() { (sign, digits, 0) } else { (sign, digits, exponent) }
}
